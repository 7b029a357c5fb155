"""Moves a session: claims it, steps its candles, records what its user asked for.

Every write names the epoch and the cursor it expects. Where they have moved on, this attempt is
late: it returns what is stored when its own run did the work, and ends when a newer run owns the
session.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from psycopg import AsyncConnection
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contexts import SessionContext, SessionContexts
from activities.failures import activity_failures, superseded
from activities.heartbeats import heartbeating
from activities.step_rows import (
    STATE,
    LiveCandle,
    Outcome,
    Reasons,
    cursor_move,
    deciding_candles,
    plain_events,
    row_events,
    stepped_candles,
    stored_rows,
    trade_rows,
)
from db.engine import Database
from db.market_frames import MarketFrame
from db.repositories.running_sessions import (
    ControlChange,
    LockedSession,
    RunningSessionRepository,
)
from db.repositories.stepping import SteppingRepository
from db.repositories.steps import NewStep, Numbering, StepRepository, StoredStep
from events.publisher import EventPublisher
from events.shapes import SessionPaused, SessionResumed, SpeedChanged, Trouble
from events.types import iso_timestamp
from trading.candles import Candle
from trading.decisions import Cadence
from trading.errors import TradingError
from trading.simulation import SimulationState, Step, advance, start

# A chunk ends here, so that a pause takes effect within a second and a retry repeats little.
CHUNK_CANDLES = 1_000
CHUNK_SECONDS = 0.5

ControlKind = Literal["pause", "resume", "speed", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimInput:
    """Names the session a run wants to own."""

    session_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """Where the session stands; `finished_result_id` says that there is nothing left to do.

    `ai_summary` says that the model is to sum the test up once it has its result.
    """

    epoch: int
    total_candles: int
    starting_capital: float
    cadence: Cadence
    state: SimulationState
    decision_due: bool
    paused: bool
    pause_reason: str | None
    speed: str
    stopping: bool
    finished_result_id: str | None = None
    ai_summary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """The next candle of a session, and the state before it."""

    session_id: str
    user_id: str
    epoch: int
    state: SimulationState
    candle: Candle
    live: LiveCandle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkInput:
    """A stretch without a decision: from the state's next candle up to, without, `stop`."""

    session_id: str
    user_id: str
    epoch: int
    state: SimulationState
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInput:
    """What the user, or trouble with the model, asks of a session; counts once per `control_id`."""

    session_id: str
    user_id: str
    control_id: str
    kind: ControlKind
    reason: str = "user"
    message: str | None = None
    speed: str | None = None
    close_position: bool = True
    epoch: int = 0
    cursor: int = 0
    was_paused: bool | None = None

    def owned_by(self, epoch: int, cursor: int, *, was_paused: bool) -> Self:
        """The same control, to be applied under this epoch before candle `cursor`.

        `was_paused` is what the workflow knows: where the row says otherwise, the control is late.
        """
        return replace(self, epoch=epoch, cursor=cursor, was_paused=was_paused)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResult:
    """A session's controls after one was applied."""

    paused: bool
    pause_reason: str | None
    speed: str
    stopping: bool


class SessionActivities:
    """Claims and steps sessions."""

    def __init__(
        self, database: Database, contexts: SessionContexts, publisher: EventPublisher
    ) -> None:
        self._database = database
        self._contexts = contexts
        self._publisher = publisher

    @activity.defn
    async def claim(self, input: ClaimInput) -> ClaimResult:
        """Make this workflow run the session's only owner; asked again, it stays that."""
        with activity_failures():
            session_id, began = UUID(input.session_id), time.monotonic()
            run_id = activity.info().workflow_run_id or ""
            context = await self._readable(input)
            async with self._database.for_user(context.user_id) as session:
                running = RunningSessionRepository(session)
                locked = _existing(await running.lock(session_id), input.session_id)
                if locked.status == "failed":
                    raise superseded(input.session_id)
                stored = await StepRepository(session).latest_state(session_id)
                state = _readable_state(stored) if stored else start(context.rules)
                _check_time_limit(began)
                epoch = locked.epoch
                if locked.result_id is None and locked.owner_run_id != run_id:
                    epoch = await running.own(session_id, run_id)
            return _claimed(context, locked, epoch, state)

    async def _readable(self, input: ClaimInput) -> SessionContext:
        """The settings; a session whose settings cannot be read is for nobody to run."""
        try:
            return await self._contexts.get(input.session_id, input.user_id)
        except (ApplicationError, ValidationError, TradingError):
            raise _unreadable("its agent, candles or rules are gone") from None

    @activity.defn
    async def execute_step(self, input: StepInput) -> SimulationState:
        """Step one candle: fill, protect, mark and guard, in one transaction; return the state."""
        with activity_failures():
            context = await self._contexts.get(input.session_id, input.user_id)
            step = advance(input.state, input.candle, context.rules)
            outcome = Outcome(step=step, candle=input.candle, live=input.live)
            return await self._store(context, input.epoch, input.state, [outcome])

    @activity.defn
    async def run_candles(self, input: ChunkInput) -> SimulationState:
        """Step a stretch of candles in one transaction, until `stop` or for half a second."""
        with activity_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            frame = await self._contexts.frame(context)
            # Beside the event loop, so that no model call elsewhere misses its heartbeat.
            outcomes = await asyncio.to_thread(
                lambda: list(_stretch(context, frame, input.state, input.stop))
            )
            return await self._store(context, input.epoch, input.state, outcomes)

    @activity.defn
    async def record_control(self, input: ControlInput) -> ControlResult:
        """Apply a pause, resume, speed or stop once, with its event."""
        with activity_failures():
            session_id, user_id = UUID(input.session_id), UUID(input.user_id)
            async with self._database.for_user(user_id) as session:
                result, row = await _apply_control(session, session_id, input)
            if row is not None:
                await self._publisher.publish(session_id, plain_events(row, "control"))
            return result

    async def _store(
        self,
        context: SessionContext,
        epoch: int,
        before: SimulationState,
        outcomes: Sequence[Outcome],
    ) -> SimulationState:
        frame = await self._contexts.frame(context, holding=outcomes[-1].step.state.next_candle)
        async with self._database.statements_for_user(context.user_id) as connection:
            written = await _write(connection, context, epoch, outcomes)
        if written is not None:
            rows, state = written, outcomes[-1].step.state
        else:
            async with self._database.for_user(context.user_id) as session:
                rows, state = await _adopt(session, context, epoch, before.next_candle)
        events = [event for row in rows for event in row_events(context, row, frame)]
        await self._publisher.publish(context.session_id, events)
        return state


def _readable_state(stored: str) -> SimulationState:
    try:
        return STATE.validate_json(stored)
    except ValidationError:
        raise _unreadable("this version cannot read its state") from None


def _unreadable(why: str) -> ApplicationError:
    return ApplicationError(
        f"The test cannot be run: {why}.", type="SESSION_UNREADABLE", non_retryable=True
    )


def _check_time_limit(began: float) -> None:
    """Temporal has given up an attempt beyond its limit: by now a newer run may be the owner."""
    limit = activity.info().start_to_close_timeout
    if limit is not None and time.monotonic() - began > limit.total_seconds():
        raise TimeoutError("the claim took longer than its time limit")


def _existing(locked: LockedSession | None, session_id: str) -> LockedSession:
    if locked is None:
        raise ApplicationError(
            f"session {session_id} does not exist", type="SessionNotFound", non_retryable=True
        )
    return locked


def _claimed(
    context: SessionContext, locked: LockedSession, epoch: int, state: SimulationState
) -> ClaimResult:
    last = state.next_candle - 1
    undecided = last >= 0 and context.cadence.is_due(last) and not locked.is_decided
    return ClaimResult(
        epoch=epoch,
        total_candles=context.total_candles,
        starting_capital=context.rules.starting_capital,
        cadence=context.cadence,
        state=state,
        decision_due=undecided and state.ended is None,
        paused=locked.status == "paused",
        pause_reason=locked.pause_reason,
        speed=locked.playback_speed,
        stopping=locked.stop_close_position is not None,
        finished_result_id=None if locked.result_id is None else str(locked.result_id),
        ai_summary=context.settings.ai_summary,
    )


def _stretch(
    context: SessionContext, frame: MarketFrame, state: SimulationState, stop: int
) -> Iterator[Outcome]:
    deadline = time.monotonic() + CHUNK_SECONDS
    for index in range(state.next_candle, min(stop, state.next_candle + CHUNK_CANDLES)):
        candle = frame.candles.candle(index)
        step = advance(state, candle, context.rules)
        yield Outcome(step=step, candle=candle)
        state = step.state
        if step.ended is not None or time.monotonic() > deadline:
            return


async def _write(
    connection: AsyncConnection, context: SessionContext, epoch: int, outcomes: Sequence[Outcome]
) -> list[StoredStep] | None:
    """Store the steps; None when the session has moved on from where they begin."""
    stepping = SteppingRepository(connection)
    move = cursor_move(context, epoch, outcomes)
    trading = [each.step for each in outcomes if each.step.opened or each.step.closed]
    if not trading:
        candles = stepped_candles(context, outcomes, Reasons(by_candle={}))
        numbering = await stepping.store_steps(move, candles)
    else:
        reasons = await _reasons(stepping, context.session_id, trading)
        candles = stepped_candles(context, outcomes, reasons)
        async with connection.transaction():
            numbering = await stepping.store_steps(move, candles)
            if numbering is not None:
                await _write_trades(stepping, context.session_id, trading, reasons)
    return None if numbering is None else stored_rows(candles, numbering)


async def _write_trades(
    stepping: SteppingRepository, session_id: UUID, trading: Sequence[Step], reasons: Reasons
) -> None:
    for step in trading:
        for trade in trade_rows(session_id, step, reasons):
            await stepping.put_trade(session_id, trade)


async def _reasons(
    stepping: SteppingRepository, session_id: UUID, trading: Sequence[Step]
) -> Reasons:
    return Reasons(
        by_candle={
            candle: await stepping.reasoning(session_id, candle)
            for candle in deciding_candles(trading)
        }
    )


async def _adopt(
    session: AsyncSession, context: SessionContext, epoch: int, start_candle: int
) -> tuple[list[StoredStep], SimulationState]:
    """What an earlier attempt of this run stored from `start_candle` on."""
    locked = await RunningSessionRepository(session).lock(context.session_id)
    steps = StepRepository(session)
    stored = await steps.latest_state(context.session_id)
    if locked is None or locked.epoch != epoch or stored is None:
        raise superseded(str(context.session_id))
    rows = await steps.rows_from(context.session_id, phase="step", candle_number=start_candle)
    return rows, STATE.validate_json(stored)


async def _apply_control(
    session: AsyncSession, session_id: UUID, input: ControlInput
) -> tuple[ControlResult, NewStep | StoredStep | None]:
    running, steps = RunningSessionRepository(session), StepRepository(session)
    locked = _existing(await running.lock(session_id), input.session_id)
    if locked.epoch != input.epoch:
        raise superseded(input.session_id)
    if (applied := await steps.control(session_id, input.control_id)) is not None:
        return _controls(_current(locked)), applied
    if input.kind == "stop" and locked.stop_close_position is not None:
        return _controls(_current(locked)), None
    if _is_late(locked, input) or _changes_nothing(locked, input):
        return _controls(_current(locked)), None
    count = 0 if input.kind == "stop" else 2 if input.message else 1
    numbering = await steps.number_events(
        session_id, epoch=input.epoch, cursor=locked.cursor, events=count
    )
    if numbering is None:
        raise superseded(input.session_id)
    change = _changed(locked, input, numbering.first_at)
    await running.apply_control(session_id, change)
    if count == 0:
        # A stop needs no row: its effect is the result, which exists once.
        return _controls(change), None
    row = _control_row(input, locked, numbering, count)
    ordinal = await steps.next_ordinal(session_id, locked.cursor)
    await steps.insert(
        session_id, [row], phase="control", ordinal=ordinal, control_id=input.control_id
    )
    return _controls(change), row


def _is_late(locked: LockedSession, input: ControlInput) -> bool:
    """An attempt whose twin found nothing to change and left no row, and that was overtaken."""
    is_paused = locked.status == "paused"
    has_moved_on = input.was_paused not in {None, is_paused} or input.cursor != locked.cursor
    return has_moved_on or locked.status not in {"running", "paused"}


def _changes_nothing(locked: LockedSession, input: ControlInput) -> bool:
    """A pause of what is paused, which keeps its reason, and a resumption of what runs."""
    is_paused = locked.status == "paused"
    return (input.kind == "pause" and is_paused) or (input.kind == "resume" and not is_paused)


def _current(locked: LockedSession) -> ControlChange:
    return ControlChange(
        status=locked.status,
        pause_reason=locked.pause_reason,
        speed=locked.playback_speed,
        stop_close_position=locked.stop_close_position,
    )


def _changed(locked: LockedSession, input: ControlInput, at: datetime) -> ControlChange:
    change = _current(locked)
    match input.kind:
        case "pause":
            error = _trouble(input)
            return replace(
                change, status="paused", pause_reason=input.reason, paused_at=at, error=error
            )
        case "resume":
            return replace(change, status="running", pause_reason=None)
        case "speed":
            return replace(change, speed=input.speed or change.speed)
        case "stop":
            return replace(change, stop_close_position=input.close_position)


def _trouble(input: ControlInput) -> dict[str, str] | None:
    if input.message is None:
        return None
    return {"error_code": input.reason.upper(), "message": input.message}


def _controls(change: ControlChange) -> ControlResult:
    return ControlResult(
        paused=change.status == "paused",
        pause_reason=change.pause_reason,
        speed=change.speed,
        stopping=change.stop_close_position is not None,
    )


def _control_row(
    input: ControlInput, locked: LockedSession, numbering: Numbering, count: int
) -> NewStep:
    return NewStep(
        candle_number=locked.cursor,
        first_seq=numbering.first_seq,
        last_seq=numbering.first_seq + count - 1,
        happened_at=numbering.first_at,
        events=_control_events(input, locked, iso_timestamp(numbering.first_at)),
    )


def _control_events(input: ControlInput, locked: LockedSession, at: str) -> list[dict[str, Any]]:
    if input.kind == "resume":
        resumed: SessionResumed = {"resumed_at": at}
        return [{"event": "session_resumed", "data": resumed}]
    if input.kind == "speed":
        changed: SpeedChanged = {"speed": str(input.speed)}
        return [{"event": "speed_changed", "data": changed}]
    paused: SessionPaused = {
        "paused_at": at,
        "current_candle": locked.cursor,
        "current_equity": locked.current_equity,
        "reason": input.reason,
    }
    found: list[dict[str, Any]] = [{"event": "session_paused", "data": paused}]
    if input.message:
        trouble: Trouble = {
            "error_code": input.reason.upper(),
            "message": input.message,
            "candle_index": max(locked.cursor - 1, 0),
            "recoverable": True,
        }
        found.insert(0, {"event": "session_error", "data": trouble})
    return found
