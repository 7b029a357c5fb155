"""Removes tests that were stored and never began."""

from datetime import timedelta
from uuid import UUID

from api.errors import Unavailable
from db.engine import Database
from db.repositories.unstarted_sessions import UnstartedSession, UnstartedSessionRepository
from workflows.runtime import SessionType, Temporal, TemporalUnreachable

# A start that is under way takes a few seconds from the commit to its workflow.
UNCHANGED_FOR = timedelta(seconds=30)


async def remove_unstarted(
    database: Database,
    temporal: Temporal,
    user_id: UUID,
    type: SessionType | None,
    *,
    unchanged_for: timedelta = UNCHANGED_FOR,
) -> int:
    """Delete the user's sessions that never began and have no workflow; return how many.

    Their rows stay locked meanwhile. A workflow that is started at the same moment cannot claim
    its session before, and finds none afterwards. Raises Unavailable while nobody can say which
    workflows there are.
    """
    async with database.for_user(user_id) as session:
        unstarted = UnstartedSessionRepository(session)
        found = await unstarted.lock(type=type, unchanged_for=unchanged_for)
        gone = [each.id for each in found if not await _has_workflow(temporal, each)]
        if gone:
            await unstarted.delete(gone)
    return len(gone)


async def _has_workflow(temporal: Temporal, session: UnstartedSession) -> bool:
    try:
        return await temporal.is_running(session.id, session.type)
    except TemporalUnreachable:
        raise Unavailable(
            "The engine that runs tests does not answer, so nothing was removed. Try again soon."
        ) from None
