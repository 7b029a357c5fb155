"""Candles a second of the fold beside backtesting.py: same candles, same decisions, same run."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from trading.candles import CandleSeries
from trading.decisions import Action, Decision, OrderTerms
from trading.metrics import compute_metrics
from trading.simulation import Mode, Rules, replay

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from backtesting import Backtest, Strategy

REPETITIONS = 7
HOUR = 3_600_000
CAPITAL = 1e9  # the peer trades whole units only
FEE_RATE = 0.001
STOP, TARGET, SIZE = 0.02, 0.03, 0.1
TERMS = OrderTerms(size=SIZE, stop_loss_distance=STOP, take_profit_distance=TARGET)

Decisions = dict[int, Decision]


def run(candles_path: Path, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Candles a second of both, whole test and statistics included, the median of repetitions.

    The two take turns and their processor time counts, so that a busy machine slows both alike.
    """
    frame = pd.read_csv(candles_path, index_col=0, parse_dates=True)
    series = series_of(frame)
    cases = {
        "no decision": {},
        "every 24 candles": decisions_of(series, every=24),
        "every candle": decisions_of(series, every=1),
    }
    return {
        "candles": len(series),
        "cases": {
            name: compare(frame, series, decisions, repetitions)
            for name, decisions in cases.items()
        },
    }


def series_of(frame: pd.DataFrame) -> CandleSeries:
    times = pd.DatetimeIndex(frame.index).as_unit("ms").asi8
    columns = {name.lower(): frame[name].to_numpy() for name in frame.columns}
    return CandleSeries(open_time=times, **columns)


def decisions_of(series: CandleSeries, every: int) -> Decisions:
    """What an agent that follows the last day's momentum would have answered."""
    close = series.close
    momentum = np.append(np.zeros(24), close[24:] / close[:-24] - 1)
    return {
        index: Decision(action=_action(momentum[index]), order=TERMS)
        for index in range(0, len(series), every)
    }


def _action(momentum: float) -> Action:
    if abs(momentum) < 0.002:
        return Action.CLOSE
    if abs(momentum) < 0.01:
        return Action.HOLD
    return Action.LONG if momentum > 0 else Action.SHORT


def compare(
    frame: pd.DataFrame, series: CandleSeries, decisions: Decisions, repetitions: int
) -> dict[str, float]:
    peer = Backtest(
        frame, recorded(decisions), cash=CAPITAL, commission=FEE_RATE, finalize_trades=True
    )
    times: list[tuple[float, float]] = []
    trades = peer_trades = 0
    for _ in range(repetitions):
        spent, trades = timed(lambda: fold(series, decisions))
        peer_spent, peer_trades = timed(lambda: int(peer.run()["# Trades"]))
        times.append((spent, peer_spent))
    ours, theirs = (len(series) / median(column) for column in zip(*times, strict=True))
    return {
        "candles_per_second": ours,
        "peer_candles_per_second": theirs,
        "ratio": ours / theirs,
        "trades": trades,
        "peer_trades": peer_trades,
    }


def timed(work: Callable[[], int]) -> tuple[float, int]:
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = work()
    return time.process_time() - begun, result


def fold(series: CandleSeries, decisions: Decisions) -> int:
    rules = Rules(
        starting_capital=CAPITAL,
        timeframe_ms=HOUR,
        mode=Mode.OMNI,
        fee_rate=FEE_RATE,
        slippage_rate=0.0,
        safety_mode=False,
        allow_leverage=False,
        max_leverage=1.0,
        max_position_size=1.0,
        max_loss_per_trade=1.0,
        max_daily_loss=None,
        max_total_drawdown=None,
    )
    result = replay(series, decisions, rules)
    metrics = compute_metrics(
        series.open_time,
        result.equity,
        result.trades,
        exposed_candles=result.state.exposed_candles,
        starting_capital=CAPITAL,
        timeframe_ms=HOUR,
    )
    assert metrics.total_return is not None
    return len(result.trades)


def recorded(decisions: Decisions) -> type[Strategy]:
    """A strategy of the peer that repeats recorded decisions."""

    class Recorded(Strategy):  # type: ignore[misc]  # the peer has no types
        def init(self) -> None:
            self.answers = decisions

        def next(self) -> None:
            decision = self.answers.get(len(self.data) - 1)
            if decision is None or decision.action is Action.HOLD:
                return
            if decision.action is Action.CLOSE:
                self.position.close()
            elif not self.position:
                self.enter(decision.action)

        def enter(self, action: Action) -> None:
            price = self.data.Close[-1]
            if action is Action.LONG:
                self.buy(size=SIZE, sl=price * (1 - STOP), tp=price * (1 + TARGET))
            else:
                self.sell(size=SIZE, sl=price * (1 + STOP), tp=price * (1 - TARGET))

    return Recorded


def main() -> None:
    folder = os.environ.get("ALPHALAB_DATA", "../shared/data")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "BTCUSDT_1h.csv"
    figures = run(path)
    print(f"{figures['candles']:,} candles, median of {REPETITIONS} alternating runs")
    for name, case in figures["cases"].items():
        print(
            f"{name:>18}: {case['candles_per_second']:>9,.0f} candles/s"
            f"   backtesting.py {case['peer_candles_per_second']:>9,.0f}"
            f"   ratio {case['ratio']:.2f}   trades {case['trades']} / {case['peer_trades']}"
        )


if __name__ == "__main__":
    main()
