"""Candles of a data set, read straight into arrays."""

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection, sql
from sqlalchemy.ext.asyncio import AsyncSession

from trading.candles import CandleSeries

# PostgreSQL's binary COPY: a header, then for each row its number of fields and each field's
# length and value, then a trailer. All fields have eight bytes, so that rows are of one size; a
# timestamp is in microseconds since 2000.
_COLUMNS: LiteralString = (
    "open_time, open::float8, high::float8, low::float8, close::float8, volume::float8"
)
_YEAR_2000_MS = 946_684_800_000
_FIELDS = ("open_time", "open", "high", "low", "close", "volume")
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(
            part
            for name in _FIELDS
            for part in ((f"{name}_length", ">i4"), (name, ">i8" if name == "open_time" else ">f8"))
        ),
    ]
)
_HEADER_BYTES = 19
_TRAILER_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleSpan:
    """Candles to read: open times in epoch ms, both included; the first or the last `limit`."""

    start_ms: int | None = None
    end_ms: int | None = None
    limit: int | None = None
    newest: bool = False


class CandleRepository:
    """Candles of the data sets that the transaction's user may see."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def load(self, data_set_id: UUID, span: CandleSpan | None = None) -> CandleSeries:
        """Return the candles of a span, all of them by default, in time order."""
        span = span or CandleSpan()
        rows = np.frombuffer(
            await self._copied(_query(data_set_id, span)), dtype=_ROW, offset=_HEADER_BYTES
        )
        return _series(rows[::-1] if span.newest else rows)

    async def load_window(
        self, data_set_id: UUID, *, start_ms: int, end_ms: int, warm_up: int
    ) -> tuple[CandleSeries, int]:
        """Return the candles that open from `start_ms` to `end_ms`, and as many as there are of
        the `warm_up` candles before them; and how many those are.
        """
        before = await self.load(
            data_set_id, CandleSpan(end_ms=start_ms - 1, limit=warm_up, newest=True)
        )
        window = await self.load(data_set_id, CandleSpan(start_ms=start_ms, end_ms=end_ms))
        return before.followed_by(window), len(before)

    async def _copied(self, query: sql.Composed) -> bytes:
        connection = await (await self._session.connection()).get_raw_connection()
        driver = connection.driver_connection
        assert isinstance(driver, AsyncConnection)  # noqa: S101 - the driver this project uses
        copying = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
        async with driver.cursor() as cursor, cursor.copy(copying) as copy:
            copied = b"".join([bytes(block) async for block in copy])
        return copied[:-_TRAILER_BYTES]


def _query(data_set_id: UUID, span: CandleSpan) -> sql.Composed:
    conditions = [sql.SQL("data_set_id = {}").format(data_set_id)]
    if span.start_ms is not None:
        conditions.append(sql.SQL("open_time >= to_timestamp({} / 1000.0)").format(span.start_ms))
    if span.end_ms is not None:
        conditions.append(sql.SQL("open_time <= to_timestamp({} / 1000.0)").format(span.end_ms))
    return sql.SQL(
        "SELECT {columns} FROM candles WHERE {conditions} ORDER BY open_time {order} LIMIT {limit}"
    ).format(
        columns=sql.SQL(_COLUMNS),
        conditions=sql.SQL(" AND ").join(conditions),
        order=sql.SQL("DESC" if span.newest else "ASC"),
        limit=span.limit,
    )


def _series(rows: NDArray[np.void]) -> CandleSeries:
    microseconds = rows["open_time"].astype(np.int64)
    columns: dict[str, NDArray[np.float64]] = {
        name: rows[name].astype(np.float64) for name in _FIELDS[1:]
    }
    return CandleSeries(open_time=microseconds // 1000 + _YEAR_2000_MS, **columns)
