"""The past of a market, fetched once for all the backtests that run on it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol
from uuid import UUID

import numpy as np

from activities.live_candles import Series
from db.engine import Database
from db.repositories.history_sets import Extent, HistorySetRepository, Stretch
from trading.candles import CandleSeries, Timeframe
from trading.schedule import opened_at

# What is fetched and stored at a time: all that is lost when the worker dies, and for how long
# other tests wait for their turn.
CHUNK_CANDLES = 1_000
# An exchange publishes its newest candle late now and then; after an hour it is a gap.
SETTLED_AFTER_MS = 3_600_000


class PastMarket(Protocol):
    """What is asked of an exchange; see `integrations.exchanges.market.Market`."""

    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A stretch of a market's past, from its first candle to the end of its last one.

    `warm_up` candles were fetched with it, just before it.
    """

    data_set_id: UUID
    stretch: Stretch
    warm_up: int


class CandleHistory:
    """Reads ranges of the past into data sets, where what was fetched never changes.

    A hole is asked for once more at once, and is a gap from then on.
    """

    def __init__(
        self,
        database: Database,
        market: PastMarket,
        source: str,
        *,
        clock: Callable[[], Awaitable[int]],
    ) -> None:
        self._database = database
        self._market = market
        self._source = source
        self._clock = clock
        # One question at a time: whoever waits here, or for another process, holds a connection.
        self._asking = asyncio.Lock()

    @property
    def source(self) -> str:
        return self._source

    async def load(
        self, asset: str, timeframe: Timeframe, wanted: Stretch, *, warm_up: int, is_moving: bool
    ) -> Past:
        """The candles of a stretch, as far as they are closed, and those before it.

        One that `is_moving` is as long, but ends at the newest candle.
        """
        length = timeframe.milliseconds
        newest_close = opened_at(await self._clock(), length)
        placed = _placed(wanted, newest_close, length, is_moving=is_moving)
        before = Stretch(start_ms=placed.start_ms - warm_up * length, end_ms=placed.start_ms)
        async with self._database.as_system() as session:
            data_set_id = await HistorySetRepository(session).open(asset, timeframe, self._source)
        series = Series(data_set_id=data_set_id, asset=asset, timeframe=timeframe)
        await self._fetch_missing(series, Stretch(start_ms=before.start_ms, end_ms=placed.end_ms))
        async with self._database.as_system() as session:
            sets = HistorySetRepository(session)
            known = await sets.extent(data_set_id, before)
            found = _between(await sets.extent(data_set_id, placed), placed, length)
        return Past(data_set_id=data_set_id, stretch=found, warm_up=known.count)

    async def _fetch_missing(self, series: Series, wanted: Stretch) -> None:
        async with self._database.as_system() as session:
            missing = await HistorySetRepository(session).missing(series.data_set_id, wanted)
        for stretch in missing:
            for chunk in _chunks(stretch, CHUNK_CANDLES * series.timeframe.milliseconds):
                await self._fetch_chunk(series, chunk, until=wanted.end_ms)

    async def _fetch_chunk(self, series: Series, chunk: Stretch, *, until: int) -> None:
        """Fetch and store what others have not meanwhile, while they wait, here and elsewhere."""
        async with self._asking, self._database.as_system() as session:
            sets = HistorySetRepository(session)
            await sets.lock(series.data_set_id)
            for stretch in await sets.missing(series.data_set_id, chunk):
                found = await self._ask(series, stretch)
                is_recent = await self._clock() - stretch.end_ms < SETTLED_AFTER_MS
                more_may_come = is_recent and stretch.end_ms == until
                length = series.timeframe.milliseconds
                settled = _with_candles(stretch, found, length) if more_may_come else stretch
                await sets.append(series.data_set_id, settled, found)

    async def _ask(self, series: Series, stretch: Stretch) -> CandleSeries:
        found = await self._closed(series, stretch)
        hole = _hole(found, stretch, series.timeframe.milliseconds)
        return found if hole is None else _merged(found, await self._closed(series, hole))

    async def _closed(self, series: Series, stretch: Stretch) -> CandleSeries:
        return await self._market.closed_candles(
            series.asset, series.timeframe, since_ms=stretch.start_ms, until_ms=stretch.end_ms
        )


def _placed(wanted: Stretch, newest_close: int, length: int, *, is_moving: bool) -> Stretch:
    """The stretch on the grid of its candles, without what is not closed yet."""
    if is_moving:
        span = wanted.end_ms - wanted.start_ms
        return Stretch(start_ms=newest_close - span, end_ms=newest_close)
    end = min(opened_at(wanted.end_ms, length), newest_close)
    return Stretch(start_ms=min(-(-wanted.start_ms // length) * length, end), end_ms=end)


def _between(extent: Extent, placed: Stretch, length: int) -> Stretch:
    """From the first candle to the end of the last; nothing where there are none."""
    if extent.first_open is None or extent.last_open is None:
        return Stretch(start_ms=placed.start_ms, end_ms=placed.start_ms)
    return Stretch(start_ms=extent.first_open, end_ms=extent.last_open + length)


def _with_candles(stretch: Stretch, found: CandleSeries, length: int) -> Stretch:
    """The stretch up to its last candle."""
    end = int(found.open_time[-1]) + length if len(found) else stretch.start_ms
    return Stretch(start_ms=stretch.start_ms, end_ms=end)


def _chunks(stretch: Stretch, length: int) -> Iterator[Stretch]:
    for start in range(stretch.start_ms, stretch.end_ms, length):
        yield Stretch(start_ms=start, end_ms=min(start + length, stretch.end_ms))


def _hole(found: CandleSeries, stretch: Stretch, length: int) -> Stretch | None:
    """From the first candle that is not there to the last one."""
    expected = np.arange(stretch.start_ms, stretch.end_ms, length)
    absent = np.setdiff1d(expected, found.open_time)
    if not absent.size:
        return None
    return Stretch(start_ms=int(absent[0]), end_ms=int(absent[-1]) + length)


def _merged(first: CandleSeries, again: CandleSeries) -> CandleSeries:
    """Every candle as it was seen first."""
    names = [field.name for field in fields(CandleSeries)]
    columns = {name: np.concatenate([getattr(first, name), getattr(again, name)]) for name in names}
    _, places = np.unique(columns["open_time"], return_index=True)
    return CandleSeries(**{name: column[places] for name, column in columns.items()})
