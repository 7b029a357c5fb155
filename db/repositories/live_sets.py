"""Data sets that grow: the candles of a live source, shared by all who follow it."""

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.identifiers import new_id
from db.models.candles import LIVE
from trading.candles import CandleSeries, Timeframe

_OPEN = text("""
    INSERT INTO data_sets (id, asset, timeframe, source, content_sha256)
    VALUES (:id, :asset, :timeframe, :source, :content)
    ON CONFLICT DO NOTHING
""")

_EXTENT = text("""
    SELECT id, CAST(extract(epoch FROM first_open_time) * 1000 AS bigint) AS first_open,
        CAST(extract(epoch FROM last_open_time) * 1000 AS bigint) AS last_open
    FROM data_sets
    WHERE user_id IS NULL AND asset = :asset AND timeframe = :timeframe AND source = :source
        AND content_sha256 = :content
""")

# A candle that is there stays as it was first seen: tests have been stepped through it.
_APPEND = text("""
    WITH stored AS (
        INSERT INTO candles (data_set_id, open_time, open, high, low, close, volume)
        SELECT :data_set_id, to_timestamp(time / 1000.0), open::numeric, high::numeric,
            low::numeric, close::numeric, volume::numeric
        FROM unnest(CAST(:time AS bigint[]), CAST(:open AS text[]), CAST(:high AS text[]),
            CAST(:low AS text[]), CAST(:close AS text[]), CAST(:volume AS text[]))
            AS row (time, open, high, low, close, volume)
        ON CONFLICT DO NOTHING
        RETURNING open_time
    )
    UPDATE data_sets SET candle_count = candle_count + (SELECT count(*) FROM stored),
        first_open_time = least(first_open_time, (SELECT min(open_time) FROM stored)),
        last_open_time = greatest(last_open_time, (SELECT max(open_time) FROM stored))
    WHERE id = :data_set_id
""")

_COLUMNS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSet:
    """A live data set and its extent: the openings of its first and last candle (epoch ms)."""

    id: UUID
    first_open: int | None
    last_open: int | None


class LiveSetRepository:
    """Live data sets; they belong to nobody, so this needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def open(self, asset: str, timeframe: Timeframe, source: str) -> LiveSet:
        """The set of a series, made if there is none."""
        identity = {
            "asset": asset,
            "timeframe": timeframe.value,
            "source": source,
            "content": LIVE,
        }
        await self._session.execute(_OPEN, identity | {"id": new_id()})
        row = (await self._session.execute(_EXTENT, identity)).mappings().one()
        return LiveSet(**row)

    async def append(self, data_set_id: UUID, series: CandleSeries) -> None:
        """Store the candles that are not there yet."""
        columns = {
            name: [repr(value) for value in getattr(series, name).tolist()] for name in _COLUMNS
        }
        times = np.asarray(series.open_time).tolist()
        await self._session.execute(_APPEND, {"data_set_id": data_set_id, "time": times} | columns)
