"""Sessions that were stored and that no workflow has ever claimed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# One that is being claimed right now is locked, and left out.
_LOCK = text("""
    SELECT id, type FROM trading_sessions s
    WHERE status IN ('configuring', 'initializing') AND epoch = 0
        AND (CAST(:type AS text) IS NULL OR type = :type)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
        AND updated_at < clock_timestamp() - CAST(:unchanged_for AS interval)
        AND NOT EXISTS (SELECT 1 FROM test_results r WHERE r.session_id = s.id)
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")

# A request that comes again with its Idempotency-Key is to start a test, not to find none.
_FORGET_STARTS = text("""
    DELETE FROM idempotency_keys WHERE response->>'session_id' = ANY (CAST(:ids AS text[]))
""")

_DELETE = text("DELETE FROM trading_sessions WHERE id = ANY (CAST(:ids AS uuid[]))")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstartedSession:
    """A session that waits for its workflow."""

    id: UUID
    type: Literal["backtest", "forward"]


class UnstartedSessionRepository:
    """Unstarted sessions of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(
        self, *, type: str | None, unchanged_for: timedelta, after: UUID | None, limit: int
    ) -> list[UnstartedSession]:
        """Lock the first ones `after` an id that have not changed for that long.

        None of them is claimed before the commit.
        """
        chosen = {"type": type, "unchanged_for": unchanged_for, "after": after, "limit": limit}
        rows = await self._session.execute(_LOCK, chosen)
        return [UnstartedSession(**row) for row in rows.mappings()]

    async def delete(self, session_ids: Sequence[UUID]) -> None:
        """Delete locked sessions, and what was kept of the requests that stored them."""
        ids = {"ids": [str(each) for each in session_ids]}
        await self._session.execute(_FORGET_STARTS, ids)
        await self._session.execute(_DELETE, ids)
