"""What only forward tests store: the data set and the start they find when they begin."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_UNPREPARED = text("""
    SELECT asset, timeframe, warm_up_candles FROM trading_sessions
    WHERE id = :session_id AND data_set_id IS NULL
""")

_PREPARE = text("""
    UPDATE trading_sessions SET data_set_id = :data_set_id, data_source = :source,
        start_date = :start
    WHERE id = :session_id AND data_set_id IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpreparedSession:
    """A forward test that has no candles yet."""

    asset: str
    timeframe: str
    warm_up_candles: int


class ForwardSessionRepository:
    """Forward tests, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def unprepared(self, session_id: UUID) -> UnpreparedSession | None:
        """The session, unless it has its data set already or is not there."""
        result = await self._session.execute(_UNPREPARED, {"session_id": session_id})
        row = result.mappings().one_or_none()
        return None if row is None else UnpreparedSession(**row)

    async def prepare(
        self, session_id: UUID, *, data_set_id: UUID, source: str, start: datetime
    ) -> None:
        """Fix the session's data set and its first candle; of two attempts, the first counts."""
        await self._session.execute(
            _PREPARE,
            {
                "session_id": session_id,
                "data_set_id": data_set_id,
                "source": source,
                "start": start,
            },
        )
