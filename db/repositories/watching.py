"""What the relay asks of a session while somebody watches it."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.repositories.steps import StoredStep

_STANDING = text("""
    SELECT s.last_seq, s.status, u.is_active
    FROM trading_sessions s JOIN users u ON u.id = s.user_id WHERE s.id = :session_id
""")

# Both walk backwards over the unique (session_id, last_seq) and stop near the end.
_LATEST = text("""
    SELECT candle_number, phase, ordinal, first_seq, last_seq, happened_at, stats, events
    FROM steps WHERE session_id = :session_id AND phase = :phase AND last_seq <= :seq
    ORDER BY last_seq DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a session's events have come, and whether its owner may still watch."""

    last_seq: int
    status: str
    is_active: bool


class WatchingRepository:
    """Reads of a session's events, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def standing(self, session_id: UUID) -> Standing | None:
        """How the session stands; None when it is gone."""
        result = await self._session.execute(_STANDING, {"session_id": session_id})
        row = result.mappings().one_or_none()
        return None if row is None else Standing(**row)

    async def latest(
        self, session_id: UUID, phase: str, *, seq: int, limit: int = 1
    ) -> list[StoredStep]:
        """The last rows of a phase whose events all lie at or before `seq`, newest first."""
        result = await self._session.execute(
            _LATEST, {"session_id": session_id, "phase": phase, "seq": seq, "limit": limit}
        )
        return [StoredStep(**row) for row in result.mappings()]
