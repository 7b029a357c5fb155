"""The price: pushed where the exchange pushes it, asked for where it does not, never ending."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from integrations.errors import RequestRejected, SymbolUnavailable
from integrations.exchanges.connection import Connection
from integrations.exchanges.market import Market, Ticker
from tests.integrations.exchanges.simulation import NOW, SimulatedExchange
from tests.loopback import eventually

BTC = "BTC/USDT"
POLLED = "/api/v3/ticker/24hr"
PUSHED = "/ws"


async def take(tickers: AsyncIterator[Ticker], count: int) -> list[Ticker]:
    async with asyncio.timeout(10):
        return [await anext(tickers) for _ in range(count)]


async def test_a_ticker_tells_the_last_day(market: Market):
    ticker = await market.ticker(BTC)
    minutes = await market.minutes(BTC, since_ms=NOW - 86_400_000)

    assert ticker.price == minutes[-1].close
    assert ticker.high_24h == max(minute.high for minute in minutes)
    assert ticker.low_24h == min(minute.low for minute in minutes)
    assert ticker.volume_24h == pytest.approx(sum(minute.volume for minute in minutes))
    assert ticker.bid is not None
    assert ticker.ask is not None
    assert ticker.bid < ticker.price < ticker.ask
    change = (ticker.price / minutes[0].open - 1) * 100
    assert ticker.change_24h == pytest.approx(change, abs=0.001)
    assert ticker.timestamp_ms == NOW


async def test_prices_are_pushed_and_nobody_asks(market: Market, exchange: SimulatedExchange):
    tickers = await take(market.tickers(BTC), 3)

    assert set(tickers) == {await market.ticker(BTC)}
    assert exchange.count(PUSHED) == 1
    assert exchange.count(POLLED) == 1  # the line above


async def test_a_push_follows_the_clock(market: Market, exchange: SimulatedExchange):
    tickers = market.tickers(BTC)
    (before,) = await take(tickers, 1)
    exchange.set_clock(advance_ms=10_000)

    async with asyncio.timeout(10):
        async for after in tickers:
            if after.timestamp_ms == NOW + 10_000:
                break
    assert after.price != before.price


async def test_without_a_stream_the_price_is_asked_for_and_the_stream_tried_again(
    market: Market, exchange: SimulatedExchange
):
    exchange.fail("stream", how="refuse", times=2)
    tickers = market.tickers(BTC)
    await take(tickers, 1)
    asked, opened = exchange.count(POLLED), exchange.count(PUSHED)

    async def streams_again() -> bool:
        await take(tickers, 1)
        return exchange.count(PUSHED) == 3

    await eventually(streams_again)
    await take(tickers, 2)
    asked_by_then = exchange.count(POLLED)
    await take(tickers, 5)

    assert (asked, opened) == (1, 1)
    assert exchange.count(POLLED) == asked_by_then


async def test_a_stream_that_falls_silent_is_bridged(market: Market, exchange: SimulatedExchange):
    exchange.fail("stream", how="silent")

    await take(market.tickers(BTC), 2)
    assert exchange.count(PUSHED) == 1
    assert exchange.count(POLLED) == 2


async def test_a_stream_that_breaks_off_is_opened_again(
    market: Market, exchange: SimulatedExchange
):
    exchange.fail("stream", how="drop", times=2)
    tickers = market.tickers(BTC)

    async def is_open_for_the_third_time() -> bool:
        await take(tickers, 1)
        return exchange.count(PUSHED) == 3

    await eventually(is_open_for_the_third_time)
    await take(tickers, 5)


async def test_trouble_while_asking_is_waited_out(market: Market, exchange: SimulatedExchange):
    exchange.fail("stream", how="refuse", times=99)
    exchange.fail("answer", status=503, path="/ticker/24hr", times=3)

    assert await take(market.tickers(BTC), 2) == [await market.ticker(BTC)] * 2
    assert exchange.count(POLLED) >= 5


async def test_what_cannot_pass_ends_the_iteration(market: Market, exchange: SimulatedExchange):
    with pytest.raises(SymbolUnavailable):
        await take(market.tickers("NOBODY/USDT"), 1)

    exchange.fail("stream", how="refuse", times=99)
    exchange.fail("answer", status=451, path="/ticker/24hr")
    with pytest.raises(RequestRejected):
        await take(market.tickers(BTC), 1)


async def test_watchers_share_one_stream_and_none_ends_with_another(
    market: Market, exchange: SimulatedExchange
):
    first, second = market.tickers(BTC), market.tickers(BTC)
    await asyncio.gather(take(first, 1), take(second, 1))
    leaving = asyncio.create_task(take(first, 10_000))
    staying = asyncio.create_task(take(second, 20))
    await asyncio.sleep(0)  # both wait for the same push now
    leaving.cancel()

    assert len(await staying) == 20
    assert exchange.count(PUSHED) == 1
    assert exchange.count(POLLED) == 0


async def test_closing_ends_every_iteration(market: Market):
    seen: list[Ticker] = []

    async def watch() -> None:
        async for ticker in market.tickers(BTC):
            seen.append(ticker)  # noqa: PERF401 - what was seen so far is the point

    async def is_under_way() -> bool:
        return bool(seen)

    watching = asyncio.create_task(watch())
    await eventually(is_under_way)
    await market.close()

    async with asyncio.timeout(5):
        await watching


async def test_some_exchanges_have_no_stream_at_all():
    with_stream, without = (
        Connection(name, source=name, base_url="http://127.0.0.1:1")
        for name in ("kraken", "bitbank")
    )
    assert await with_stream.has("watchTicker")
    assert not await without.has("watchTicker")
    await with_stream.close()
    await without.close()
