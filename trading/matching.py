"""What a candle, its open alone, or a minute of it does to an order and a position."""

from dataclasses import dataclass

from trading.candles import Candle
from trading.decisions import Action
from trading.execution import market_exit, opening_liquidation, protective_exit
from trading.orders import (
    ExitType,
    PendingOrder,
    Position,
    Rejection,
    RejectionReason,
    Side,
    Trade,
)
from trading.portfolio import GuardReason, Moment, SimulationState, copy_state, enter, leave
from trading.risk import Refusal, plan_entry
from trading.rules import FillTiming, Rules

MINUTE_MS = 60_000
_CLOSE = Action.CLOSE  # looked up once: a member costs more than the comparison it is for


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What was seen of a candle before it closed, as it was when somebody acted on it.

    `opened_at` is the candle's opening (epoch ms), `opening` the price there if an order was filled
    at it, and `minute` the 1-minute candle that ended a position, which may itself have been
    forming.
    """

    opened_at: int
    opening: float | None = None
    minute: Candle | None = None


@dataclass(slots=True, kw_only=True)
class Step:
    """What one candle did; `state` is the state after it. Not frozen for the state's reason.

    At most one position opens and one closes within a candle; it may be the same one.
    """

    state: SimulationState
    opened: Position | None = None
    closed: Trade | None = None
    rejected: Rejection | None = None

    @property
    def candle_index(self) -> int:
        return self.state.next_candle - 1

    @property
    def equity(self) -> float:
        return self.state.equity

    @property
    def drawdown(self) -> float:
        return self.state.drawdown

    @property
    def ended(self) -> GuardReason | None:
        return self.state.ended


def trade_candle(step: Step, candle: Candle, rules: Rules) -> None:
    """Fill what is pending and protect what is open, within the candle `step.state.next_candle`."""
    order = step.state.pending
    step.state.pending = None
    _open_candle(step, order, candle, rules)
    now = Moment(time=candle.open_time, candle_index=step.state.next_candle)
    _protect(step, candle, now, rules, length_ms=rules.timeframe_ms)


def price_candle(open_time: int, price: float) -> Candle:
    """All that is known of a candle of which one price is known."""
    return Candle(open_time=open_time, open=price, high=price, low=price, close=price, volume=0.0)


def fill_at_open(state: SimulationState, opening: Candle, rules: Rules) -> Step:
    """Fill the pending order at the open of `opening`, the candle that has begun to form.

    Only its `open_time` and `open` are read: what a closed candle would do first, done when it is
    known. `advance` over the whole candle then finds nothing left to fill.
    """
    step = Step(state=copy_state(state))
    order, step.state.pending = step.state.pending, None
    if order is not None:
        _open_candle(step, order, opening, rules)
    return step


def watch(state: SimulationState, minute: Candle, rules: Rules, *, opened_at: int) -> Step | None:
    """What a minute of the forming candle does to the open position; None when it touches nothing.

    `opened_at` is the opening of that candle (epoch ms): at its very open a position that was
    filled there is new, later a minute may open beyond its stop.
    """
    position = state.position
    if position is None or not position.is_reached(minute):
        return None
    step = Step(state=copy_state(state))
    now = Moment(time=minute.open_time, candle_index=state.next_candle)
    _liquidate_at_open(step, minute, now, rules)
    is_first = minute.open_time == opened_at
    _protect(step, minute, now, rules, length_ms=MINUTE_MS, may_be_new=is_first)
    return step if step.closed is not None else None


def _open_candle(step: Step, order: PendingOrder | None, candle: Candle, rules: Rules) -> None:
    """What happens at the candle's open: an order of `FillTiming.CLOSE` comes before it."""
    now = Moment(time=candle.open_time, candle_index=step.state.next_candle)
    if rules.fill_timing is FillTiming.CLOSE:
        if order is not None:
            then = Moment(time=order.decided_time, candle_index=order.decided_candle)
            _fill(step, order, order.decided_close, then, rules)
        _liquidate_at_open(step, candle, now, rules)
    else:
        _liquidate_at_open(step, candle, now, rules)
        if order is not None:
            _fill(step, order, candle.open, now, rules)


def _liquidate_at_open(step: Step, candle: Candle, now: Moment, rules: Rules) -> None:
    position = step.state.position
    exit_ = opening_liquidation(position, candle) if position is not None else None
    if position is not None and exit_ is not None:
        step.closed = leave(step.state, position, exit_, now, rules)


def _fill(step: Step, order: PendingOrder, reference: float, at: Moment, rules: Rules) -> None:
    """Fills an order at a market price. A close whose position is gone already is a hold."""
    account = step.state
    if order.action is _CLOSE:
        position = account.position
        if position is not None:
            exit_ = market_exit(position, reference, rules.slippage_rate, ExitType.SIGNAL)
            decided = order.decided_candle
            step.closed = leave(account, position, exit_, at, rules, decided_candle=decided)
        return
    side = Side(order.action)
    plan = plan_entry(side, order.terms, reference=reference, equity=account.cash, rules=rules)
    if isinstance(plan, Refusal):
        step.rejected = rejection_of(order, plan.reason, plan.detail)
    else:
        step.opened = enter(account, plan, order, at, rules)


def _protect(
    step: Step,
    candle: Candle,
    now: Moment,
    rules: Rules,
    *,
    length_ms: int,
    may_be_new: bool = True,
) -> None:
    position = step.state.position
    if position is None:
        return
    exit_ = protective_exit(
        position,
        candle,
        slippage_rate=rules.slippage_rate,
        intrabar=rules.intrabar,
        is_new=may_be_new and position.entry_candle == now.candle_index,
    )
    if exit_ is not None:
        by_close = Moment(time=candle.open_time + length_ms, candle_index=now.candle_index)
        step.closed = leave(step.state, position, exit_, now if exit_.at_open else by_close, rules)


def rejection_of(order: PendingOrder, reason: RejectionReason, detail: str) -> Rejection:
    """What becomes of an order that fills nothing."""
    return Rejection(
        reason=reason, detail=detail, action=order.action, decided_candle=order.decided_candle
    )
