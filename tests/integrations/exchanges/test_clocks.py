"""An exchange's clock is followed, and never overtaken."""

import pytest

from integrations.exchanges.clocks import ExchangeClock
from integrations.exchanges.connection import Connection
from integrations.exchanges.market import Market, MarketClock
from tests.integrations.exchanges.simulation import NOW, SimulatedExchange

TIME = "/api/v3/time"


class Watch:
    """A clock of ours that a test moves; in seconds."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def test_the_simulated_clock_is_asked_each_time(market: Market, exchange: SimulatedExchange):
    assert await market.clock() == MarketClock(now_ms=NOW, speed=0.0)
    exchange.set_clock(advance_ms=5)
    assert await market.clock() == MarketClock(now_ms=NOW + 5, speed=0.0)
    exchange.set_clock(speed=3600)
    later = await market.clock()
    assert later.speed == 3600
    assert later.now_ms >= NOW + 5


async def test_a_real_clock_is_asked_once_a_minute_and_carried_on(exchange: SimulatedExchange):
    watch = Watch()
    connection = Connection("binance", source="test", base_url=exchange.url)
    clock = ExchangeClock(connection, monotonic=watch)

    assert await clock.read() == MarketClock(now_ms=NOW)
    watch.seconds += 59.5
    assert await clock.read() == MarketClock(now_ms=NOW + 59_500)
    assert exchange.count(TIME) == 1

    exchange.set_clock(advance_ms=70_000)
    watch.seconds += 1
    assert await clock.read() == MarketClock(now_ms=NOW + 70_000)
    assert exchange.count(TIME) == 2
    await connection.close()


async def test_the_way_of_the_answer_makes_us_late_and_never_early(exchange: SimulatedExchange):
    watch = Watch()
    connection = Connection("binance", source="test", base_url=exchange.url)

    def answered_slowly() -> float:
        watch.seconds += 3.0
        return watch.seconds

    clock = ExchangeClock(connection, monotonic=answered_slowly)
    # Between the answer and the reading, one look at the watch: what passed before does not count.
    assert (await clock.read()).now_ms == NOW + 3_000
    await connection.close()


@pytest.mark.parametrize("name", ["bitbank"])
async def test_an_exchange_that_does_not_tell_its_time_has_ours(name: str):
    connection = Connection(name, source="test", base_url="http://127.0.0.1:1")
    assert not await connection.has("fetchTime")

    clock = ExchangeClock(connection, wall=lambda: 1.5)
    assert await clock.read() == MarketClock(now_ms=1_500)
    await connection.close()
