"""The candles of live markets, asked for once for all the tests that follow them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from activities.contexts import SessionContext
from db.engine import Database
from db.repositories.live_sets import LiveSet, LiveSetRepository
from integrations.exchanges.market import MarketClock, Ticker
from trading.candles import Candle, CandleSeries, Timeframe
from trading.schedule import opened_at

# How long the exchange's clock is trusted to run beside ours before it is read again.
CLOCK_TRUST_S = 30.0
# An exchange that had nothing new is left alone for so long, however many tests ask.
ASKING_PAUSE_S = 0.5


class Market(Protocol):
    """What is asked of an exchange; see `integrations.exchanges.market.Market`."""

    async def clock(self) -> MarketClock: ...

    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries: ...

    async def forming(self, asset: str, timeframe: Timeframe) -> Candle | None: ...

    async def minutes(self, asset: str, *, since_ms: int) -> list[Candle]: ...

    def tickers(self, asset: str) -> AsyncIterator[Ticker]: ...


class NoMarket:
    """What a worker without a source has: forward tests wait until it gets one."""

    async def clock(self) -> MarketClock:
        raise ConnectionError("this worker has no MARKET_DATA_SOURCE")

    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries:
        stretch = f"{asset} {timeframe} from {since_ms} to {until_ms}"
        raise ConnectionError(f"this worker has no MARKET_DATA_SOURCE for {stretch}")

    async def forming(self, asset: str, timeframe: Timeframe) -> Candle | None:
        raise ConnectionError(f"this worker has no MARKET_DATA_SOURCE for {asset} {timeframe}")

    async def minutes(self, asset: str, *, since_ms: int) -> list[Candle]:
        raise ConnectionError(f"this worker has no MARKET_DATA_SOURCE for {asset} at {since_ms}")

    def tickers(self, asset: str) -> AsyncIterator[Ticker]:
        raise ConnectionError(f"this worker has no MARKET_DATA_SOURCE for {asset}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A live series and the data set that holds it."""

    data_set_id: UUID
    asset: str
    timeframe: Timeframe


def series_of(context: SessionContext) -> Series:
    """The series that a forward test follows."""
    key = context.frame_key
    return Series(
        data_set_id=key.data_set_id, asset=context.settings.asset, timeframe=key.timeframe
    )


@dataclass(slots=True, kw_only=True)
class _Known:
    """What this process knows of a series: its newest candle, and when it last asked for more."""

    newest: int | None = None
    asked_at: float = float("-inf")
    forming: Candle | None = None
    formed_at: float = float("-inf")


class LiveCandles:
    """Reads candles from the exchange into data sets that grow."""

    def __init__(
        self,
        database: Database,
        market: Market,
        source: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._market = market
        self._source = source
        self._monotonic = monotonic
        self._clock: tuple[MarketClock, float] | None = None
        self._known: dict[UUID, _Known] = {}
        self._asking: dict[UUID, asyncio.Lock] = {}

    @property
    def source(self) -> str:
        return self._source

    @property
    def market(self) -> Market:
        return self._market

    async def now_ms(self) -> int:
        """The exchange's time, in epoch ms."""
        clock, read_at = await self._read_clock()
        return clock.now_ms + round((self._monotonic() - read_at) * 1000 * clock.speed)

    async def speed(self) -> float:
        """How fast the exchange's clock runs; 1 for every real one."""
        return (await self._read_clock())[0].speed

    async def forming(self, series: Series) -> Candle | None:
        """The candle that is open now, as it was a moment ago; None before its first trade.

        Asked for once by all who want it at the same time: their orders fill at one open.
        """
        async with self._asking.setdefault(series.data_set_id, asyncio.Lock()):
            known = self._known.setdefault(series.data_set_id, _Known())
            age = self._monotonic() - known.formed_at
            if age > ASKING_PAUSE_S / max(1.0, await self.speed()):
                known.forming = await self._market.forming(series.asset, series.timeframe)
                known.formed_at = self._monotonic()
            return known.forming

    async def prepare(
        self, asset: str, timeframe: Timeframe, *, warm_up: int
    ) -> tuple[Series, int]:
        """The series, with `warm_up` candles before the one that forms now, and that one's opening.

        There is never a hole behind the newest candle stored: older tests still have to pass it.
        """
        start = opened_at(await self.now_ms(), timeframe.milliseconds)
        found = await self._open(asset, timeframe)
        series = Series(data_set_id=found.id, asset=asset, timeframe=timeframe)
        since = start - warm_up * timeframe.milliseconds
        for first, last in _missing(found, since, start, timeframe.milliseconds):
            await self._fetch(series, first, last)
        return series, start

    async def catch_up(self, series: Series, now: int, *, since: int) -> int | None:
        """Store what has closed by `now`; return the opening of the newest candle, if any.

        `since` is where the asking test began: the oldest candle that anybody needs of an empty
        series.
        """
        async with self._asking.setdefault(series.data_set_id, asyncio.Lock()):
            known = self._known.setdefault(series.data_set_id, _Known())
            length = series.timeframe.milliseconds
            expected = opened_at(now, length) - length
            if known.newest is None or known.newest < expected:
                known.newest = (await self._open(series.asset, series.timeframe)).last_open
            if known.newest is None or known.newest < expected:
                await self._ask(series, known, now, since)
            return known.newest

    async def _ask(self, series: Series, known: _Known, now: int, since: int) -> None:
        if self._monotonic() - known.asked_at < ASKING_PAUSE_S / max(1.0, await self.speed()):
            return
        known.asked_at = self._monotonic()
        first = since if known.newest is None else known.newest + series.timeframe.milliseconds
        found = await self._fetch(series, first, now)
        if len(found):
            known.newest = int(found.open_time[-1])

    async def _fetch(self, series: Series, since: int, until: int) -> CandleSeries:
        found = await self._market.closed_candles(
            series.asset, series.timeframe, since_ms=since, until_ms=until
        )
        if len(found):
            async with self._database.as_system() as session:
                await LiveSetRepository(session).append(series.data_set_id, found)
        return found

    async def _open(self, asset: str, timeframe: Timeframe) -> LiveSet:
        async with self._database.as_system() as session:
            return await LiveSetRepository(session).open(asset, timeframe, self._source)

    async def _read_clock(self) -> tuple[MarketClock, float]:
        if self._clock is None or self._monotonic() - self._clock[1] > CLOCK_TRUST_S:
            self._clock = (await self._market.clock(), self._monotonic())
        return self._clock


def _missing(found: LiveSet, since: int, start: int, length: int) -> list[tuple[int, int]]:
    """The stretches between `since` and `start` that are not stored, as (first, end)."""
    if found.first_open is None or found.last_open is None:
        return [(since, start)]
    stretches = [(since, found.first_open), (found.last_open + length, start)]
    return [(first, end) for first, end in stretches if first < end]
