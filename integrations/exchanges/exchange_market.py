"""A market that ccxt reaches: any exchange it knows, or the simulated one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from integrations.errors import IntegrationError, SymbolUnavailable, TemporarilyUnavailable
from integrations.exchanges.clocks import Clock, ExchangeClock, SimulatedClock
from integrations.exchanges.connection import Connection, is_exchange
from integrations.exchanges.market import Market, MarketClock, Ticker
from integrations.exchanges.pages import Row, read_pages, series_from
from integrations.exchanges.ticker_stream import TickerStream
from trading.candles import Candle, CandleSeries, Timeframe

SIMULATED: Final = "simulated"
_CCXT: Final = "ccxt:"
_SIMULATED_AS: Final = "binance"


@dataclass(frozen=True, slots=True, kw_only=True)
class TickerPace:
    """How `tickers` divides its time, in seconds.

    `silence` ends a stream that pushes nothing; then the price is asked for every `poll`, until a
    stream is tried `again`.
    """

    poll: float = 2.0
    silence: float = 20.0
    again: float = 60.0


class ExchangeMarket:
    """`Market` over one connection; many tasks may share it."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        *,
        pace: TickerPace | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._pace = pace or TickerPace()
        self._monotonic = monotonic
        self._stream = TickerStream(connection)

    async def clock(self) -> MarketClock:
        """The exchange's time; at a real one never ahead of it."""
        return await self._clock.read()

    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries:
        """The candles within `[since_ms, until_ms]` that are closed by the exchange's own clock."""
        # The clock first: what is fetched after the exchange said that it is closed, is whole.
        now_ms = (await self.clock()).now_ms
        step = timeframe.milliseconds
        end_ms = min(until_ms, now_ms) // step * step
        rows = await self._rows(asset, timeframe, since_ms=since_ms, end_ms=end_ms)
        return series_from(rows, timeframe)

    async def minutes(self, asset: str, *, since_ms: int) -> list[Candle]:
        """The 1-minute candles from `since_ms` on; the last one may still be forming."""
        now_ms = (await self.clock()).now_ms
        timeframe = Timeframe.MINUTE_1
        end_ms = now_ms // timeframe.milliseconds * timeframe.milliseconds + timeframe.milliseconds
        rows = await self._rows(asset, timeframe, since_ms=since_ms, end_ms=end_ms)
        return list(series_from(rows, timeframe))

    async def forming(self, asset: str, timeframe: Timeframe) -> Candle | None:
        """The candle that is open now, as far as it got; None before its first trade."""
        now_ms = (await self.clock()).now_ms
        step = timeframe.milliseconds
        opened = now_ms // step * step
        # One more than asked for: between the two questions the next candle may have opened.
        rows = await self._rows(asset, timeframe, since_ms=opened, end_ms=opened + 2 * step)
        series = series_from(rows, timeframe)
        return series.candle(-1) if len(series) else None

    async def ticker(self, asset: str) -> Ticker:
        """The price as it is now."""
        told = await self._connection.ask_about(
            asset, lambda exchange: exchange.fetch_ticker(asset)
        )
        return _ticker_from(told)

    async def tickers(self, asset: str) -> AsyncIterator[Ticker]:
        """The price whenever it changes: pushed, or asked for while the exchange does not push.

        Raises `RequestRejected`, such as `SymbolUnavailable`; what passes is waited out.
        """
        while not self._connection.is_closed():
            while (ticker := await self._pushed(asset)) is not None:
                yield ticker
            again_at = self._monotonic() + self._pace.again
            while not self._connection.is_closed() and self._monotonic() < again_at:
                if (ticker := await self._polled(asset)) is not None:
                    yield ticker
                await asyncio.sleep(self._pace.poll)

    async def open(self) -> None:
        """Import ccxt and its exchange, which otherwise waits for the first question."""
        await self._connection.open()

    async def close(self) -> None:
        """Let go of every connection; iterations of `tickers` end."""
        self._stream.close()
        await self._connection.close()

    async def _rows(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, end_ms: int
    ) -> list[Row]:
        await self._connection.require_timeframe(timeframe)

        async def page(cursor: int, wanted: int) -> list[Row]:
            rows: list[Row] = await self._connection.ask_about(
                asset,
                lambda exchange: exchange.fetch_ohlcv(
                    asset, timeframe.value, since=cursor, limit=wanted
                ),
            )
            return rows

        step = timeframe.milliseconds
        limit = await self._connection.page_size()
        start_ms = -(-since_ms // step) * step
        return await read_pages(page, timeframe, start_ms=start_ms, end_ms=end_ms, limit=limit)

    async def _pushed(self, asset: str) -> Ticker | None:
        try:
            if not await self._connection.has("watchTicker"):
                return None
            return _ticker_from(await self._stream.next(asset, silence=self._pace.silence))
        except SymbolUnavailable:
            raise
        except IntegrationError:
            return None

    async def _polled(self, asset: str) -> Ticker | None:
        try:
            return await self.ticker(asset)
        except TemporarilyUnavailable as error:
            await asyncio.sleep(error.retry_after or 0)
            return None


def open_market(
    source: str, *, base_url: str | None = None, pace: TickerPace | None = None
) -> Market:
    """The market that `MARKET_DATA_SOURCE` names; connects and imports when it is first asked.

    `ccxt:<id>` is an exchange of ccxt, such as `ccxt:binance`; `simulated` is the simulated one at
    `base_url`, which speaks as Binance does. Raises `ValueError` for anything else.
    """
    if source == SIMULATED:
        if base_url is None:
            raise ValueError("the market data source 'simulated' needs the address of its exchange")
        connection = Connection(_SIMULATED_AS, source=source, base_url=base_url)
        return ExchangeMarket(connection, SimulatedClock(connection, base_url), pace=pace)
    exchange_id = source.removeprefix(_CCXT)
    if not source.startswith(_CCXT):
        raise ValueError(
            f"{source[:40]!r} is not a market data source; write simulated or, for example, "
            "ccxt:binance"
        )
    if not is_exchange(exchange_id):
        raise ValueError(f"ccxt has no exchange {exchange_id[:40]!r}")
    connection = Connection(exchange_id, source=source)
    return ExchangeMarket(connection, ExchangeClock(connection), pace=pace)


def _ticker_from(told: Mapping[str, Any]) -> Ticker:
    price = told.get("last") or told.get("close")
    if price is None:
        raise TemporarilyUnavailable("the exchange gives no price")
    return Ticker(
        price=float(price),
        bid=told.get("bid"),
        ask=told.get("ask"),
        change_24h=told.get("percentage"),
        high_24h=told.get("high"),
        low_24h=told.get("low"),
        volume_24h=told.get("baseVolume"),
        timestamp_ms=told.get("timestamp"),
    )
