"""Rules, candles and decisions for the tests of the trading core, drawn or spelt out."""

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from typing_extensions import override

from trading.candles import Candle, CandleSeries
from trading.decisions import Action, Decision, OrderTerms
from trading.orders import ExitType, Side, Trade
from trading.rules import FillTiming, Intrabar, Mode, Rules

HOUR = 3_600_000
Row = tuple[int, float, float, float, float]


def make_rules(**changes: Any) -> Rules:
    """No costs, no limits, no guards, unless said otherwise."""
    settings: dict[str, Any] = {
        "starting_capital": 10_000.0,
        "timeframe_ms": HOUR,
        "mode": Mode.OMNI,
        "fee_rate": 0.0,
        "slippage_rate": 0.0,
        "safety_mode": False,
        "allow_leverage": False,
        "max_leverage": 5.0,
        "max_position_size": 1.0,
        "max_loss_per_trade": 1.0,
        "max_daily_loss": None,
        "max_total_drawdown": None,
    }
    return Rules(**settings | changes)


def make_series(rows: Sequence[Row]) -> CandleSeries:
    return CandleSeries.from_rows([(*row, 1.0) for row in rows])


def hourly(*prices: tuple[float, float, float, float], start: int = 0) -> list[Candle]:
    """Candles of one hour with these opens, highs, lows and closes."""
    return [
        Candle(open_time=start + i * HOUR, open=o, high=h, low=l, close=c, volume=1.0)
        for i, (o, h, l, c) in enumerate(prices)  # noqa: E741
    ]


def decision(action: str, **terms: Any) -> Decision:
    return Decision(action=Action(action), order=OrderTerms(**terms) if terms else None)


def closed_trade(pnl: float, hours: int = 1) -> Trade:
    """A trade that earned so much, whatever else it was."""
    return Trade(
        trade_number=1,
        side=Side.LONG,
        entry_price=100.0,
        entry_time=0,
        entry_candle=0,
        decided_candle=0,
        exit_price=100.0,
        exit_time=hours * HOUR,
        exit_candle=0,
        exit_type=ExitType.SIGNAL,
        exit_decided_candle=None,
        size=1.0,
        leverage=1.0,
        margin=100.0,
        fees=0.0,
        slippage_cost=0.0,
        gross_pnl=pnl,
        pnl_amount=pnl,
        pnl_fraction=pnl / 100,
        stop_price=None,
        target_price=None,
        ambiguous=False,
    )


def draw_market(
    rng: random.Random, count: int, timeframe: int, jump: float | None = None
) -> list[Row]:
    """Jumpy candles on a coarse grid, so that levels are met exactly; some are missing."""
    rows, time, last = [], rng.randrange(24) * timeframe, 100.0
    jump = jump or rng.choice([0.5, 2.0, 12.0, 30.0])
    for _ in range(count):
        open_ = last if rng.random() < 0.5 else _moved(rng, last, jump)
        close = _moved(rng, open_, jump)
        high = max(open_, close) + rng.choice([0, 0, 0.5, 1, jump])
        low = min(open_, close) - rng.choice([0, 0, 0.5, 1, jump])
        rows.append((time, open_, high, max(low, 0.5), close))
        last = close
        time += timeframe * rng.choice([1] * 20 + [2, 7, 30])
    return rows


def _moved(rng: random.Random, price: float, jump: float) -> float:
    return max(round((price + rng.uniform(-jump, jump)) * 2) / 2, 1.0)


def draw_terms(rng: random.Random, price: float) -> dict[str, float | None]:
    near = [None, None, 0.0, price - 3, price - 1, price + 1, price + 3]
    distances = [None, 0.0, 0.005, 0.01, 0.02, 0.05, 0.2, 1.5, -0.01]
    levels = {
        "stop_pct": rng.choice(distances),
        "target_pct": rng.choice(distances),
        "stop_price": rng.choice(near) if rng.random() < 0.3 else None,
        "target_price": rng.choice(near) if rng.random() < 0.3 else None,
    }
    size = rng.choice([None, 0.1, 0.25, 0.5, 1.0, 2.0, 0.0, -0.5, 0.0005])
    return levels | {"size": size, "leverage": rng.choice([None, 0.0, 1, 2.7, 5, 9])}


def draw_decisions(rng: random.Random, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
    every = rng.choice([1, 2, 5])
    chosen = {}
    for index in range(0, len(rows), every):
        action = rng.choice(["long", "long", "short", "short", "hold", "close"])
        chosen[index] = {"action": action} | draw_terms(rng, rows[index][4])
    return chosen


def draw_settings(rng: random.Random, timeframe: int) -> dict[str, Any]:
    """The rules as the reference reads them."""
    return {
        "capital": rng.choice([100.0, 10_000.0]),
        "timeframe": timeframe,
        "mode": rng.choice(["monk", "omni", "omni"]),
        "fee": rng.choice([0.0, 0.001, 0.004, 0.03]),
        "slippage": rng.choice([0.0, 0.0005, 0.01]),
        "fill_timing": rng.choice(["next_open", "close"]),
        "intrabar": rng.choice(["pessimistic", "optimistic"]),
        "safety": rng.random() < 0.3,
        "allow_leverage": rng.random() < 0.5,
        "max_leverage": rng.choice([1, 2, 3.5, 10]),
        "max_position_size": rng.choice([0.2, 1.0]),
        "max_loss_per_trade": rng.choice([0.005, 0.05, 0.9, 0.9]),
        "max_daily_loss": rng.choice([None, 0.01, 0.1]),
        "max_total_drawdown": rng.choice([None, None, 0.1, 0.5]),
        "auto_stop_loss": rng.choice([None, None, 0.1]),
    }


def rules_of(settings: dict[str, Any]) -> Rules:
    return Rules(
        starting_capital=settings["capital"],
        timeframe_ms=settings["timeframe"],
        mode=Mode(settings["mode"]),
        fee_rate=settings["fee"],
        slippage_rate=settings["slippage"],
        fill_timing=FillTiming(settings["fill_timing"]),
        intrabar=Intrabar(settings["intrabar"]),
        safety_mode=settings["safety"],
        allow_leverage=settings["allow_leverage"],
        max_leverage=settings["max_leverage"],
        max_position_size=settings["max_position_size"],
        max_loss_per_trade=settings["max_loss_per_trade"],
        max_daily_loss=settings["max_daily_loss"],
        max_total_drawdown=settings["max_total_drawdown"],
        auto_stop_loss=settings["auto_stop_loss"],
    )


def decision_of(words: dict[str, Any]) -> Decision:
    terms = OrderTerms(
        leverage=words["leverage"],
        size=words["size"],
        stop_loss_distance=words["stop_pct"],
        take_profit_distance=words["target_pct"],
        stop_loss_price=words["stop_price"],
        take_profit_price=words["target_price"],
    )
    return Decision(action=Action(words["action"]), order=terms)


class Scenario:
    """A market, the decisions taken in it and the rules, in both vocabularies."""

    def __init__(self, rng: random.Random, count: int) -> None:
        timeframe = rng.choice([HOUR // 4, HOUR, 4 * HOUR, 24 * HOUR])
        self.rows = draw_market(rng, count, timeframe)
        self.words = draw_decisions(rng, self.rows)
        self.settings = draw_settings(rng, timeframe)
        self.series = make_series(self.rows)
        self.decisions = {index: decision_of(words) for index, words in self.words.items()}
        self.rules = rules_of(self.settings)

    @override
    def __repr__(self) -> str:
        return f"rows={self.rows}\nwords={self.words}\nsettings={self.settings}"


def scenarios(max_candles: int = 60) -> st.SearchStrategy[Scenario]:
    return st.builds(
        Scenario,
        st.randoms(use_true_random=True),
        st.integers(min_value=1, max_value=max_candles),
    )
