"""What an agent decided, and at which candles it is asked."""

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from trading.errors import InvalidDecision


class Action(StrEnum):
    LONG = "long"
    SHORT = "short"
    HOLD = "hold"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTerms:
    """How an entry was asked for; absent (or 0, for a level) means not asked for.

    `size` is a fraction of equity, a distance a fraction of the fill price. Where a price and a
    distance are both given, the price wins.
    """

    leverage: float | None = None
    size: float | None = None
    stop_loss_distance: float | None = None
    take_profit_distance: float | None = None
    stop_loss_price: float | None = None
    take_profit_price: float | None = None

    def __post_init__(self) -> None:
        for name in _TERMS:
            value = getattr(self, name)
            if value is not None and not (type(value) is float and math.isfinite(value)):
                object.__setattr__(self, name, _number(name, value))

    @property
    def has_stop(self) -> bool:
        return bool(self.stop_loss_price or self.stop_loss_distance)


_TERMS = tuple(field.name for field in fields(OrderTerms))


def _number(name: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidDecision(f"{name} is not a finite number.")
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`confidence` is a fraction from 0 to 1; `order` goes with long and short only."""

    action: Action
    reasoning: str = ""
    confidence: float | None = None
    order: OrderTerms | None = None

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise InvalidDecision(f"confidence is {self.confidence}, not between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What the engine changed in an order, by which rule.

    `leverage` is a number; `max_position_size` and `max_loss_per_trade` change the size as a
    fraction of equity, `safety_mode` the distance of the stop as a fraction of the fill price.
    """

    rule: str
    before: float | str | None
    after: float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """The candles at which the agent is asked: `first`, and every `interval` candles after it."""

    first: int
    interval: int = 1

    def __post_init__(self) -> None:
        if self.first < 0 or self.interval < 1:
            raise InvalidDecision(f"No cadence: first {self.first}, interval {self.interval}.")

    def is_due(self, candle_index: int) -> bool:
        return candle_index >= self.first and (candle_index - self.first) % self.interval == 0

    def next_due(self, candle_index: int) -> int:
        """The first decision candle at or after this one."""
        ahead = max(candle_index, self.first) - self.first
        return self.first + -(-ahead // self.interval) * self.interval

    def count(self, total_candles: int) -> int:
        """How many of so many candles are decision candles."""
        return max(0, -(-(total_candles - self.first) // self.interval))
