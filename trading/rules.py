"""The rules of one test: every number that the fold reads, fixed when the test starts."""

import math
from dataclasses import dataclass
from enum import StrEnum

from trading.errors import InvalidRules


class Mode(StrEnum):
    MONK = "monk"
    OMNI = "omni"


class FillTiming(StrEnum):
    NEXT_OPEN = "next_open"
    CLOSE = "close"


class Intrabar(StrEnum):
    PESSIMISTIC = "pessimistic"
    OPTIMISTIC = "optimistic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All ratios are fractions; `None` switches a guard off.

    `fee_rate` is per side and on notional. `auto_stop_loss` is None unless the test was started
    with `auto_stop_on_loss`.
    """

    starting_capital: float
    timeframe_ms: int
    mode: Mode
    fee_rate: float = 0.001
    slippage_rate: float = 0.0005
    fill_timing: FillTiming = FillTiming.NEXT_OPEN
    intrabar: Intrabar = Intrabar.PESSIMISTIC
    safety_mode: bool
    allow_leverage: bool
    max_leverage: float
    max_position_size: float
    max_loss_per_trade: float
    max_daily_loss: float | None
    max_total_drawdown: float | None
    auto_stop_loss: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.starting_capital) and self.starting_capital > 0):
            raise InvalidRules(f"starting_capital is {self.starting_capital}, not above 0.")
        if self.timeframe_ms <= 0:
            raise InvalidRules(f"timeframe_ms is {self.timeframe_ms}, not above 0.")
        if not self.max_leverage >= 1:
            raise InvalidRules(f"max_leverage is {self.max_leverage}, below 1.")
        for name in _FRACTIONS:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidRules(f"{name} is {value}, not a fraction between 0 and 1.")


_FRACTIONS = (
    "fee_rate",
    "slippage_rate",
    "max_position_size",
    "max_loss_per_trade",
    "max_daily_loss",
    "max_total_drawdown",
    "auto_stop_loss",
)
