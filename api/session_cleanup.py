"""Removes tests that were stored and never began."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from api.errors import Unavailable
from db.engine import Database
from db.repositories.unstarted_sessions import UnstartedSession, UnstartedSessionRepository
from workflows.runtime import SessionType, Temporal, TemporalUnreachable

# A start that is under way takes a few seconds from the commit to its workflow.
UNCHANGED_FOR = timedelta(seconds=30)

# So many are asked about at once, and locked no longer than the slowest answer takes.
LOCKED_AT_ONCE = 50


async def remove_unstarted(
    database: Database,
    temporal: Temporal,
    user_id: UUID,
    type: SessionType | None,
    *,
    unchanged_for: timedelta = UNCHANGED_FOR,
) -> int:
    """Delete the user's sessions that never began and have no workflow; return how many.

    Their rows stay locked while Temporal is asked, a few at a time. A workflow that is started at
    the same moment cannot claim its session before, and finds none afterwards. Raises Unavailable
    while nobody can say which workflows there are.
    """
    removed, after = 0, None
    while True:
        async with database.for_user(user_id) as session:
            unstarted = UnstartedSessionRepository(session)
            found = await unstarted.lock(
                type=type, unchanged_for=unchanged_for, after=after, limit=LOCKED_AT_ONCE
            )
            gone = await _without_workflow(temporal, found)
            if gone:
                await unstarted.delete(gone)
        removed += len(gone)
        if len(found) < LOCKED_AT_ONCE:
            return removed
        after = found[-1].id


async def _without_workflow(temporal: Temporal, found: Sequence[UnstartedSession]) -> list[UUID]:
    has_workflow = await asyncio.gather(*(_has_workflow(temporal, each) for each in found))
    return [each.id for each, has in zip(found, has_workflow, strict=True) if not has]


async def _has_workflow(temporal: Temporal, session: UnstartedSession) -> bool:
    try:
        return await temporal.is_running(session.id, session.type)
    except TemporalUnreachable:
        raise Unavailable(
            "The engine that runs tests does not answer, so tests may be left. Try again soon."
        ) from None
