"""Open positions of forward tests, and the minutes by which they are watched."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from trading.candles import Candle

_OPEN = text("""
    SELECT s.id AS session_id, s.cursor, s.timeframe, t.trade_number, t.type AS side,
        CAST(t.stop_loss AS float8) AS stop_price, CAST(t.take_profit AS float8) AS target_price,
        CAST(t.liquidation_price AS float8) AS liquidation_price,
        CAST(extract(epoch FROM stepped.open_time) * 1000 AS bigint) AS stepped_open
    FROM trading_sessions s
    JOIN trades t ON t.session_id = s.id AND t.exit_time IS NULL
    JOIN steps stepped ON stepped.session_id = s.id AND stepped.phase = 'step'
        AND stepped.candle_number = s.cursor - 1
    WHERE s.open_position IS NOT NULL AND s.status IN ('running', 'paused')
        AND s.type = 'forward' AND s.asset = :asset AND s.data_source = :source
""")

_HELD = text("""
    SELECT DISTINCT asset FROM trading_sessions
    WHERE open_position IS NOT NULL AND status IN ('running', 'paused') AND type = 'forward'
        AND data_source = :source
""")

_PUT = text("""
    INSERT INTO watch_candles (source, asset, minute, open, high, low, close)
    SELECT :source, :asset, to_timestamp(time / 1000.0), open::numeric, high::numeric,
        low::numeric, close::numeric
    FROM unnest(CAST(:time AS bigint[]), CAST(:open AS text[]), CAST(:high AS text[]),
        CAST(:low AS text[]), CAST(:close AS text[])) AS row (time, open, high, low, close)
    ON CONFLICT (source, asset, minute) DO UPDATE SET open = excluded.open, high = excluded.high,
        low = excluded.low, close = excluded.close
""")

_LAST = text("""
    SELECT CAST(extract(epoch FROM minute) * 1000 AS bigint) AS open_time,
        CAST(open AS float8) AS open, CAST(high AS float8) AS high, CAST(low AS float8) AS low,
        CAST(close AS float8) AS close
    FROM watch_candles
    WHERE source = :source AND asset = :asset AND minute >= :since AND minute < :until
    ORDER BY minute DESC LIMIT 1
""")

_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPosition:
    """A position of a forward test; `stepped_open` (epoch ms) opened the last candle stepped."""

    session_id: UUID
    cursor: int
    timeframe: str
    trade_number: int
    side: str
    stop_price: float | None
    target_price: float | None
    liquidation_price: float | None
    stepped_open: int


class WatchedPositionRepository:
    """Positions of all users' forward tests: this needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def open_positions(self, source: str, asset: str) -> list[OpenPosition]:
        result = await self._session.execute(_OPEN, {"source": source, "asset": asset})
        return [OpenPosition(**row) for row in result.mappings()]

    async def assets_held(self, source: str) -> list[str]:
        """The assets in which some forward test has a position."""
        result = await self._session.execute(_HELD, {"source": source})
        return [str(asset) for asset in result.scalars()]


class WatchCandleRepository:
    """Minutes of assets, within the caller's transaction; the system alone may write them."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(self, source: str, asset: str, minutes: Sequence[Candle]) -> None:
        """Store the minutes; one that was seen while it was forming is replaced."""
        columns: dict[str, Any] = {
            name: [repr(getattr(minute, name)) for minute in minutes] for name in _PRICES
        }
        columns["time"] = [minute.open_time for minute in minutes]
        await self._session.execute(_PUT, {"source": source, "asset": asset} | columns)

    async def last(self, source: str, asset: str, *, since_ms: int, until_ms: int) -> Candle | None:
        """The last minute that began within the span (epoch ms), its volume left out."""
        result = await self._session.execute(
            _LAST,
            {
                "source": source,
                "asset": asset,
                "since": datetime.fromtimestamp(since_ms / 1000, tz=UTC),
                "until": datetime.fromtimestamp(until_ms / 1000, tz=UTC),
            },
        )
        row = result.mappings().one_or_none()
        return None if row is None else Candle(**row, volume=0.0)
