"""At which price an order fills, and where inside a candle a position ends."""

from dataclasses import dataclass

from trading.candles import Candle
from trading.orders import ExitType, Position, Side
from trading.rules import Intrabar

MAINTENANCE_MARGIN_RATE = 0.005
_LONG = Side.LONG  # looked up once: a member costs more than the comparison it is for


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """`reference` is the price before slippage, `price` the one that was got."""

    exit_type: ExitType
    reference: float
    price: float
    at_open: bool = False
    ambiguous: bool = False


def entry_fill(side: Side, reference: float, slippage_rate: float) -> float:
    """A long buys dearer than the market's price, a short sells cheaper."""
    return reference * (1 + direction(side) * slippage_rate)


def exit_fill(side: Side, reference: float, slippage_rate: float) -> float:
    """A long sells cheaper than the market's price, a short buys back dearer."""
    return reference * (1 - direction(side) * slippage_rate)


def direction(side: Side) -> int:
    """+1 for a long, -1 for a short."""
    return 1 if side is _LONG else -1


def liquidation_price(side: Side, entry_price: float, leverage: float) -> float | None:
    """Where the exchange takes an isolated margin; none without leverage."""
    if leverage <= 1:
        return None
    sign = direction(side)
    return entry_price * (1 - sign / leverage + sign * MAINTENANCE_MARGIN_RATE)


def market_exit(
    position: Position, reference: float, slippage_rate: float, exit_type: ExitType
) -> Exit:
    """An exit at the market's price, worsened by slippage."""
    price = exit_fill(position.side, reference, slippage_rate)
    return Exit(exit_type=exit_type, reference=reference, price=price)


def opening_liquidation(position: Position, candle: Candle) -> Exit | None:
    """The exit of a position whose candle opens beyond its liquidation price.

    Beyond, not at: a touch is left to `protective_exit`, where an equal stop comes first.
    """
    liquidation = position.liquidation_price
    if liquidation is None:
        return None
    sign = direction(position.side)
    if sign * candle.open >= sign * liquidation:
        return None
    return _limit(ExitType.LIQUIDATION, liquidation, at_open=True)


def protective_exit(
    position: Position, candle: Candle, *, slippage_rate: float, intrabar: Intrabar, is_new: bool
) -> Exit | None:
    """The exit at stop, target or liquidation price within the candle, if any is touched.

    `is_new` says that the position was opened at this very candle's open, so that the open is
    no gap through its stop. Prices of a short are compared with their signs turned, which makes
    it a long.
    """
    sign = direction(position.side)
    stop, target = position.stop_price, position.target_price
    opened = sign * candle.open
    if stop is not None and opened <= sign * stop and not is_new:
        gap = market_exit(position, candle.open, slippage_rate, ExitType.STOP_LOSS)
        return Exit(exit_type=gap.exit_type, reference=gap.reference, price=gap.price, at_open=True)
    if target is not None and opened >= sign * target:
        return _limit(ExitType.TAKE_PROFIT, target, at_open=True)
    return _touched(position, candle, slippage_rate, intrabar)


def _touched(
    position: Position, candle: Candle, slippage_rate: float, intrabar: Intrabar
) -> Exit | None:
    is_long = position.side is _LONG
    worst, best = (candle.low, candle.high) if is_long else (-candle.high, -candle.low)
    sign = 1 if is_long else -1
    level, loss_type = adverse_level(position)
    target = position.target_price
    is_lost = level is not None and worst <= sign * level
    is_won = target is not None and best >= sign * target
    ambiguous = is_lost and is_won
    if target is not None and is_won and (not is_lost or intrabar is Intrabar.OPTIMISTIC):
        return _limit(ExitType.TAKE_PROFIT, target, ambiguous=ambiguous)
    if level is None or not is_lost:
        return None
    if loss_type is ExitType.LIQUIDATION:
        return _limit(loss_type, level, ambiguous=ambiguous)
    price = exit_fill(position.side, level, slippage_rate)
    return Exit(exit_type=loss_type, reference=level, price=price, ambiguous=ambiguous)


def adverse_level(position: Position) -> tuple[float | None, ExitType]:
    """The stop or the liquidation price, whichever is met first; the stop where they are equal."""
    return nearer_level(position.side, position.stop_price, position.liquidation_price)


def nearer_level(
    side: Side, stop: float | None, liquidation: float | None
) -> tuple[float | None, ExitType]:
    """See `adverse_level`."""
    if liquidation is None:
        return stop, ExitType.STOP_LOSS
    sign = direction(side)
    if stop is not None and sign * stop >= sign * liquidation:
        return stop, ExitType.STOP_LOSS
    return liquidation, ExitType.LIQUIDATION


def _limit(
    exit_type: ExitType, price: float, *, at_open: bool = False, ambiguous: bool = False
) -> Exit:
    return Exit(
        exit_type=exit_type, reference=price, price=price, at_open=at_open, ambiguous=ambiguous
    )
