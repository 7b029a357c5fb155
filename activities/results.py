"""The end of a test: closes what is open, measures it, and stores the result once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.contexts import SessionContext, SessionContexts
from activities.failures import activity_failures, superseded
from activities.heartbeats import heartbeating
from activities.measuring import Ended, Measured, measure, result_row
from activities.step_rows import (
    STATE,
    Reasons,
    clamped_percent,
    closed_trade,
    happenings,
    plain_events,
)
from db.engine import Database
from db.market_frames import MarketFrame
from db.models import NewActivity, NewNotification
from db.repositories.finished_sessions import FinishedSessionRepository, SessionEnd
from db.repositories.forward_sessions import ForwardSessionRepository
from db.repositories.inbox import InboxRepository
from db.repositories.results import ResultRepository
from db.repositories.running_sessions import LockedSession, RunningSessionRepository
from db.repositories.session_trades import SessionTradeRepository
from db.repositories.steps import NewStep, Numbering, StepRepository, StoredStep
from db.repositories.watched_positions import WatchCandleRepository
from events.payloads import percent, result_id, session_stats_payload, stats_payload
from events.publisher import EventPublisher
from events.shapes import (
    AutoStopped,
    FinalStats,
    SessionCompleted,
    SessionStopped,
    Stats,
    Trouble,
)
from events.types import iso_timestamp
from trading.candles import Candle
from trading.orders import ExitType, RejectionReason
from trading.simulation import (
    GuardReason,
    Sighting,
    SimulationState,
    Step,
    close_out,
    price_candle,
    withdraw,
)

# The control whose row holds a session's last events.
_FINISH = "finish"
_FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishInput:
    """A session that has come to its end, and its last state."""

    session_id: str
    user_id: str
    epoch: int
    state: SimulationState


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishResult:
    """The stored result, what it came to, and how many trades were closed, the last one included.

    Results of before `trades_total` was told name none.
    """

    result_id: str
    final_pnl_pct: float
    trades_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailInput:
    """A session that a defect of ours ended; `message` holds nothing secret.

    `epoch` is None where the run never came to own the session.
    """

    session_id: str
    user_id: str
    epoch: int | None
    error_code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """A test's last act, and what all of it came to."""

    ended: Ended
    measured: Measured


class ResultActivities:
    """Ends sessions."""

    def __init__(
        self, database: Database, contexts: SessionContexts, publisher: EventPublisher
    ) -> None:
        self._database = database
        self._contexts = contexts
        self._publisher = publisher

    @activity.defn
    async def finish(self, input: FinishInput) -> FinishResult:
        """Close the position if the test's end does, measure, and store the result once."""
        with activity_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            frame = await self._contexts.frame(context, holding=input.state.next_candle)
            minute = await self._last_minute(context, frame, input.state)
            async with self._database.for_user(context.user_id) as session:
                result, row = await _finish(session, context, frame, input, minute)
            await self._publisher.publish(
                context.session_id, plain_events(row, "control"), ended=True
            )
            return result

    async def _last_minute(
        self, context: SessionContext, frame: MarketFrame, state: SimulationState
    ) -> Candle | None:
        """The last minute stored of the candle that forms, by which a stop closes a position."""
        if not context.is_live or state.position is None or state.next_candle == 0:
            return None
        opened = _forming_since(context, frame, state)
        async with self._database.as_system() as session:
            return await WatchCandleRepository(session).last(
                context.settings.data_source,
                context.settings.asset,
                since_ms=opened,
                until_ms=opened + context.rules.timeframe_ms,
            )

    @activity.defn
    async def fail(self, input: FailInput) -> None:
        """Mark the session as failed and say why, once."""
        with activity_failures():
            session_id = UUID(input.session_id)
            async with self._database.for_user(UUID(input.user_id)) as session:
                row = await _fail(session, session_id, input)
            if row is not None:
                await self._publisher.publish(session_id, plain_events(row, "control"), ended=True)


async def _finish(
    session: AsyncSession,
    context: SessionContext,
    frame: MarketFrame,
    input: FinishInput,
    minute: Candle | None,
) -> tuple[FinishResult, NewStep | StoredStep]:
    locked = await _owned(session, context.session_id, input.epoch)
    if locked.status == "failed":
        raise superseded(input.session_id)
    steps = StepRepository(session)
    stored = await steps.control(context.session_id, _FINISH)
    if locked.result_id is not None and stored is not None:
        state = STATE.validate_json(await steps.latest_state(context.session_id) or "")
        return _result(context, state), stored
    # A decision that a stop cancelled after its commit is in no state that the workflow has seen.
    latest = await steps.latest_state(context.session_id)
    state = input.state if latest is None else STATE.validate_json(latest)
    sighting = None
    if locked.stop_close_position and state.ended is None:
        sighting = await _sighting(session, context, frame, state, minute)
    last = _last_step(state, frame, context, locked, sighting)
    ended = Ended(
        step=last,
        reason=_end_reason(last.state, locked),
        closes=locked.stop_close_position is not False,
        sighting=sighting,
    )
    measured = await measure(session, context, frame, ended)
    row = await _write_end(session, context, frame, locked, _End(ended=ended, measured=measured))
    return _result(context, last.state), row


def _result(context: SessionContext, state: SimulationState) -> FinishResult:
    pnl = clamped_percent(state.equity / context.rules.starting_capital - 1)
    return FinishResult(
        result_id=str(result_id(context.session_id)),
        final_pnl_pct=pnl,
        trades_total=state.trades_total,
    )


def _forming_since(context: SessionContext, frame: MarketFrame, state: SimulationState) -> int:
    last_open = int(frame.candles.open_time[state.next_candle - 1])
    return last_open + context.rules.timeframe_ms


async def _sighting(
    session: AsyncSession,
    context: SessionContext,
    frame: MarketFrame,
    state: SimulationState,
    minute: Candle | None,
) -> Sighting | None:
    """What a stop closes the position by; None where that is the last close."""
    position, opening = state.position, None
    if position is None or not context.is_live:
        return None
    opened = _forming_since(context, frame, state)
    if position.entry_candle == state.next_candle:
        forward = ForwardSessionRepository(session)
        opening = await forward.entry_opening(context.session_id, position.trade_number)
    if minute is None and opening is not None:
        # Nobody watched it yet: the open at which it was filled is the last price known.
        minute = price_candle(opened, opening)
    return None if minute is None else Sighting(opened_at=opened, minute=minute, opening=opening)


def _last_step(
    state: SimulationState,
    frame: MarketFrame,
    context: SessionContext,
    locked: LockedSession,
    sighting: Sighting | None,
) -> Step:
    """The test's last act: at the last close that was stepped, or by a minute seen after it."""
    if state.next_candle == 0:
        return Step(state=state)
    candle = frame.candles.candle(state.next_candle - 1)
    if state.ended is not None:
        return Step(state=state)
    if locked.stop_close_position is None:
        return close_out(state, candle, context.rules, ExitType.END_OF_TEST)
    if locked.stop_close_position:
        return close_out(state, candle, context.rules, ExitType.MANUAL, sighting=sighting)
    after, rejected = withdraw(state, RejectionReason.STOPPED)
    return Step(state=after, rejected=rejected)


def _end_reason(state: SimulationState, locked: LockedSession) -> str:
    if state.ended is not None:
        return state.ended.value
    return "end_of_test" if locked.stop_close_position is None else "stopped"


async def _write_end(
    session: AsyncSession,
    context: SessionContext,
    frame: MarketFrame,
    locked: LockedSession,
    end: _End,
) -> NewStep:
    """Everything that ends a session, in the transaction that holds its lock."""
    ended, measured = end.ended, end.measured
    steps, state = StepRepository(session), ended.step.state
    found = await _closing_events(session, context, frame, ended)
    count = len(found) + (3 if context.is_live else 2)
    numbering = await steps.number_events(
        context.session_id, epoch=locked.epoch, cursor=locked.cursor, events=count
    )
    if numbering is None:
        raise superseded(str(context.session_id))
    found += _final_events(context, frame, end, numbering, offset=len(found))
    row = _control_row(locked, numbering, found, STATE.dump_json(state))
    await _insert_control(steps, context.session_id, row, _FINISH)
    await ResultRepository(session).add(
        result_row(context, frame, ended, measured, at=numbering.first_at)
    )
    await FinishedSessionRepository(session).end(
        context.session_id,
        SessionEnd(
            status="stopped" if ended.reason == "stopped" else "completed",
            end_reason=ended.reason,
            at=numbering.first_at,
            equity=state.equity,
            pnl_pct=measured.pnl_pct,
            max_drawdown_pct=-measured.max_drawdown_pct,
            keeps_position=state.position is not None,
        ),
    )
    await _tell_user(session, context, measured)
    return row


async def _closing_events(
    session: AsyncSession, context: SessionContext, frame: MarketFrame, ended: Ended
) -> list[dict[str, Any]]:
    step = ended.step
    if step.closed is None and step.rejected is None:
        return []
    running = RunningSessionRepository(session)
    decided = step.closed.decided_candle if step.closed else None
    reasons = Reasons(
        by_candle={}
        if decided is None
        else {decided: await running.reasoning(context.session_id, decided)}
    )
    if step.closed:
        await SessionTradeRepository(session).put(
            context.session_id,
            closed_trade(context.session_id, step.closed, reasons, sighting=ended.sighting),
        )
    close = float(frame.candles.close[step.candle_index])
    return happenings(step, close, context.session_id, reasons)


def _final_events(
    context: SessionContext,
    frame: MarketFrame,
    end: _End,
    numbering: Numbering,
    *,
    offset: int,
) -> list[dict[str, Any]]:
    ended, measured = end.ended, end.measured
    state = ended.step.state
    elapsed = numbering.elapsed_seconds(offset)
    step_stats = stats_payload(
        state,
        context.rules,
        close=float(frame.candles.close[state.next_candle - 1]) if state.next_candle else 0.0,
        total_candles=context.total_candles,
    )
    session_stats = session_stats_payload(
        status="completed", elapsed_seconds=elapsed, cost_usd=numbering.cost_usd
    )
    stats: Stats = {**step_stats, **session_stats}
    final_stats = measured.final_stats(elapsed)
    completed: SessionCompleted = {
        "session_id": str(context.session_id),
        "result_id": str(result_id(context.session_id)),
        "final_stats": final_stats,
        "is_profitable": measured.is_profitable,
        "can_generate_certificate": measured.is_profitable,
        "reason": ended.reason,
    }
    return [
        {"event": "stats_update", "data": stats},
        *([_live_end(context, end, numbering, final_stats)] if context.is_live else []),
        {"event": "session_completed", "data": completed},
    ]


def _live_end(
    context: SessionContext, end: _End, numbering: Numbering, final_stats: FinalStats
) -> dict[str, Any]:
    """What a forward test says first: by whom, or by which limit, it was stopped."""
    ended, rules = end.ended, context.rules
    state = ended.step.state
    if state.ended is None:
        stopped: SessionStopped = {
            "stopped_at": iso_timestamp(numbering.first_at),
            "reason": ended.reason,
            "position_closed": ended.step.closed is not None,
            "final_stats": final_stats,
        }
        return {"event": "session_stopped", "data": stopped}
    by_loss = state.ended is GuardReason.MAX_LOSS_EXCEEDED
    limit = rules.auto_stop_loss if by_loss else rules.max_total_drawdown
    actual = 1 - state.equity / rules.starting_capital if by_loss else state.drawdown
    auto: AutoStopped = {
        "reason": state.ended.value,
        "threshold": percent(limit),
        "actual": percent(actual),
        "final_stats": final_stats,
    }
    return {"event": "auto_stopped", "data": auto}


async def _fail(
    session: AsyncSession, session_id: UUID, input: FailInput
) -> NewStep | StoredStep | None:
    """End the session; None where there is none, or where it has a result already."""
    locked = await RunningSessionRepository(session).lock(session_id)
    steps = StepRepository(session)
    if (stored := await steps.control(session_id, _FAIL)) is not None:
        return stored
    if locked is None or locked.result_id is not None:
        return None
    if input.epoch not in {None, locked.epoch}:
        raise superseded(input.session_id)
    numbering = await steps.number_events(
        session_id, epoch=locked.epoch, cursor=locked.cursor, events=1
    )
    if numbering is None:
        raise superseded(input.session_id)
    error: Trouble = {
        "error_code": input.error_code,
        "message": input.message,
        "candle_index": locked.cursor,
        "recoverable": False,
    }
    row = _control_row(locked, numbering, [{"event": "session_error", "data": error}], None)
    await _insert_control(steps, session_id, row, _FAIL)
    await FinishedSessionRepository(session).fail(session_id, error, at=numbering.first_at)
    return row


async def _owned(session: AsyncSession, session_id: UUID, epoch: int) -> LockedSession:
    locked = await RunningSessionRepository(session).lock(session_id)
    if locked is None or locked.epoch != epoch:
        raise superseded(str(session_id))
    return locked


def _control_row(
    locked: LockedSession,
    numbering: Numbering,
    found: Sequence[dict[str, Any]],
    state: bytes | None,
) -> NewStep:
    return NewStep(
        candle_number=locked.cursor,
        first_seq=numbering.first_seq,
        last_seq=numbering.first_seq + len(found) - 1,
        happened_at=numbering.first_at,
        events=found,
        state=state,
    )


async def _insert_control(
    steps: StepRepository, session_id: UUID, row: NewStep, control_id: str
) -> None:
    ordinal = await steps.next_ordinal(session_id, row.candle_number)
    await steps.insert(session_id, [row], phase="control", ordinal=ordinal, control_id=control_id)


async def _tell_user(session: AsyncSession, context: SessionContext, measured: Measured) -> None:
    inbox, result = InboxRepository(session), result_id(context.session_id)
    settings = context.settings
    kind = "forward test" if context.is_live else "backtest"
    outcome = f"{measured.pnl_pct:+.2f} % in {measured.state.trades_total} trades"
    await inbox.notify(
        NewNotification(
            user_id=context.user_id,
            type="success" if measured.is_profitable else "info",
            category="test_completed",
            title=f"{settings.agent_name}: {kind} finished",
            message=f"{settings.asset} {settings.timeframe}: {outcome}.",
            action_url=f"/dashboard/results/{result}",
            session_id=context.session_id,
            result_id=result,
            dedup_key="finish",
        )
    )
    await inbox.record(
        NewActivity(
            user_id=context.user_id,
            activity_type="test_completed",
            agent_id=settings.agent_id,
            agent_name=settings.agent_name,
            session_id=context.session_id,
            result_id=result,
            description=f"{kind.capitalize()} on {settings.asset} {settings.timeframe}: {outcome}",
            pnl=measured.pnl_pct,
            dedup_key="finish",
        )
    )
