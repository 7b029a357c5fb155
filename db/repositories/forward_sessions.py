"""What only forward tests store: the data set and the start they find when they begin."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
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


_HOLD = text("""
    UPDATE trading_sessions SET open_position = CAST(:open_position AS jsonb)
    WHERE id = :session_id
""")

_MARK_DECISION = text("""
    UPDATE decisions SET trade_id = coalesce(:trade_id, trade_id),
        live_price = CAST(:live_price AS numeric)
    WHERE session_id = :session_id AND candle_number = :candle_number
""")

_ENTRY = text("""
    SELECT CAST(sighting->>'opening' AS float8) FROM trades
    WHERE session_id = :session_id AND trade_number = :trade_number
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What an order or an exit within a candle left behind.

    `decided_candle` is None where no decision brought it about; `live_price` is the market's then.
    """

    open_position: Mapping[str, Any] | None
    decided_candle: int | None
    trade_id: UUID | None
    live_price: float


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

    async def fill(self, session_id: UUID, filled: Filled) -> None:
        """Show the position, or that there is none, and mark the decision with what came of it."""
        position = filled.open_position
        shown = None if position is None else orjson.dumps(position).decode()
        await self._session.execute(_HOLD, {"session_id": session_id, "open_position": shown})
        if filled.decided_candle is not None:
            await self._session.execute(
                _MARK_DECISION,
                {
                    "session_id": session_id,
                    "candle_number": filled.decided_candle,
                    "trade_id": filled.trade_id,
                    "live_price": repr(filled.live_price),
                },
            )

    async def entry_opening(self, session_id: UUID, trade_number: int) -> float | None:
        """The open at which a trade was filled while its candle was forming."""
        result = await self._session.execute(
            _ENTRY, {"session_id": session_id, "trade_number": trade_number}
        )
        return result.scalar_one_or_none()
