"""A laboratory without workers, a machine whose processes can be killed, and an ear on Redis."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from redis.asyncio import Redis

from db.engine import Database
from integrations.exchanges.exchange_market import open_market
from integrations.exchanges.market import Market
from integrations.storage.objects import open_store
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from local.simulators.openrouter import create_app
from tests.activities.cases import first_close
from tests.activities.experiments import Bench
from tests.activities.listening import Listener, listening
from tests.activities.processes import Machine
from tests.laboratory import Laboratory
from tests.loopback import serve_app
from trading.candles import Timeframe


@pytest.fixture(scope="session")
def openrouter_url() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@pytest.fixture(scope="session")
async def server(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A superuser's connection: it sees and writes every row."""
    connection = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def listener(redis_url: str) -> AsyncIterator[Listener]:
    async with listening(redis_url) as listener:
        yield listener


@pytest.fixture(scope="session")
async def laboratory(
    database: Database,
    redis_url: str,
    openrouter_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Laboratory]:
    async with httpx.AsyncClient() as http, Redis.from_url(redis_url) as redis:
        laboratory = Laboratory(
            database=database,
            redis=redis,
            client=None,  # type: ignore[arg-type]  # nothing here goes through Temporal
            task_queue="none",
            openrouter_url=openrouter_url,
            http=http,
            storage=open_store(str(tmp_path_factory.mktemp("storage"))),
        )
        await laboratory.sign_up()
        yield laboratory


@pytest.fixture(scope="session")
async def market() -> AsyncIterator[Any]:
    """A simulated exchange at which it is a minute and a half past the first candle of a test."""
    clock = ExchangeClock(speed=0.0)
    clock.set(now_ms=int(first_close().timestamp() * 1000) + 90_000)
    with serve_app(exchange_server.create_app(clock)) as url:
        market: Any = open_market("simulated", base_url=url)
        # What ccxt loads once is no part of the attempts that are interrupted.
        await market.forming("BTC/USDT", Timeframe.HOUR_1)
        # Its rate limiter is a task that dies with the attempt that happens to start it, whereas
        # processes share this connection.
        market._connection._exchange.enableRateLimit = False
        yield market
        await market.close()


@pytest.fixture(scope="session")
async def machine(
    postgres_url: str,
    redis_url: str,
    laboratory: Laboratory,
    server: psycopg.AsyncConnection[Any],
    market: Market,
) -> AsyncIterator[Machine]:
    # Few connections: an interrupted attempt that keeps one is noticed soon.
    database = Database.connect(postgres_url, pool_size=2)
    yield Machine(
        laboratory=laboratory,
        database=database,
        server=server,
        redis_url=redis_url,
        market=market,
    )
    await database.dispose()


@pytest.fixture
async def bench(
    laboratory: Laboratory,
    machine: Machine,
    server: psycopg.AsyncConnection[Any],
    listener: Listener,
) -> AsyncIterator[Bench]:
    yield Bench(
        laboratory=laboratory,
        machine=machine,
        server=server,
        listener=listener,
        contexts=laboratory.activities().sessions._contexts,
    )
    await machine.end()
