"""Where the rules coincide, backtesting.py makes the same trades on the same real candles."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.core import run, series_of
from tests.trading.scenarios import make_rules
from trading.candles import CandleSeries
from trading.decisions import Action, Decision, OrderTerms
from trading.orders import ExitType, Trade
from trading.simulation import advance, close_out, decide, start

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from backtesting import Backtest, Strategy

CAPITAL = 1e9
FEE_RATE = 0.001
UNITS = 100
FIRST = 1  # the peer asks from the second candle on

Choices = dict[int, tuple[Action, float | None, float | None]]


@pytest.fixture(scope="module")
def path(candle_files: Path) -> Path:
    return candle_files / "BTCUSDT_1h.csv"


@pytest.fixture(scope="module")
def frame(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col=0, parse_dates=True)


@pytest.mark.parametrize("seed", range(4))
def test_market_orders_at_the_next_open_make_the_same_trades(frame: pd.DataFrame, seed: int):
    window = part(frame, seed)
    rng = random.Random(seed)
    choices: Choices = {
        index: (rng.choice(list(Action)), None, None) for index in range(FIRST, len(window) - 2)
    }
    choices[len(window) - 3] = (Action.CLOSE, None, None)  # the peer ends a test at its last open
    trades, equity = ours(series_of(window), choices)
    theirs, curve = peers(window, choices)
    assert len(trades) > 200
    assert [exact(trade) for trade in trades] == [exact_of(row) for row in theirs]
    np.testing.assert_allclose(equity, curve, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_stops_and_targets_end_the_same_trades(frame: pd.DataFrame, seed: int):
    """Two rules differ and are left out: a gap beyond a target, and which of both came first."""
    window = part(frame, seed)
    series = series_of(window)
    choices = bracketed(series, seed)
    trades, _ = ours(series, choices)
    theirs, _ = peers(window, choices)
    assert len(trades) > 200
    if trades[-1].exit_type is ExitType.END_OF_TEST:
        trades, theirs = trades[:-1], theirs[:-1]
    assert [trade.entry_candle for trade in trades] == [row["EntryBar"] for row in theirs]
    same = [(t, r) for t, r in zip(trades, theirs, strict=True) if coincides(t, series)]
    assert len(same) > 0.9 * len(trades)
    assert [exact(trade) for trade, _ in same] == [exact_of(row) for _, row in same]


def test_the_benchmark_gives_both_the_same_work(frame: pd.DataFrame, tmp_path: Path):
    frame.head(4_000).to_csv(tmp_path / "candles.csv")
    figures = run(tmp_path / "candles.csv", repetitions=1)
    assert figures["candles"] == 4_000
    busy = [case for name, case in figures["cases"].items() if name != "no decision"]
    for case in busy:
        assert case["ratio"] == case["candles_per_second"] / case["peer_candles_per_second"]
        assert case["trades"] > 50
        assert case["trades"] == pytest.approx(case["peer_trades"], rel=0.02)


def part(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    begin = seed * 9_000
    return frame.iloc[begin : begin + 3_000]


def bracketed(series: CandleSeries, seed: int) -> Choices:
    """Entries with levels so far from the decision's close that the next open is between them."""
    rng = random.Random(seed)
    choices: Choices = {}
    for index in range(FIRST, len(series) - 2):
        side = rng.choice([Action.LONG, Action.SHORT])
        close, sign = float(series.close[index]), 1 if side is Action.LONG else -1
        stop = close * (1 - sign * rng.uniform(0.005, 0.02))
        choices[index] = (side, stop, close * (1 + sign * rng.uniform(0.005, 0.02)))
    return choices


def coincides(trade: Trade, series: CandleSeries) -> bool:
    exit_open = float(series.open[trade.exit_candle])
    is_gap = trade.exit_type is ExitType.TAKE_PROFIT and exit_open != trade.exit_price
    sign = 1 if trade.side == "long" else -1
    assert trade.target_price is not None
    return not trade.ambiguous and not (is_gap and sign * (exit_open - trade.target_price) > 0)


def exact(trade: Trade) -> tuple[Any, ...]:
    sign = 1 if trade.side == "long" else -1
    costs = pytest.approx(trade.fees, rel=1e-9)
    return (
        sign * round(trade.size, 6),
        trade.entry_candle,
        trade.exit_candle,
        trade.entry_price,
        trade.exit_price,
        costs,
    )


def exact_of(row: dict[str, Any]) -> tuple[Any, ...]:
    prices = (row["EntryPrice"], row["ExitPrice"])
    return (row["Size"], row["EntryBar"], row["ExitBar"], *prices, row["Commission"])


def ours(series: CandleSeries, choices: Choices) -> tuple[list[Trade], list[float]]:
    """Folds the choices, each sized to whole units at the open at which it will fill."""
    rules = make_rules(starting_capital=CAPITAL, fee_rate=FEE_RATE)
    state = start(rules)
    trades: list[Trade] = []
    equity: list[float] = []
    for index, candle in enumerate(series):
        step = advance(state, candle, rules)
        state = step.state
        equity.append(state.equity)
        trades += [step.closed] if step.closed else []
        if index in choices:
            share = UNITS * float(series.open[index + 1]) / state.cash
            decision = wish(choices[index], share)
            state = decide(state, decision, candle, rules, is_last=False).state
    final = close_out(state, series.candle(len(series) - 1), rules, ExitType.END_OF_TEST)
    trades += [final.closed] if final.closed else []
    return trades, [*equity[:-1], final.equity]


def wish(choice: tuple[Action, float | None, float | None], share: float) -> Decision:
    action, stop, target = choice
    terms = OrderTerms(size=share, stop_loss_price=stop, take_profit_price=target)
    return Decision(action=action, order=terms)


def peers(window: pd.DataFrame, choices: Choices) -> tuple[list[dict[str, Any]], list[float]]:
    class Recorded(Strategy):  # type: ignore[misc]  # the peer has no types
        def init(self) -> None:
            pass

        def next(self) -> None:
            action, stop, target = choices.get(len(self.data) - 1, (Action.HOLD, None, None))
            if action is Action.CLOSE:
                self.position.close()
            elif not self.position and action is Action.LONG:
                self.buy(size=UNITS, sl=stop, tp=target)
            elif not self.position and action is Action.SHORT:
                self.sell(size=UNITS, sl=stop, tp=target)

    peer = Backtest(window, Recorded, cash=CAPITAL, commission=FEE_RATE, finalize_trades=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = peer.run()
    rows = stats["_trades"].sort_values("EntryBar").to_dict("records")
    return rows, stats["_equity_curve"]["Equity"].tolist()
