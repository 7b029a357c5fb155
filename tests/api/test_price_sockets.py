"""The prices of assets over real sockets, posted as a feed would."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from websockets.asyncio.client import connect

from api.realtime import prices, pulse
from events.prices import PriceBoard
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.prices import a_price, down, subscribed, told, url, watching
from tests.api.sockets import Address, Client, Frame, is_welcome, refusal, serving
from tests.api.world import World, opened_world


@pytest.fixture(scope="module")
def source() -> str:
    return f"ccxt:{uuid4().hex}"


@pytest.fixture(scope="module")
async def world(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, source: str
) -> AsyncIterator[World]:
    """A world whose prices have a source."""
    own = settings.model_copy(update={"market_data_source": source})
    async with opened_world(own, issuer, simulators_url) as world:
        yield world


@pytest.fixture(scope="module")
async def address(world: World) -> AsyncIterator[Address]:
    async with serving(world) as address:
        yield address


@pytest.fixture(autouse=True)
async def none_left(world: World) -> AsyncIterator[None]:
    """The sockets of one test do not count in the next."""
    yield
    async with asyncio.timeout(5):
        while world.services.relay.prices.count_sockets("127.0.0.1"):
            await asyncio.sleep(0.01)


@pytest.fixture
def asset() -> str:
    """An asset of this test alone."""
    return f"A{uuid4().hex[:12].upper()}/USDT"


@pytest.fixture
def board(world: World) -> PriceBoard:
    return PriceBoard(world.services.redis)


async def test_the_latest_price_comes_first_and_then_each_one(
    address: Address, board: PriceBoard, asset: str
):
    latest = a_price(asset)
    await board.post(latest)
    async with watching(address, asset) as client:
        first = await client.until("price")
        for number in range(3):
            await board.post(a_price(asset, 101.0 + number))
        while len(client.frames) < 4:
            await client.next()

    assert told(client) == [100.0, 101.0, 102.0, 103.0]
    assert "seq" not in first
    assert first["data"] == {
        "asset": asset,
        "price": 100.0,
        "bid": 99.0,
        "ask": 101.0,
        "change_24h": -2.5,
        "high_24h": None,
        "low_24h": None,
        "volume_24h": 7.0,
        "timestamp": latest.timestamp,
    }


async def test_the_name_may_be_written_in_any_case(address: Address, board: PriceBoard, asset: str):
    await board.post(a_price(asset))
    wanted = url(address, asset).replace("-usdt", "-UsDt")
    async with connect(wanted) as connection:
        price = await Client(connection).until("price")

    assert price["data"]["asset"] == asset


async def test_where_nothing_is_known_the_source_is_said_to_be_down(
    address: Address, asset: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prices, "PATIENCE_S", 0.5)
    async with watching(address, asset) as client, watching(address, asset) as other:
        status = await client.until("price_status", seconds=3)
        await other.until("price_status", seconds=3)
        async with watching(address, asset) as late:
            await late.until("price_status", seconds=1)

    assert (status["data"]["asset"], status["data"]["status"]) == (asset, "down")
    assert told(client) == told(other) == told(late) == ["down"]


async def test_a_price_of_more_than_a_minute_ago_is_not_sent(
    address: Address, board: PriceBoard, asset: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prices, "PATIENCE_S", 0.5)
    await board.post(a_price(asset, seconds_ago=61))
    async with watching(address, asset) as client:
        await client.until("price_status", seconds=3)

    assert told(client) == ["down"]


async def test_a_price_that_grows_too_old_is_followed_by_down_and_a_new_one_by_live(
    address: Address, board: PriceBoard, asset: str
):
    await board.post(a_price(asset, seconds_ago=58.5))
    async with watching(address, asset) as client:
        await client.until("price_status", seconds=4)
        await board.post(a_price(asset, 105.0))
        await client.until("price")

    assert told(client) == [100.0, "down", "live", 105.0]


async def test_a_source_that_is_down_is_said_to_be_so_once(
    address: Address, board: PriceBoard, asset: str
):
    await board.post(down(asset))
    async with watching(address, asset) as client:
        await client.until("price_status")
        await board.post(down(asset))
        await board.post(a_price(asset))
        await board.post(down(asset))
        await client.until("price")
        await client.until("price_status")

    assert told(client) == ["down", "live", 100.0, "down"]


async def test_a_sixth_socket_of_an_address_is_429_whatever_the_assets(
    address: Address, asset: str
):
    connections = [await connect(url(address, f"{asset}{number}")) for number in range(5)]
    await refusal(url(address, asset), 429)

    await connections.pop().close()
    async with asyncio.timeout(5):
        while not await is_welcome(url(address, asset)):
            await asyncio.sleep(0.02)
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize(
    "name", ["btcusdt", "btc-usdt-x", "btc_usdt", "-", f"{'x' * 21}-usdt", "%00"]
)
async def test_what_is_no_asset_is_404(address: Address, name: str):
    body = await refusal(f"ws://127.0.0.1:{address.port}/ws/prices/{name}", 404)

    assert '"error_code":"ASSET_NOT_FOUND"' in body


async def test_refusals_come_as_close_codes_to_those_who_ask(address: Address):
    wanted = f"ws://127.0.0.1:{address.port}/ws/prices/nothing?close_codes=spec"
    async with connect(wanted) as connection:
        assert await Client(connection).until_closed() == 4004


async def test_without_a_source_it_is_503(
    settings: ApiSettings, issuer: Issuer, simulators_url: str
):
    async with (
        opened_world(settings, issuer, simulators_url) as sourceless,
        serving(sourceless) as address,
    ):
        body = await refusal(url(address, "BTC/USDT"), 503)

    assert "no source of live prices" in body


async def test_clients_may_say_what_they_may_say_on_other_sockets(address: Address, asset: str):
    async with watching(address, asset) as client:
        await client.send({"action": "ping"})
        assert (await client.until("command_ack"))["data"] == {"action": "ping"}
        await client.send({"action": "pong"})
        for nonsense in ("not json", '{"action": "pause"}', '{"a": "' + "x" * 17_000 + '"}'):
            await client.send(nonsense)
            assert (await client.until("error"))["data"]["error_code"] == "INVALID_COMMAND"
        for _ in range(60):
            await client.send({"action": "ping"})
        code = await client.until_closed()

    assert code == 4010
    assert "RATE_LIMITED" in {frame["data"]["error_code"] for frame in client.of("error")}


async def test_heartbeats_come_by_themselves(
    address: Address, asset: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pulse, "HEARTBEAT_S", 0.2)
    async with watching(address, asset) as client:
        beats: list[Frame] = [await client.until("heartbeat", seconds=3) for _ in range(2)]

    assert beats[0]["data"]["server_time"] < beats[1]["data"]["server_time"]


async def test_a_client_that_reads_nothing_is_closed_and_delays_nobody(
    world: World, board: PriceBoard, asset: str
):
    config, relay = world.services.config, world.services.relay
    object.__setattr__(config, "socket_stall_limit_s", 1.0)
    async with (
        serving(world) as address,
        connect(url(address, asset), max_queue=1, compression=None) as deaf,
        watching(address, asset) as client,
    ):
        deaf.transport.pause_reading()
        posted = 0.0
        async with asyncio.timeout(20):
            while relay.prices.count_listeners(asset) > 1:
                posted += 1
                await board.post(a_price(asset, posted))
                while client.frames[-1:] == [] or client.frames[-1]["data"]["price"] < posted:
                    await client.next()
        deaf.transport.resume_reading()
        code = await Client(deaf).until_closed()
    object.__setattr__(config, "socket_stall_limit_s", 30.0)

    assert code == 1013
    assert told(client) == [float(number) for number in range(1, int(posted) + 1)]


async def test_all_sockets_of_an_asset_share_one_subscription_that_ends_with_them(
    world: World, address: Address, board: PriceBoard, asset: str
):
    async with watching(address, asset) as one, watching(address, asset) as two:
        await subscribed(board, asset)
        assert await board.listeners(asset) == 1
        assert world.services.relay.prices.count_listeners(asset) == 2
        await board.post(a_price(asset))
        assert (await one.until("price"))["data"] == (await two.until("price"))["data"]
    async with asyncio.timeout(5):
        while await board.listeners(asset):
            await asyncio.sleep(0.01)

    assert world.services.relay.prices.count_listeners(asset) == 0


async def test_a_feed_is_wanted_for_as_long_as_somebody_watches(
    address: Address,
    asset: str,
    source: str,
    temporal_client: TemporalClient,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(prices, "WANT_EVERY_S", 0.2)
    feed = temporal_client.get_workflow_handle(
        f"prices-{source.replace('ccxt', 'exchange')}-{asset}"
    )

    async def wishes() -> int:
        history = await feed.fetch_history()
        signaled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        return sum(event.event_type == signaled for event in history.events)

    async with watching(address, asset), watching(address, asset):
        await asyncio.sleep(1)
        while_watched = await wishes()
    await asyncio.sleep(0.3)
    at_the_end = await wishes()
    await asyncio.sleep(0.5)

    assert 3 <= while_watched <= 6
    assert await wishes() == at_the_end


async def test_without_temporal_prices_are_shown_as_redis_has_them(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, source: str, asset: str
):
    own = {"market_data_source": source, "temporal_address": "127.0.0.1:1"}
    async with (
        opened_world(settings.model_copy(update=own), issuer, simulators_url) as world,
        serving(world) as address,
        watching(address, asset) as client,
    ):
        board = PriceBoard(world.services.redis)
        await subscribed(board, asset)
        await board.post(a_price(asset))
        await client.until("price")

    assert told(client) == [100.0]
