"""Market views for tests: a seeded walk of candles, and rules with every limit set."""

import math
import random
from typing import Any

from agents.prompts import MarketView
from trading.candles import Candle, Timeframe
from trading.orders import Position, Side
from trading.rules import Mode, Rules

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01T00:00Z


def walk(count: int, *, seed: int = 7, price: float = 40_000.0) -> list[Candle]:
    """Candles of a random walk; the first ones do not depend on how many there are."""
    source = random.Random(seed)
    candles = []
    for index in range(count):
        close = price * math.exp(source.gauss(0, 0.006))
        high = max(price, close) * (1 + abs(source.gauss(0, 0.002)))
        low = min(price, close) * (1 - abs(source.gauss(0, 0.002)))
        candles.append(
            Candle(
                open_time=START + index * HOUR,
                open=round(price, 2),
                high=round(high, 2),
                low=round(low, 2),
                close=round(close, 2),
                volume=round(source.uniform(10, 900), 3),
            )
        )
        price = close
    return candles


def make_rules(**changes: Any) -> Rules:
    fields: dict[str, Any] = {
        "starting_capital": 10_000.0,
        "timeframe_ms": HOUR,
        "mode": Mode.OMNI,
        "safety_mode": True,
        "allow_leverage": True,
        "max_leverage": 3.0,
        "max_position_size": 0.25,
        "max_loss_per_trade": 0.02,
        "max_daily_loss": 0.05,
        "max_total_drawdown": 0.2,
    }
    return Rules(**(fields | changes))


def make_position(**changes: Any) -> Position:
    fields: dict[str, Any] = {
        "trade_number": 1,
        "side": Side.SHORT,
        "entry_price": 41_000.0,
        "entry_time": START,
        "entry_candle": 90,
        "decided_candle": 89,
        "size": 0.05,
        "leverage": 2.0,
        "margin": 1_025.0,
        "entry_fee": 2.0,
        "entry_slippage": 1.0,
        "stop_price": 42_000.0,
        "target_price": None,
        "liquidation_price": 61_000.0,
    }
    return Position(**(fields | changes))


def make_view(candle_index: int = 99, **changes: Any) -> MarketView:
    """The view at the close of candle `candle_index` of the walk."""
    source = changes.pop("walk", None)
    if "candles" not in changes:
        candles = source or walk(candle_index + 1)
        changes["candles"] = candles[max(0, candle_index - 29) : candle_index + 1]
    fields: dict[str, Any] = {
        "asset": "BTC/USDT",
        "timeframe": Timeframe.HOUR_1,
        "rules": make_rules(),
        "strategy_prompt": "Trade the breakout, cut losses early.",
        "candle_index": candle_index,
        "indicators": {"rsi_14": 55.123456789, "ema_200": None},
        "equity": 10_123.0,
        "drawdown": 0.012,
    }
    return MarketView(**(fields | changes))
