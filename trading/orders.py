"""Order, position, trade: how a decision becomes money, as values."""

from dataclasses import dataclass
from enum import StrEnum

from trading.candles import Candle
from trading.decisions import Action, OrderTerms, Override


class Side(StrEnum):
    LONG = "long"
    SHORT = "short"


class ExitType(StrEnum):
    TAKE_PROFIT = "take_profit"
    STOP_LOSS = "stop_loss"
    SIGNAL = "signal"
    MANUAL = "manual"
    LIQUIDATION = "liquidation"
    GUARD = "guard"
    END_OF_TEST = "end_of_test"


class RejectionReason(StrEnum):
    POSITION_OPEN = "position_open"
    DAILY_LOSS = "daily_loss"
    FREQUENCY = "frequency"
    STOP_REQUIRED = "stop_required"
    END_OF_TEST = "end_of_test"
    WRONG_SIDE = "wrong_side"
    TOO_SMALL = "too_small"
    STOPPED = "stopped"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOrder:
    """An order that waits for the next step, its leverage and size already within the limits.

    `decided_time` is the close of the candle at which it was decided, in epoch milliseconds.
    """

    action: Action
    decided_candle: int
    decided_time: int
    decided_close: float
    terms: OrderTerms
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An order that fills nothing; `detail` is a sentence for the user."""

    reason: RejectionReason
    detail: str
    action: Action
    decided_candle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """`size` in base units and positive for both sides; fee, slippage and margin in quote units.

    `margin` is `entry_price * size / leverage`.
    """

    trade_number: int
    side: Side
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    size: float
    leverage: float
    margin: float
    entry_fee: float
    entry_slippage: float
    stop_price: float | None
    target_price: float | None
    liquidation_price: float | None
    overrides: tuple[Override, ...] = ()

    def unrealized_pnl(self, price: float) -> float:
        """Before fees."""
        if self.side is _LONG:
            return (price - self.entry_price) * self.size
        return (self.entry_price - price) * self.size

    def is_reached(self, candle: Candle) -> bool:
        """Whether the candle touches the stop, the target or the liquidation price."""
        stop, target, liquidation = self.stop_price, self.target_price, self.liquidation_price
        low, high = candle.low, candle.high
        if self.side is _SHORT:
            return (
                (stop is not None and high >= stop)
                or (target is not None and low <= target)
                or (liquidation is not None and high >= liquidation)
            )
        return (
            (stop is not None and low <= stop)
            or (target is not None and high >= target)
            or (liquidation is not None and low <= liquidation)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A position from entry to exit; `pnl_amount = gross_pnl - slippage_cost - fees`.

    `gross_pnl` is what the prices without slippage would have earned, `pnl_fraction` the net
    result on the margin. `exit_time` is the candle's open for an exit at its open, else its
    close: the time by which the level had been touched. `ambiguous` says that the exit candle
    touched the target and the stop, or the liquidation price, in an order nobody knows.
    """

    trade_number: int
    side: Side
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    exit_price: float
    exit_time: int
    exit_candle: int
    exit_type: ExitType
    exit_decided_candle: int | None
    size: float
    leverage: float
    margin: float
    fees: float
    slippage_cost: float
    gross_pnl: float
    pnl_amount: float
    pnl_fraction: float
    stop_price: float | None
    target_price: float | None
    ambiguous: bool
    overrides: tuple[Override, ...] = ()


# Looked up once: a member costs more than the comparison it is for.
_LONG = Side.LONG
_SHORT = Side.SHORT
