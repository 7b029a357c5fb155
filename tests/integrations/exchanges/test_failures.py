"""Each way an exchange fails is one error of ours, raised at the first try."""

import asyncio
import importlib
from collections.abc import AsyncIterator

import pytest

from integrations.errors import (
    AuthenticationFailed,
    IntegrationError,
    RateLimited,
    RequestRejected,
    SymbolUnavailable,
    TemporarilyUnavailable,
)
from integrations.exchanges.clocks import SimulatedClock
from integrations.exchanges.connection import Connection
from integrations.exchanges.exchange_market import ExchangeMarket, open_market
from integrations.exchanges.failures import exchange_failures
from integrations.exchanges.market import Market
from tests.integrations.exchanges.simulation import NOW, SimulatedExchange
from trading.candles import Timeframe

BTC = "BTC/USDT"
KLINES = "/api/v3/klines"


async def ask(market: Market) -> None:
    await market.closed_candles(BTC, Timeframe.HOUR_1, since_ms=NOW - 86_400_000, until_ms=NOW)


@pytest.fixture
async def impatient(exchange: SimulatedExchange) -> AsyncIterator[ExchangeMarket]:
    connection = Connection("binance", source="simulated", base_url=exchange.url, timeout_ms=1000)
    market = ExchangeMarket(connection, SimulatedClock(connection, exchange.url))
    yield market
    await market.close()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RequestRejected),
        (401, AuthenticationFailed),
        (403, TemporarilyUnavailable),
        (404, RequestRejected),
        (408, TemporarilyUnavailable),
        (418, RateLimited),
        (429, RateLimited),
        (451, RequestRejected),
        (500, TemporarilyUnavailable),
        (502, TemporarilyUnavailable),
        (503, TemporarilyUnavailable),
        (504, TemporarilyUnavailable),
        (520, TemporarilyUnavailable),
        (599, TemporarilyUnavailable),
    ],
)
async def test_a_status_becomes_one_error_after_one_request(
    market: Market, exchange: SimulatedExchange, status: int, expected: type[IntegrationError]
):
    exchange.fail("answer", status=status, path="/klines", times=9)

    with pytest.raises(IntegrationError) as caught:
        await ask(market)

    assert type(caught.value) is expected
    assert caught.value.status == status
    assert str(caught.value).startswith("simulated: ")
    assert caught.value.__cause__ is None
    assert exchange.count(KLINES) == 1


@pytest.mark.parametrize(("status", "given"), [(429, 7), (418, 120), (503, 30)])
async def test_the_exchange_says_when_to_come_back(
    market: Market, exchange: SimulatedExchange, status: int, given: int
):
    exchange.fail("answer", status=status, path="/klines", retry_after=given)

    with pytest.raises(TemporarilyUnavailable) as caught:
        await ask(market)
    assert caught.value.retry_after == given


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, '{"code":-1121,"msg":"Invalid symbol."}', SymbolUnavailable),
        (400, '{"code":-1003,"msg":"Too many requests."}', RateLimited),
        (400, '{"code":-1100,"msg":"Illegal characters found."}', RequestRejected),
        (200, "<html><body>Back soon, we are maintaining</body></html>", TemporarilyUnavailable),
        (200, "", TemporarilyUnavailable),
        (200, '{"surprise": 1}', TemporarilyUnavailable),
    ],
)
async def test_what_the_exchange_writes_counts_too(
    market: Market,
    exchange: SimulatedExchange,
    status: int,
    body: str,
    expected: type[IntegrationError],
):
    exchange.fail("answer", status=status, path="/klines", body=body)

    with pytest.raises(IntegrationError) as caught:
        await ask(market)
    assert type(caught.value) is expected


async def test_an_impossible_candle_is_no_candle(market: Market, exchange: SimulatedExchange):
    opened = NOW // 3_600_000 * 3_600_000 - 3_600_000
    body = f'[[{opened}, "2", "1", "1", "2", "5"]]'  # the high is below the open
    exchange.fail("answer", status=200, path="/klines", body=body)

    with pytest.raises(TemporarilyUnavailable, match="The high is below"):
        await ask(market)


@pytest.mark.parametrize("path", ["/klines", "/exchangeInfo"])
async def test_an_exchange_that_hangs_is_given_up(
    impatient: ExchangeMarket, exchange: SimulatedExchange, path: str
):
    exchange.fail("hang", path=path)

    async with asyncio.timeout(5):
        with pytest.raises(TemporarilyUnavailable):
            await ask(impatient)
        await ask(impatient)


@pytest.mark.parametrize("path", ["/klines", "/exchangeInfo", "/ticker/24hr"])
async def test_the_next_try_goes_well(market: Market, exchange: SimulatedExchange, path: str):
    exchange.fail("answer", status=503, path=path)

    with pytest.raises(TemporarilyUnavailable):
        await asyncio.gather(ask(market), market.ticker(BTC))
    await asyncio.gather(ask(market), market.ticker(BTC))


async def test_an_exchange_that_nobody_runs_is_unavailable(unused_port: int):
    market = open_market("simulated", base_url=f"http://127.0.0.1:{unused_port}")

    with pytest.raises(TemporarilyUnavailable):
        await market.clock()
    with pytest.raises(TemporarilyUnavailable):
        await market.ticker(BTC)
    await market.close()


async def test_a_closed_market_answers_nothing(exchange: SimulatedExchange):
    market = open_market("simulated", base_url=exchange.url)
    await market.ticker(BTC)
    await market.close()

    with pytest.raises(TemporarilyUnavailable, match="closed"):
        await market.ticker(BTC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BadSymbol", SymbolUnavailable),
        ("BadRequest", RequestRejected),
        ("NotSupported", RequestRejected),
        ("PermissionDenied", AuthenticationFailed),
        ("RateLimitExceeded", RateLimited),
        ("DDoSProtection", RateLimited),
        ("OnMaintenance", TemporarilyUnavailable),
        ("RequestTimeout", TemporarilyUnavailable),
        ("NullResponse", TemporarilyUnavailable),
        ("MarketClosed", TemporarilyUnavailable),
    ],
)
def test_ccxts_own_errors_have_their_counterparts(name: str, expected: type[IntegrationError]):
    kind = getattr(importlib.import_module("ccxt.base.errors"), name)

    with pytest.raises(IntegrationError) as caught, exchange_failures("ccxt:any"):
        raise kind("as told")
    assert type(caught.value) is expected
    assert str(caught.value) == "ccxt:any: as told"


def test_an_answer_that_broke_off_passes():
    kind = importlib.import_module("ccxt.base.errors").ExchangeError

    with pytest.raises(TemporarilyUnavailable), exchange_failures("ccxt:any"):
        raise kind("GET /klines") from RuntimeError("payload is not completed")


def test_a_defect_of_ours_is_not_the_exchanges():
    with pytest.raises(RuntimeError, match="ours"), exchange_failures("ccxt:any"):
        raise RuntimeError("ours")
