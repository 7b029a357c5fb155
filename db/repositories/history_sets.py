"""Data sets that keep what was fetched of a source's past, stretch by stretch."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.identifiers import new_id
from db.models.candles import HISTORY
from db.repositories.data_sets import INSERT_CANDLES, candle_columns
from trading.candles import CandleSeries, Timeframe

_OPEN = text("""
    INSERT INTO data_sets (id, asset, timeframe, source, content_sha256)
    VALUES (:id, :asset, :timeframe, :source, :content)
    ON CONFLICT DO NOTHING
""")

_FIND = text("""
    SELECT id FROM data_sets
    WHERE user_id IS NULL AND asset = :asset AND timeframe = :timeframe AND source = :source
        AND content_sha256 = :content
""")

# Not FOR UPDATE: sessions may refer to the set meanwhile.
_LOCK = text("SELECT 1 FROM data_sets WHERE id = :data_set_id FOR NO KEY UPDATE")

_MISSING = text("""
    SELECT CAST(extract(epoch FROM lower(missing)) * 1000 AS bigint) AS start_ms,
        CAST(extract(epoch FROM upper(missing)) * 1000 AS bigint) AS end_ms
    FROM data_sets, unnest(tstzmultirange(tstzrange(to_timestamp(:start_ms / 1000.0),
        to_timestamp(:end_ms / 1000.0))) - covered) AS missing
    WHERE id = :data_set_id
    ORDER BY 1
""")

_COVER = text("""
    UPDATE data_sets SET candle_count = candle_count + :count,
        covered = covered + tstzmultirange(tstzrange(to_timestamp(:start_ms / 1000.0),
            to_timestamp(:end_ms / 1000.0))),
        first_open_time = least(first_open_time, to_timestamp(:first_ms / 1000.0)),
        last_open_time = greatest(last_open_time, to_timestamp(:last_ms / 1000.0))
    WHERE id = :data_set_id
""")

_EXTENT = text("""
    SELECT count(*) AS count,
        CAST(extract(epoch FROM min(open_time)) * 1000 AS bigint) AS first_open,
        CAST(extract(epoch FROM max(open_time)) * 1000 AS bigint) AS last_open
    FROM candles WHERE data_set_id = :data_set_id
        AND open_time >= to_timestamp(:start_ms / 1000.0)
        AND open_time < to_timestamp(:end_ms / 1000.0)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """From a time to another, in epoch milliseconds, without the latter."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How many candles there are, and the openings of the first and the last (epoch ms)."""

    count: int
    first_open: int | None
    last_open: int | None


class HistorySetRepository:
    """Histories of sources; they belong to nobody, so this needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def open(self, asset: str, timeframe: Timeframe, source: str) -> UUID:
        """The set of a series, made if there is none."""
        identity = {
            "asset": asset,
            "timeframe": timeframe.value,
            "source": source,
            "content": HISTORY,
        }
        found = (await self._session.execute(_FIND, identity)).scalar_one_or_none()
        if found is None:
            await self._session.execute(_OPEN, identity | {"id": new_id()})
            found = (await self._session.execute(_FIND, identity)).scalar_one()
        return UUID(str(found))

    async def lock(self, data_set_id: UUID) -> None:
        """Keep everybody else from adding to the set until the transaction ends."""
        await self._session.execute(_LOCK, {"data_set_id": data_set_id})

    async def missing(self, data_set_id: UUID, wanted: Stretch) -> list[Stretch]:
        """The parts of a stretch that were never fetched, in time order."""
        rows = await self._session.execute(_MISSING, _bound(data_set_id, wanted))
        return [Stretch(**row) for row in rows.mappings()]

    async def append(self, data_set_id: UUID, stretch: Stretch, series: CandleSeries) -> None:
        """Store the candles of a missing stretch, which from now on has these and no others.

        The caller holds the set's lock.
        """
        if len(series):
            await self._session.execute(INSERT_CANDLES, candle_columns(data_set_id, series))
        times = series.open_time.tolist() or [None]
        await self._session.execute(
            _COVER,
            _bound(data_set_id, stretch)
            | {"count": len(series), "first_ms": times[0], "last_ms": times[-1]},
        )

    async def extent(self, data_set_id: UUID, stretch: Stretch) -> Extent:
        """What there is of the candles that open within a stretch."""
        result = await self._session.execute(_EXTENT, _bound(data_set_id, stretch))
        return Extent(**result.mappings().one())


def _bound(data_set_id: UUID, stretch: Stretch) -> dict[str, object]:
    return {
        "data_set_id": data_set_id,
        "start_ms": stretch.start_ms,
        "end_ms": stretch.end_ms,
    }
