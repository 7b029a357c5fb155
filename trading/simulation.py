"""One test as a fold: `advance` takes a state and a candle and returns the next state."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from trading.candles import Candle, CandleSeries
from trading.decisions import Action, Decision, OrderTerms, Override
from trading.execution import market_exit
from trading.matching import (
    MINUTE_MS,
    Sighting,
    Step,
    fill_at_open,
    price_candle,
    rejection_of,
    trade_candle,
    watch,
)
from trading.orders import (
    ExitType,
    PendingOrder,
    Rejection,
    RejectionReason,
    Side,
    Trade,
)
from trading.portfolio import (
    GuardReason,
    Moment,
    SimulationState,
    copy_state,
    has_lost,
    leave,
    mark,
    open_account,
    remark,
)
from trading.risk import (
    MONK_ENTRY_INTERVAL_MS,
    Entry,
    Refusal,
    limit_terms,
    needs_stop,
    plan_entry,
)
from trading.rules import FillTiming, Intrabar, Mode, Rules

__all__ = [
    "Estimate",
    "FillTiming",
    "GuardReason",
    "Intrabar",
    "Mode",
    "Replay",
    "Rules",
    "Sighting",
    "SimulationState",
    "Step",
    "Verdict",
    "advance",
    "close_out",
    "decide",
    "fill_at_open",
    "overtaken",
    "price_candle",
    "replay",
    "start",
    "watch",
    "withdraw",
]


# Looked up once: a member costs more than the comparison it is for.
_HOLD, _CLOSE = Action.HOLD, Action.CLOSE
_NO_SIGHTINGS: Mapping[int, Sighting] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The entry as it would fill at the close at which it was decided."""

    entry_price: float
    size: float
    leverage: float
    stop_price: float | None
    target_price: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a decision: an order for the next step, a rejection, or neither (a hold).

    `overrides` are the changes as far as this close shows them; the position carries those that
    its fill brought about.
    """

    state: SimulationState
    order: PendingOrder | None = None
    rejection: Rejection | None = None
    overrides: tuple[Override, ...] = ()
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """A whole test: one point of equity per candle stepped, and all that happened."""

    equity: NDArray[np.float64]
    trades: tuple[Trade, ...]
    rejections: tuple[Rejection, ...]
    state: SimulationState


def start(rules: Rules) -> SimulationState:
    return open_account(rules.starting_capital)


def advance(state: SimulationState, candle: Candle, rules: Rules) -> Step:
    """Steps the candle with index `state.next_candle`: fills, protection, mark, guards.

    Pure. Not to be called once the state has `ended`.
    """
    account = copy_state(state)
    step = Step(state=account)
    position = account.position
    if account.pending is not None or (position is not None and position.is_reached(candle)):
        trade_candle(step, candle, rules)
    account.next_candle += 1
    mark(account, candle, rules)
    _guard(step, candle, rules)
    return step


def _guard(step: Step, candle: Candle, rules: Rules) -> None:
    account = step.state
    drawdown, loss = rules.max_total_drawdown, rules.auto_stop_loss
    if drawdown is not None and has_lost(account.peak_equity, account.equity, drawdown):
        account.ended = GuardReason.MAX_DRAWDOWN_EXCEEDED
    elif loss is not None and has_lost(rules.starting_capital, account.equity, loss):
        account.ended = GuardReason.MAX_LOSS_EXCEEDED
    else:
        return
    _close_at_close(step, candle, rules, ExitType.GUARD)
    remark(account)


def _close_at_close(step: Step, candle: Candle, rules: Rules, exit_type: ExitType) -> None:
    close_time = candle.open_time + rules.timeframe_ms
    at = Moment(time=close_time, candle_index=step.state.next_candle - 1)
    _close_at_market(step, candle.close, at, rules, exit_type)


def _close_at_market(
    step: Step, price: float, at: Moment, rules: Rules, exit_type: ExitType
) -> None:
    position = step.state.position
    if position is not None:
        exit_ = market_exit(position, price, rules.slippage_rate, exit_type)
        step.closed = leave(step.state, position, exit_, at, rules)


def close_out(
    state: SimulationState,
    candle: Candle,
    rules: Rules,
    exit_type: ExitType,
    *,
    sighting: Sighting | None = None,
) -> Step:
    """Ends a test whose last candle was just stepped: drops the order, closes the position.

    The position closes at the candle's close, less slippage; or at that of a later minute that was
    seen, unless that minute reaches its stop or target. The step's equity and drawdown replace
    those of the candle.
    """
    is_over = exit_type is ExitType.END_OF_TEST
    reason = RejectionReason.END_OF_TEST if is_over else RejectionReason.STOPPED
    account, rejection = withdraw(state, reason)
    step = Step(state=copy_state(account), rejected=rejection)
    if sighting is None or sighting.minute is None:
        _close_at_close(step, candle, rules, exit_type)
    else:
        _close_at_minute(step, sighting.minute, sighting.opened_at, rules, exit_type)
    if step.state.position is None:
        remark(step.state)  # a position may have ended since the candle was marked
    return step


def _close_at_minute(
    step: Step, minute: Candle, opened_at: int, rules: Rules, exit_type: ExitType
) -> None:
    watched = watch(step.state, minute, rules, opened_at=opened_at)
    if watched is not None:
        step.state, step.closed = watched.state, watched.closed
        return
    at = Moment(time=minute.open_time + MINUTE_MS, candle_index=step.state.next_candle)
    _close_at_market(step, minute.close, at, rules, exit_type)


def withdraw(
    state: SimulationState, reason: RejectionReason
) -> tuple[SimulationState, Rejection | None]:
    """Drops the pending order, if there is one, for a reason that overtook it."""
    order = state.pending
    if order is None:
        return state, None
    account = copy_state(state)
    account.pending = None
    return account, rejection_of(order, reason, _OVERTAKEN.get(reason, "The order was withdrawn."))


def overtaken(verdict: Verdict) -> Verdict:
    """What is left of a verdict that came after the next candle had closed: it fills nothing."""
    state, rejection = withdraw(verdict.state, RejectionReason.LATE)
    return replace(verdict, state=state, order=None, rejection=rejection or verdict.rejection)


_OVERTAKEN = {
    RejectionReason.STOPPED: "The test was stopped before the order could fill.",
    RejectionReason.END_OF_TEST: "The test ended before the order could fill.",
    RejectionReason.LATE: "The decision came after the next candle had closed.",
}


def decide(
    state: SimulationState, decision: Decision, candle: Candle, rules: Rules, *, is_last: bool
) -> Verdict:
    """Turns a decision at the close of the candle just stepped into an order for the next one.

    `is_last` says that no candle will follow, as on the last one of a backtest. Where several
    reasons forbid an order, the end of the test is named first.
    """
    action = decision.action
    if action is _HOLD or (action is _CLOSE and state.position is None):
        return Verdict(state=state)
    terms = decision.order or OrderTerms()
    refusal = _refusal(state, action, terms, candle, rules, is_last=is_last)
    index = state.next_candle - 1
    if refusal is not None:
        rejection = Rejection(
            reason=refusal.reason, detail=refusal.detail, action=action, decided_candle=index
        )
        return Verdict(state=state, rejection=rejection)
    overrides: tuple[Override, ...] = ()
    if action is not _CLOSE:
        terms, overrides = limit_terms(terms, rules)
    order = PendingOrder(
        action=action,
        decided_candle=index,
        decided_time=candle.open_time + rules.timeframe_ms,
        decided_close=candle.close,
        terms=terms,
        overrides=overrides,
    )
    return _accept(state, order, rules)


def _accept(state: SimulationState, order: PendingOrder, rules: Rules) -> Verdict:
    account = copy_state(state)
    account.pending = order
    if order.action is _CLOSE:
        return Verdict(state=account, order=order)
    plan = plan_entry(
        Side(order.action),
        order.terms,
        reference=order.decided_close,
        equity=state.cash,
        rules=rules,
    )
    if isinstance(plan, Refusal):
        return Verdict(state=account, order=order, overrides=order.overrides)
    overrides = order.overrides + plan.overrides
    return Verdict(state=account, order=order, overrides=overrides, estimate=_estimate(plan))


def _estimate(entry: Entry) -> Estimate:
    return Estimate(
        entry_price=entry.price,
        size=entry.size,
        leverage=entry.leverage,
        stop_price=entry.stop_price,
        target_price=entry.target_price,
    )


def _refusal(
    state: SimulationState,
    action: Action,
    terms: OrderTerms,
    candle: Candle,
    rules: Rules,
    *,
    is_last: bool,
) -> Refusal | None:
    if is_last:
        return _END_OF_TEST
    if action is _CLOSE:
        return None
    if state.position is not None:
        return _POSITION_OPEN
    if state.daily_loss_reached:
        return _DAILY_LOSS
    if _is_too_soon(state, candle, rules):
        return _FREQUENCY
    return _STOP_REQUIRED if needs_stop(terms, rules) else None


def _is_too_soon(state: SimulationState, candle: Candle, rules: Rules) -> bool:
    if rules.mode is not Mode.MONK or state.last_entry_time is None:
        return False
    earliest_fill = candle.open_time + rules.timeframe_ms
    return earliest_fill - state.last_entry_time < MONK_ENTRY_INTERVAL_MS


_END_OF_TEST = Refusal(
    reason=RejectionReason.END_OF_TEST, detail="No candle follows in which the order could fill."
)
_POSITION_OPEN = Refusal(
    reason=RejectionReason.POSITION_OPEN,
    detail="A position is open already; there is one at a time.",
)
_DAILY_LOSS = Refusal(
    reason=RejectionReason.DAILY_LOSS, detail="The loss allowed for this UTC day has been reached."
)
_FREQUENCY = Refusal(
    reason=RejectionReason.FREQUENCY, detail="Monk mode leaves 4 hours between two entries."
)
_STOP_REQUIRED = Refusal(
    reason=RejectionReason.STOP_REQUIRED, detail="Monk mode takes no entry without a stop."
)


def replay(
    series: CandleSeries,
    decisions: Mapping[int, Decision],
    rules: Rules,
    *,
    ending: ExitType | None = ExitType.END_OF_TEST,
    sightings: Mapping[int, Sighting] = _NO_SIGHTINGS,
) -> Replay:
    """Folds recorded decisions, by candle index, over a series; a guard may end it early.

    `ending` is how the test ended after the last candle of the series: at the end of its data,
    stopped by the user with its position closed (`MANUAL`), or stopped with it left open (None).
    `sightings`, by candle index, are what a live test saw of candles in which a position ended
    before their close; the one after the last candle is what a stop closed the position by.
    """
    state = start(rules)
    equity: list[float] = []
    tape = _Tape()
    candle = None
    last = len(series) - 1 if ending is ExitType.END_OF_TEST else -1
    for index, candle in enumerate(series):
        if index in sightings:
            state = _sighted(state, candle, sightings[index], rules, tape)
        step = advance(state, candle, rules)
        state = step.state
        equity.append(state.equity)
        if step.closed is not None or step.rejected is not None:
            tape.record(step)
        if state.ended is not None:
            break
        decision = decisions.get(index)
        if decision is not None:
            verdict = decide(state, decision, candle, rules, is_last=index == last)
            state = verdict.state
            if verdict.rejection is not None:
                tape.rejections.append(verdict.rejection)
    if candle is not None and state.ended is None:
        end = _Ending(exit_type=ending, sighting=sightings.get(len(series)))
        state = _finish(state, candle, rules, end, tape)
        equity[-1] = state.equity
    return Replay(
        equity=np.array(equity, dtype=np.float64),
        trades=tuple(tape.trades),
        rejections=tuple(tape.rejections),
        state=state,
    )


def _sighted(
    state: SimulationState, candle: Candle, sighting: Sighting, rules: Rules, tape: "_Tape"
) -> SimulationState:
    """What happened before the candle closed: its order was filled, its position ended."""
    if sighting.minute is None:
        return state
    filled = fill_at_open(state, candle, rules)
    tape.record(filled)
    watched = watch(filled.state, sighting.minute, rules, opened_at=candle.open_time)
    if watched is None:
        return filled.state
    tape.record(watched)
    return watched.state


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    exit_type: ExitType | None
    sighting: Sighting | None


def _finish(
    state: SimulationState, candle: Candle, rules: Rules, ending: _Ending, tape: "_Tape"
) -> SimulationState:
    sighting = ending.sighting
    if sighting is not None and sighting.opening is not None:
        opening = price_candle(sighting.opened_at, sighting.opening)
        filled = fill_at_open(state, opening, rules)
        tape.record(filled)
        state = filled.state
    if ending.exit_type is None:
        state, rejection = withdraw(state, RejectionReason.STOPPED)
        tape.refuse(rejection)
        return state
    step = close_out(state, candle, rules, ending.exit_type, sighting=sighting)
    tape.record(step)
    return step.state


@dataclass(slots=True)
class _Tape:
    trades: list[Trade] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def record(self, step: Step) -> None:
        if step.closed is not None:
            self.trades.append(step.closed)
        self.refuse(step.rejected)

    def refuse(self, rejection: Rejection | None) -> None:
        if rejection is not None:
            self.rejections.append(rejection)
