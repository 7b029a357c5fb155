"""Pausing, resuming, pacing and stopping a test: the same for REST and for sockets."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from api.errors import Conflict, NotFound, Unavailable
from db.engine import Database
from db.models.sessions import UNFINISHED, SessionStatus
from db.repositories.sessions import SessionRepository
from workflows.policies import Speed
from workflows.runtime import SessionType, Temporal, TemporalUnreachable, WorkflowFinished

# How long a request waits for the result that a stop leads to.
STOP_PATIENCE = timedelta(seconds=10)
LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What a stop led to; no `result_id` while the workflow is still at it."""

    session_id: UUID
    status: Literal["completed", "running", "failed"]
    result_id: UUID | None
    final_pnl_pct: float | None
    position_closed: bool = False


class Controls:
    """Sends a user's wishes to the workflow of one of the user's sessions.

    With a `type`, a session of the other one is not found.
    """

    def __init__(self, database: Database, temporal: Temporal) -> None:
        self._database = database
        self._temporal = temporal

    async def pause(
        self, user_id: UUID, session_id: UUID, type: SessionType | None = None
    ) -> datetime:
        """Pause; return since when."""
        session = await self._unfinished(user_id, session_id, type)
        await _accepted(self._temporal.signal_pause(session_id, _signal_id(), session.type))
        return session.paused_at or datetime.now(tz=UTC)

    async def resume(
        self, user_id: UUID, session_id: UUID, type: SessionType | None = None
    ) -> None:
        session = await self._unfinished(user_id, session_id, type)
        await _accepted(self._temporal.signal_resume(session_id, _signal_id(), session.type))

    async def set_speed(self, user_id: UUID, session_id: UUID, speed: Speed) -> None:
        session = await self._unfinished(user_id, session_id)
        if session.type != "backtest":
            raise Conflict("The market sets the pace of a forward test.", code="NO_SPEED")
        await _accepted(self._temporal.signal_speed(session_id, _signal_id(), speed=speed))

    async def stop(
        self,
        user_id: UUID,
        session_id: UUID,
        *,
        close_position: bool,
        type: SessionType | None = None,
    ) -> Stopped:
        """Stop, and wait a while for the result; a second stop finds what the first one did."""
        session = await self._find(user_id, session_id, type)
        if session.status not in UNFINISHED:
            return _stopped_before(session)
        try:
            await self._temporal.signal_stop(session_id, _signal_id(), close_position, session.type)
            await self._until_ended(session)
        except WorkflowFinished:
            return _stopped_before(await self._find(user_id, session_id))
        except TemporalUnreachable:
            raise temporal_unreachable() from None
        return _stopped(await self._find(user_id, session_id))

    async def _until_ended(self, session: SessionStatus) -> None:
        """Wait for the workflow, or for the result of one that goes on to have it summed up."""
        ending = asyncio.create_task(
            self._temporal.wait_result(session.id, STOP_PATIENCE, session.type)
        )
        try:
            while session.ai_summary and not ending.done():
                await asyncio.wait([ending], timeout=LOOK_AGAIN_S)
                if (await self._find(session.user_id, session.id)).result_id is not None:
                    return
            await ending
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _find(
        self, user_id: UUID, session_id: UUID, type: SessionType | None = None
    ) -> SessionStatus:
        async with self._database.for_user(user_id) as session:
            found = await SessionRepository(session).status(session_id, type=type)
        if found is None:
            raise NotFound("session")
        return found

    async def _unfinished(
        self, user_id: UUID, session_id: UUID, type: SessionType | None = None
    ) -> SessionStatus:
        session = await self._find(user_id, session_id, type)
        if session.status not in UNFINISHED:
            raise _finished()
        return session


def _stopped_before(session: SessionStatus) -> Stopped:
    """The same answer as to the first stop; a conflict when the test ended by itself."""
    if session.status in UNFINISHED:
        raise Conflict("The test has not started yet. Try again in a moment.")
    if session.stop_close_position is None or session.result_id is None:
        raise _finished()
    return _stopped(session)


def _stopped(session: SessionStatus) -> Stopped:
    has_result = session.result_id is not None
    without_result: Literal["failed", "running"] = (
        "failed" if session.status == "failed" else "running"
    )
    return Stopped(
        session_id=session.id,
        status="completed" if has_result else without_result,
        result_id=session.result_id,
        final_pnl_pct=session.current_pnl_pct if has_result else None,
        position_closed=has_result and session.open_position is None,
    )


def _finished() -> Conflict:
    return Conflict("The test is finished.", code="SESSION_FINISHED")


async def _accepted(signal: Awaitable[None]) -> None:
    try:
        await signal
    except WorkflowFinished:
        raise Conflict("The test is not running.", code="SESSION_NOT_RUNNING") from None
    except TemporalUnreachable:
        raise temporal_unreachable() from None


def temporal_unreachable() -> Unavailable:
    return Unavailable("The engine that runs tests does not answer. Try again in a moment.")


def _signal_id() -> str:
    return str(uuid4())
