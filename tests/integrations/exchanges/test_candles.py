"""The candles that ccxt brings: closed by the exchange's clock, whole, each once, gaps as gaps."""

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest

from integrations.errors import RequestRejected, SymbolUnavailable
from integrations.exchanges.connection import Connection
from integrations.exchanges.market import Market
from tests.integrations.exchanges.simulation import HOUR, MINUTE, NOW, SimulatedExchange
from tests.loopback import eventually
from trading.candles import Candle, Timeframe

BTC = "BTC/USDT"
KLINES = "/api/v3/klines"
HOUR_OPEN = NOW // HOUR * HOUR
MINUTE_OPEN = NOW // MINUTE * MINUTE


async def hours(market: Market, count: int = 5, *, until_ms: int = NOW + HOUR) -> list[Candle]:
    since = HOUR_OPEN - count * HOUR
    return list(
        await market.closed_candles(BTC, Timeframe.HOUR_1, since_ms=since, until_ms=until_ms)
    )


# Closed, or not yet


async def test_the_candle_that_is_open_is_not_among_the_closed(market: Market):
    candles = await hours(market)

    assert [c.open_time for c in candles] == [HOUR_OPEN - n * HOUR for n in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(("early", "is_closed"), [(1, False), (0, True)])
async def test_a_candle_closes_at_the_millisecond_when_the_next_opens(
    market: Market, exchange: SimulatedExchange, early: int, is_closed: bool
):
    exchange.set_clock(now_ms=HOUR_OPEN + HOUR - early)

    candles = await hours(market)
    assert (candles[-1].open_time == HOUR_OPEN) is is_closed


async def test_the_bounds_take_in_whole_candles_only(market: Market):
    candles = await market.closed_candles(
        BTC,
        Timeframe.HOUR_1,
        since_ms=HOUR_OPEN - 4 * HOUR + 1,
        until_ms=HOUR_OPEN - HOUR - 1,
    )
    assert candles.open_time.tolist() == [HOUR_OPEN - 3 * HOUR]


async def test_no_candle_in_the_bounds_is_an_empty_series(market: Market):
    candles = await market.closed_candles(
        BTC, Timeframe.HOUR_1, since_ms=HOUR_OPEN, until_ms=NOW + HOUR
    )
    assert len(candles) == 0


async def test_what_was_given_as_closed_is_final_however_fast_the_clock(
    market: Market, exchange: SimulatedExchange
):
    exchange.set_clock(now_ms=MINUTE_OPEN, speed=6_000)  # a minute takes ten milliseconds
    given: list[Candle] = []
    for _ in range(20):
        until = (await market.clock()).now_ms + HOUR
        since = given[-1].open_time + MINUTE if given else MINUTE_OPEN
        given += await market.closed_candles(
            BTC, Timeframe.MINUTE_1, since_ms=since, until_ms=until
        )

    exchange.set_clock(speed=0)
    final = await market.closed_candles(
        BTC, Timeframe.MINUTE_1, since_ms=MINUTE_OPEN, until_ms=given[-1].open_time + MINUTE
    )
    assert given == list(final)
    assert len(given) > 20


async def test_a_late_candle_is_missing_until_it_is_published(
    market: Market, exchange: SimulatedExchange
):
    late = HOUR_OPEN - HOUR
    exchange.set_clock(now_ms=HOUR_OPEN + 4_999)
    exchange.fail("late", asset=BTC, timeframe="1h", open_time=late, by_ms=5_000)
    before = await hours(market)
    exchange.set_clock(advance_ms=1)
    after = await hours(market)

    assert before[-1].open_time == late - HOUR
    assert after[-1].open_time == late
    assert after[:-1] == before


async def test_a_revised_candle_is_given_as_it_is_by_then(
    market: Market, exchange: SimulatedExchange
):
    revised = HOUR_OPEN - HOUR
    exchange.fail("revised", asset=BTC, timeframe="1h", open_time=revised, factor=1.5)

    first, second, third = [await hours(market) for _ in range(3)]
    assert second[-1].close == pytest.approx(first[-1].close * 1.5)
    assert second[-1].high == second[-1].close
    assert second[:-1] == first[:-1]
    assert third == second


# Many, and none


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
async def test_long_stretches_come_in_pages(
    market: Market, exchange: SimulatedExchange, count: int
):
    series = await market.closed_candles(
        BTC,
        Timeframe.MINUTE_1,
        since_ms=MINUTE_OPEN - count * MINUTE,
        until_ms=NOW,
    )

    assert series.open_time.tolist() == list(
        range(MINUTE_OPEN - count * MINUTE, MINUTE_OPEN, MINUTE)
    )
    series.validate(Timeframe.MINUTE_1)
    assert exchange.count(KLINES) == -(-count // 1000)


@pytest.mark.parametrize("halted", [1, 30, 1700])
async def test_a_halt_leaves_a_gap_and_nothing_else(
    market: Market, exchange: SimulatedExchange, halted: int
):
    start = MINUTE_OPEN - 2000 * MINUTE
    expected = await market.closed_candles(BTC, Timeframe.MINUTE_1, since_ms=start, until_ms=NOW)
    halt = (start + 100 * MINUTE, start + (100 + halted) * MINUTE)
    exchange.fail("halt", asset=BTC, start_ms=halt[0], end_ms=halt[1])

    series = await market.closed_candles(BTC, Timeframe.MINUTE_1, since_ms=start, until_ms=NOW)
    assert series.gaps(Timeframe.MINUTE_1) == halted
    assert list(series) == [c for c in expected if not halt[0] <= c.open_time < halt[1]]


async def test_a_halt_that_goes_on_gives_no_candles(market: Market, exchange: SimulatedExchange):
    exchange.fail("halt", asset=BTC, start_ms=HOUR_OPEN - 10 * HOUR, end_ms=NOW + HOUR)

    assert await hours(market) == []
    assert await market.forming(BTC, Timeframe.HOUR_1) is None
    assert await market.minutes(BTC, since_ms=HOUR_OPEN) == []


# The candle that is forming


async def test_the_minutes_end_with_the_one_that_is_forming(market: Market):
    minutes = await market.minutes(BTC, since_ms=HOUR_OPEN)

    times = [candle.open_time for candle in minutes]
    assert times == list(range(HOUR_OPEN, MINUTE_OPEN + MINUTE, MINUTE))
    assert minutes[-1] == await market.forming(BTC, Timeframe.MINUTE_1)
    assert minutes[-1].close == (await market.ticker(BTC)).price


async def test_the_forming_candle_is_the_sum_of_its_minutes(market: Market):
    minutes = await market.minutes(BTC, since_ms=HOUR_OPEN)
    forming = await market.forming(BTC, Timeframe.HOUR_1)

    assert forming is not None
    assert replace(forming, volume=0) == Candle(
        open_time=HOUR_OPEN,
        open=minutes[0].open,
        high=max(minute.high for minute in minutes),
        low=min(minute.low for minute in minutes),
        close=minutes[-1].close,
        volume=0,
    )
    assert forming.volume == pytest.approx(sum(minute.volume for minute in minutes))


async def test_the_open_of_the_forming_candle_stays(market: Market, exchange: SimulatedExchange):
    before = await market.forming(BTC, Timeframe.HOUR_1)
    exchange.set_clock(now_ms=HOUR_OPEN + HOUR)
    (closed,) = await hours(market, 0)

    assert before is not None
    assert before.open == closed.open
    assert before != closed


# Assets and timeframes


async def test_an_asset_that_nobody_lists_is_unavailable(market: Market):
    with pytest.raises(SymbolUnavailable, match="simulated does not list NOBODY/USDT"):
        await market.minutes("NOBODY/USDT", since_ms=HOUR_OPEN)


async def test_an_asset_that_is_gone_is_unavailable(market: Market, exchange: SimulatedExchange):
    await market.ticker(BTC)
    exchange.fail("gone", asset=BTC)

    with pytest.raises(SymbolUnavailable):
        await hours(market)
    with pytest.raises(SymbolUnavailable):
        await market.ticker(BTC)
    assert (await market.ticker("ETH/USDT")).price > 0


async def test_the_listing_is_read_once(market: Market, exchange: SimulatedExchange):
    for asset, _ in itertools.product((BTC, "ETH/USDT"), range(2)):
        await market.ticker(asset)

    assert exchange.count("/api/v3/exchangeInfo") == 1


async def test_whoever_gives_up_waiting_takes_nobody_along(
    market: Market, exchange: SimulatedExchange
):
    exchange.fail("hang", path="/exchangeInfo")
    impatient = asyncio.create_task(market.ticker(BTC))

    async def is_asked() -> bool:
        return exchange.count("/api/v3/exchangeInfo") == 1

    await eventually(is_asked)
    patient = asyncio.create_task(market.ticker(BTC))
    await asyncio.sleep(0)  # now it waits for the listing too
    impatient.cancel()

    assert (await patient).price > 0
    assert impatient.cancelled()


async def test_a_timeframe_that_the_exchange_lacks_is_refused_without_asking():
    kraken = Connection("kraken", source="ccxt:kraken", base_url="http://127.0.0.1:1")
    await kraken.require_timeframe("4h")
    with pytest.raises(RequestRejected, match="ccxt:kraken has no 2h candles"):
        await kraken.require_timeframe("2h")
    await kraken.close()


@pytest.mark.parametrize("timeframe", list(Timeframe))
async def test_every_timeframe_comes_on_its_grid(market: Market, timeframe: Timeframe):
    series = await market.closed_candles(
        BTC, timeframe, since_ms=NOW - 20 * timeframe.milliseconds, until_ms=NOW
    )
    assert len(series) == 19
    series.validate(timeframe)
    assert np.all(np.diff(series.open_time) == timeframe.milliseconds)
