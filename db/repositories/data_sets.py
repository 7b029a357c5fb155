"""Data sets: which candles there are, whose they are, and where they came from."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID

import numpy as np
from psycopg import AsyncConnection
from sqlalchemy import ColumnElement, case, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.identifiers import new_id
from db.models import DataSet, DataSetRecord
from trading.candles import CandleSeries, Timeframe

UPLOAD = "upload"

_COPY: LiteralString = (
    "COPY candles (data_set_id, open_time, open, high, low, close, volume) FROM STDIN"
)
# COPY FROM does not work under row-level security; one array for each column does, nearly as fast.
INSERT_CANDLES = text("""
    INSERT INTO candles (data_set_id, open_time, open, high, low, close, volume)
    SELECT :data_set_id, to_timestamp(time / 1000.0), open::numeric, high::numeric, low::numeric,
        close::numeric, volume::numeric
    FROM unnest(CAST(:time AS bigint[]), CAST(:open AS text[]), CAST(:high AS text[]),
        CAST(:low AS text[]), CAST(:close AS text[]), CAST(:volume AS text[]))
        AS row (time, open, high, low, close, volume)
""")
_ROWS_PER_WRITE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What there is of an asset in a timeframe; times of the first and the last candle's open."""

    asset: str
    timeframe: str
    first_open_time: datetime
    last_open_time: datetime


class SharedDataRepository:
    """Data sets that belong to nobody; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self, *, asset: str, timeframe: Timeframe, source: str, series: CandleSeries
    ) -> tuple[DataSetRecord, bool]:
        """Store a validated series; the same one again answers the set that is there, and False."""
        found, is_new = await _add_set(
            self._session,
            user_id=None,
            asset=asset,
            timeframe=timeframe,
            source=source,
            series=series,
        )
        if is_new:
            await self._copy(found.id, series)
        return found, is_new

    async def _copy(self, data_set_id: UUID, series: CandleSeries) -> None:
        connection = await (await self._session.connection()).get_raw_connection()
        driver = connection.driver_connection
        assert isinstance(driver, AsyncConnection)  # noqa: S101 - the driver this project uses
        async with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            for block in _copy_blocks(data_set_id, series):
                await copy.write(block)


class DataSetRepository:
    """Shared data sets and those of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_upload(
        self, *, user_id: UUID, asset: str, timeframe: Timeframe, series: CandleSeries
    ) -> tuple[DataSetRecord, bool]:
        """Store a validated series that only this user sees; False when it was there before."""
        found, is_new = await _add_set(
            self._session,
            user_id=user_id,
            asset=asset,
            timeframe=timeframe,
            source=UPLOAD,
            series=series,
        )
        if is_new:
            for start in range(0, len(series), _ROWS_PER_WRITE):
                part = series.slice(start, min(start + _ROWS_PER_WRITE, len(series)))
                await self._session.execute(INSERT_CANDLES, candle_columns(found.id, part))
        return found, is_new

    async def get(self, data_set_id: UUID) -> DataSetRecord | None:
        """Return a data set."""
        found = await self._session.get(DataSet, data_set_id)
        return None if found is None else _record(found)

    async def candidates(
        self, asset: str, timeframe: Timeframe, *, source: str | None = None
    ) -> list[DataSetRecord]:
        """Return the sets of an asset, the preferred first.

        That is: the user's own uploads, then imports, then the rest; the newest of each first. A
        history counts once for each stretch that was fetched.
        """
        return await self._select(
            col(DataSet.asset) == asset,
            col(DataSet.timeframe) == timeframe.value,
            *_from_source(source),
        )

    async def available(self) -> list[Availability]:
        """Return every asset and timeframe there is, with the span of all its sets."""
        rows = await self._session.execute(
            select(
                col(DataSet.asset),
                col(DataSet.timeframe),
                func.min(col(DataSet.first_open_time)).label("first_open_time"),
                func.max(col(DataSet.last_open_time)).label("last_open_time"),
            )
            .where(col(DataSet.candle_count) > 0)
            .group_by(col(DataSet.asset), col(DataSet.timeframe))
            .order_by(col(DataSet.asset), col(DataSet.timeframe))
        )
        return [Availability(**row) for row in rows.mappings()]

    async def _select(self, *conditions: ColumnElement[bool]) -> list[DataSetRecord]:
        rank = case(
            (col(DataSet.user_id).is_not(None), 0),
            (col(DataSet.source).startswith("import"), 1),
            else_=2,
        )
        found = await self._session.scalars(
            select(DataSet).where(*conditions).order_by(rank, col(DataSet.id).desc())
        )
        return [record for each in found for record in _records(each)]


async def _add_set(
    session: AsyncSession,
    *,
    user_id: UUID | None,
    asset: str,
    timeframe: Timeframe,
    source: str,
    series: CandleSeries,
) -> tuple[DataSetRecord, bool]:
    identity = {
        "user_id": user_id,
        "asset": asset,
        "timeframe": timeframe.value,
        "source": source,
        "content_sha256": series.fingerprint(),
    }
    stored = await session.scalar(
        insert(DataSet)
        .values(id=new_id(), **identity, **_extent(series, timeframe))
        .on_conflict_do_nothing()
        .returning(col(DataSet.id))
    )
    matching = [
        col(getattr(DataSet, name)).is_not_distinct_from(value) for name, value in identity.items()
    ]
    found = (await session.scalars(select(DataSet).where(*matching))).one()
    return _record(found), stored is not None


def _extent(series: CandleSeries, timeframe: Timeframe) -> dict[str, object]:
    return {
        "first_open_time": _time(series, 0),
        "last_open_time": _time(series, -1),
        "candle_count": len(series),
        "gaps": series.gaps(timeframe),
    }


def _time(series: CandleSeries, index: int) -> datetime:
    return datetime.fromtimestamp(int(series.open_time[index]) / 1000, tz=UTC)


def _copy_blocks(data_set_id: UUID, series: CandleSeries) -> Iterator[str]:
    """Yield the series in COPY's text format; floats by their shortest repr, so exactly."""
    times = np.datetime_as_string(series.open_time.astype("datetime64[ms]"), timezone="UTC")
    rows = zip(times.tolist(), series.rows(), strict=True)
    lines = [
        f"{data_set_id}\t{time}\t{o!r}\t{h!r}\t{low!r}\t{c!r}\t{v!r}\n"
        for time, (_, o, h, low, c, v) in rows
    ]
    for start in range(0, len(lines), _ROWS_PER_WRITE):
        yield "".join(lines[start : start + _ROWS_PER_WRITE])


def candle_columns(data_set_id: UUID, series: CandleSeries) -> dict[str, object]:
    """Return what `INSERT_CANDLES` takes."""
    prices = ("open", "high", "low", "close", "volume")
    return {
        "data_set_id": data_set_id,
        "time": series.open_time.tolist(),
        **{name: [repr(value) for value in getattr(series, name).tolist()] for name in prices},
    }


def _from_source(source: str | None) -> list[ColumnElement[bool]]:
    return [] if source is None else [col(DataSet.source) == source]


def _records(data_set: DataSet) -> list[DataSetRecord]:
    record = _record(data_set)
    if not record.is_history:
        return [record]
    length = timedelta(milliseconds=Timeframe.parse(record.timeframe).milliseconds)
    return [
        record.model_copy(
            update={"first_open_time": each.lower, "last_open_time": each.upper - length}
        )
        for each in data_set.covered
    ]


def _record(data_set: DataSet) -> DataSetRecord:
    return DataSetRecord.model_validate(data_set, from_attributes=True)
