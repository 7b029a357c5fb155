"""What the engine allows: refusals, limits on size and leverage, stops, the cap on a loss."""

import math
from dataclasses import dataclass

from trading.decisions import OrderTerms, Override
from trading.execution import direction, entry_fill, exit_fill, liquidation_price, nearer_level
from trading.orders import ExitType, RejectionReason, Side
from trading.rules import Mode, Rules

SAFETY_STOP_DISTANCE = 0.02
MONK_MAX_LOSS_PER_TRADE = 0.01
MONK_ENTRY_INTERVAL_MS = 4 * 3_600_000
ENGINE_MAX_LEVERAGE = 5
MIN_NOTIONAL = 10.0
# Far above what a few float operations can be off by, far below what anybody would notice.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`detail` is a sentence for the user."""

    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry as it fills at one price; all that the engine changed on the way to it."""

    side: Side
    price: float
    reference: float
    size: float
    leverage: float
    stop_price: float | None
    target_price: float | None
    liquidation_price: float | None
    overrides: tuple[Override, ...]

    @property
    def margin(self) -> float:
        return self.price * self.size / self.leverage


def limit_terms(terms: OrderTerms, rules: Rules) -> tuple[OrderTerms, tuple[Override, ...]]:
    """The terms with leverage and size within the limits, and what that changed.

    What was not asked for is filled in and is no override. A size of 0 or less is left to be
    refused as too small.
    """
    leverage = _allowed_leverage(terms.leverage, rules)
    size = rules.max_position_size
    if terms.size is not None:
        size = min(terms.size, size)
    overrides = _change("leverage", terms.leverage, leverage)
    overrides += _change("max_position_size", terms.size, size)
    limited = OrderTerms(
        leverage=leverage,
        size=size,
        stop_loss_distance=terms.stop_loss_distance,
        take_profit_distance=terms.take_profit_distance,
        stop_loss_price=terms.stop_loss_price,
        take_profit_price=terms.take_profit_price,
    )
    return limited, overrides


def _change(rule: str, asked: float | None, allowed: float) -> tuple[Override, ...]:
    if asked is None or asked == allowed:
        return ()
    return (Override(rule=rule, before=asked, after=allowed),)


def _allowed_leverage(asked: float | None, rules: Rules) -> float:
    if asked is None or not rules.allow_leverage:
        return 1.0
    highest = int(min(ENGINE_MAX_LEVERAGE, rules.max_leverage))
    return float(min(max(int(asked), 1), highest))


def needs_stop(terms: OrderTerms, rules: Rules) -> bool:
    """Whether the order must be refused for want of a stop."""
    return rules.mode is Mode.MONK and not rules.safety_mode and not terms.has_stop


def plan_entry(
    side: Side, terms: OrderTerms, *, reference: float, equity: float, rules: Rules
) -> Entry | Refusal:
    """The entry that terms within the limits lead to at a market price of `reference`."""
    price = entry_fill(side, reference, rules.slippage_rate)
    sign = direction(side)
    stop = _level(terms.stop_loss_price, terms.stop_loss_distance, price, -sign)
    target = _level(terms.take_profit_price, terms.take_profit_distance, price, sign)
    if refusal := _wrong_side(side, price, stop, target):
        return refusal
    stop, safety = _safe_stop(side, price, stop, rules)
    leverage, fraction = terms.leverage or 1.0, terms.size or 0.0
    liquidation = liquidation_price(side, price, leverage)
    per_unit = _loss_per_unit(side, price, stop, liquidation, rules)
    asked = max(equity, 0.0) * fraction * leverage / price  # debt times a negative size is nothing
    size, cut = _cap_risk(asked, per_unit, equity, fraction, rules)
    if size * price < MIN_NOTIONAL * (1 - ROUNDING):
        return _too_small(size * price)
    return Entry(
        side=side,
        price=price,
        reference=reference,
        size=size,
        leverage=leverage,
        stop_price=stop,
        target_price=target,
        liquidation_price=liquidation,
        overrides=safety + cut,
    )


def _level(price: float | None, distance: float | None, fill: float, sign: int) -> float | None:
    if price:
        return price
    return fill * (1 + sign * distance) if distance else None


def _wrong_side(
    side: Side, price: float, stop: float | None, target: float | None
) -> Refusal | None:
    sign = direction(side)
    for name, level, towards in (("stop", stop, -sign), ("target", target, sign)):
        if level is None:
            continue
        if towards * (level - price) <= 0 or not math.isfinite(level):
            detail = f"The {name} at {level:.10g} is on the wrong side of a {side} at {price:.10g}."
            return Refusal(reason=RejectionReason.WRONG_SIDE, detail=detail)
    return None


def _safe_stop(
    side: Side, price: float, stop: float | None, rules: Rules
) -> tuple[float | None, tuple[Override, ...]]:
    sign = direction(side)
    widest = price * (1 - sign * SAFETY_STOP_DISTANCE)
    if not rules.safety_mode or (stop is not None and sign * stop >= sign * widest):
        return stop, ()
    asked = None if stop is None else abs(stop - price) / price
    return widest, (Override(rule="safety_mode", before=asked, after=SAFETY_STOP_DISTANCE),)


def _loss_per_unit(
    side: Side, price: float, stop: float | None, liquidation: float | None, rules: Rules
) -> float | None:
    """The loss of one base unit at the stop or the liquidation price, both fees included.

    A price cannot fall below 0, however far away a stop was set.
    """
    level, exit_type = nearer_level(side, stop, liquidation)
    if level is None:
        return None
    if exit_type is not ExitType.LIQUIDATION:
        level = max(exit_fill(side, level, rules.slippage_rate), 0.0)
    return direction(side) * (price - level) + rules.fee_rate * (price + level)


def _cap_risk(
    size: float, per_unit: float | None, equity: float, fraction: float, rules: Rules
) -> tuple[float, tuple[Override, ...]]:
    if per_unit is None or size <= 0:
        return size, ()
    limit = rules.max_loss_per_trade
    if rules.mode is Mode.MONK:
        limit = min(limit, MONK_MAX_LOSS_PER_TRADE)
    most = limit * equity / per_unit
    if size <= most:
        return size, ()
    after = fraction * most / size
    return most, (Override(rule="max_loss_per_trade", before=fraction, after=after),)


def _too_small(notional: float) -> Refusal:
    detail = f"An order of {notional:.2f} is below the least of {MIN_NOTIONAL:.0f}."
    return Refusal(reason=RejectionReason.TOO_SMALL, detail=detail)
