"""Redis may die at any time: watchers miss nothing, and go on live when it is back."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from events.prices import PriceBoard
from local.issuer import Issuer
from local.servers import RedisServer
from settings import ApiSettings
from tests.api.prices import a_price, subscribed, told, watching
from tests.api.sockets import Address, Tape, recorded, serving
from tests.api.world import Person, World, opened_world


@pytest.fixture
def mortal_redis(servers_dir: Path) -> Iterator[RedisServer]:
    # A directory of its own: servers that are neighbours share their sockets' directory.
    server = RedisServer(servers_dir / uuid4().hex[:6] / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def world(
    settings: ApiSettings, mortal_redis: RedisServer, issuer: Issuer, simulators_url: str
) -> AsyncIterator[World]:
    lost = {"redis_url": SecretStr(mortal_redis.url), "market_data_source": "ccxt:any"}
    own = settings.model_copy(update=lost)
    async with opened_world(own, issuer, simulators_url) as world:
        yield world


@pytest.fixture
async def address(world: World) -> AsyncIterator[Address]:
    async with serving(world) as address:
        yield address


@pytest.fixture
async def tape(world: World, ada: Person) -> Tape:
    return await recorded(world, ada, end_date="2024-01-10")


async def test_watchers_miss_nothing_while_redis_is_away_and_after(
    mortal_redis: RedisServer, address: Address, tape: Tape, ada: Person
) -> None:
    async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
        await client.until("replay_complete")
        await tape.step(3)
        await client.until_seq(6)
        mortal_redis.stop()
        await tape.step(3)
        await client.until_seq(12, seconds=5)
        async with address.watch(tape.session_id, ada.token, last_seq=4) as late:
            await late.until("replay_complete", seconds=10)
        mortal_redis.start()
        await tape.step(3)
        await client.until_seq(18, seconds=10)

    assert client.seqs() == list(range(1, 19))
    assert late.seqs() == list(range(5, 13))


async def test_prices_go_on_when_redis_is_back(mortal_redis: RedisServer, address: Address) -> None:
    asset = f"A{uuid4().hex[:12].upper()}/USDT"
    async with Redis.from_url(mortal_redis.url) as feed, watching(address, asset) as client:
        board = PriceBoard(feed)
        await subscribed(board, asset)
        await board.post(a_price(asset, 1.0))
        await client.until("price")
        mortal_redis.stop()
        mortal_redis.start()
        await feed.connection_pool.disconnect()
        await board.post(a_price(asset, 2.0))
        await client.until("price")

    assert told(client) == [1.0, 2.0]


async def test_everything_else_works_without_redis(
    mortal_redis: RedisServer, world: World, ada: Person
) -> None:
    mortal_redis.stop()

    assert (await ada.get("/api/agents")).status_code == 200
    ready = await ada.get("/api/ready")

    assert (ready.status_code, ready.json()["redis"]) == (503, "down")
    mortal_redis.start()
