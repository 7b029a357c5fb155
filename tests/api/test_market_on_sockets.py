"""The market on the sockets of forward tests: beside the durable events, never before them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from api.realtime import prices
from api.realtime.endings import end_tasks
from api.realtime.prices import PriceRelay
from events.prices import PriceBoard
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.prices import a_price, down, subscribed
from tests.api.prices import watching as watching_prices
from tests.api.sockets import Address, Client, Tape, recorded, serving
from tests.api.world import Person, World, opened_world

LIVE = {"price_update", "position_update", "countdown_update", "price_status"}
MAKE_FORWARD = text("UPDATE trading_sessions SET type = 'forward', asset = :asset WHERE id = :id")
# All that is uploaded: nothing has to be fetched.
COVERED: dict[str, Any] = {"end_date": "2024-01-10"}
ENTRY = "2024-01-01T02:00:00.000Z"
POSITION = {
    "type": "short",
    "entry_price": 100.0,
    "size": 2.0,
    "leverage": 4.0,
    "stop_loss": 110.0,
    "take_profit": 72.0,
    "opened_at": ENTRY,
    "unrealized_pnl": 0.0,
}
OPENED = {"event": "position_opened", "data": POSITION | {"entry_time": ENTRY, "candle_index": 0}}
CLOSED = {
    "event": "position_closed",
    "data": {
        "trade_id": "t1",
        "type": "short",
        "exit_type": "signal",
        "pnl_amount": 1.0,
        "entry_time": ENTRY,
    },
}
STOPPED = {"event": "session_stopped", "data": {"stopped_at": "t", "reason": "stopped"}}
COMPLETED = {"event": "session_completed", "data": {"session_id": "s", "final_stats": {}}}


@pytest.fixture(scope="module")
async def world(settings: ApiSettings, issuer: Issuer, simulators_url: str) -> AsyncIterator[World]:
    """A world whose prices have a source."""
    own = settings.model_copy(update={"market_data_source": f"ccxt:{uuid4().hex}"})
    async with opened_world(own, issuer, simulators_url) as world:
        yield world


@pytest.fixture(scope="module")
async def address(world: World) -> AsyncIterator[Address]:
    async with serving(world) as address:
        yield address


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A forward test on an asset of its own, and the prices that a feed would post."""

    address: Address
    prices: PriceRelay
    board: PriceBoard
    tape: Tape
    token: str
    asset: str

    @asynccontextmanager
    async def watched(self, *, last_seq: int | None = 0) -> AsyncIterator[Client]:
        async with self.address.watch(
            self.tape.session_id, self.token, last_seq=last_seq, type="forward"
        ) as client:
            yield client

    async def post(self, price: float = 100.0) -> None:
        await self.board.post(a_price(self.asset, price))

    async def listeners(self) -> int:
        return await self.board.listeners(self.asset)

    async def subscribed(self) -> None:
        await subscribed(self.board, self.asset)

    @asynccontextmanager
    async def ticking(self) -> AsyncIterator[None]:
        """Post a price every few milliseconds while the block lasts."""

        async def tick() -> None:
            while True:
                await self.post()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(tick())
        try:
            yield
        finally:
            await end_tasks([task])


@pytest.fixture
async def scene(world: World, address: Address, ada: Person) -> Scene:
    asset = f"A{uuid4().hex[:12].upper()}/USDT"
    tape = await recorded(world, ada, **COVERED)
    async with world.services.database.as_system() as session:
        await session.execute(MAKE_FORWARD, {"id": tape.session_id, "asset": asset})
    return Scene(
        address=address,
        prices=world.services.relay.prices,
        board=PriceBoard(world.services.redis),
        tape=tape,
        token=ada.token,
        asset=asset,
    )


@pytest.mark.parametrize("last_seq", [None, 0])
async def test_nothing_live_comes_before_the_replay_is_complete(scene: Scene, last_seq: int | None):
    await scene.tape.step(240, open_position=POSITION)
    async with scene.ticking(), scene.watched() as earlier:
        await earlier.until("price_update")
        # The price is known in this process from the first moment on.
        async with scene.watched(last_seq=last_seq) as client:
            await client.until("countdown_update")

    names = client.names()
    assert LIVE.isdisjoint(names[: names.index("replay_complete")])
    assert names[names.index("replay_complete") + 1 :] == [
        "price_update",
        "position_update",
        "countdown_update",
    ]


async def test_durable_events_stay_whole_and_in_order_among_prices(scene: Scene):
    async with scene.ticking(), scene.watched() as client:
        await client.until("replay_complete")
        began = monotonic()
        for _ in range(60):
            await scene.tape.step()
            await asyncio.sleep(0.02)
        await client.until_seq(120)
        seconds = monotonic() - began

    seqs = client.seqs()
    assert seqs == list(range(1, 121))
    live = [frame for frame in client.frames if frame["event"] in LIVE]
    assert all("seq" not in frame for frame in live)
    # More than a second of prices every 5 ms: four of them a second are shown.
    assert 4 <= len(client.of("price_update")) <= 4 * seconds + 8
    assert len({frame["timestamp"] for frame in live}) == len(live)


async def test_a_position_is_followed_between_two_closes(scene: Scene):
    await scene.tape.step()
    async with scene.watched() as client:
        await client.until("replay_complete")
        await scene.subscribed()
        await scene.post(90.0)
        await client.until("countdown_update")
        await scene.tape.note([OPENED])
        update = await client.until("position_update")
        await scene.tape.note([CLOSED])
        await client.until("position_closed")
        closed_at = len(client.frames)
        await scene.post(91.0)
        await client.until("price_update")
        await client.until("countdown_update")

    assert client.names().index("position_opened") < client.names().index("position_update")
    assert update["data"] == {
        "current_price": 90.0,
        "entry_price": 100.0,
        "unrealized_pnl_amount": 20.0,
        "unrealized_pnl_pct": 40.0,
        "distance_to_sl_pct": pytest.approx(100 * 20 / 90),
        "distance_to_tp_pct": pytest.approx(20.0),
    }
    assert "position_update" not in client.names()[closed_at:]


async def test_a_client_that_comes_later_is_told_of_the_open_position(scene: Scene):
    await scene.tape.step(open_position=POSITION)
    await scene.post(100.0)
    async with scene.watched(last_seq=scene.tape.last_seq) as client:
        update = await client.until("position_update")

    assert update["data"]["unrealized_pnl_amount"] == 0.0


async def test_a_source_that_is_down_or_unknown_is_said_to_be_down(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prices, "PATIENCE_S", 0.3)
    async with scene.watched() as client:
        await client.until("price_status", seconds=3)
        await scene.post()
        await client.until("price_update")
        await scene.board.post(down(scene.asset))
        await client.until("price_status")

    told = [frame["data"]["status"] for frame in client.of("price_status")]
    assert told == ["down", "live", "down"]


async def test_after_the_stop_nothing_live_comes_and_the_feed_is_let_go(scene: Scene):
    async with scene.ticking(), scene.watched() as client:
        await client.until("price_update")
        await scene.tape.step()
        await scene.tape.note([STOPPED])
        await client.until("session_stopped")
        await asyncio.sleep(1.2)
        await scene.tape.note([COMPLETED], status="completed")
        code = await client.until_closed()

    assert (code, client.names()[-2:]) == (1000, ["session_stopped", "session_completed"])
    async with asyncio.timeout(5):
        while await scene.listeners() or scene.prices.count_listeners(scene.asset):
            await asyncio.sleep(0.01)


async def test_a_finished_test_shows_no_market(scene: Scene):
    await scene.tape.step()
    await scene.tape.note([COMPLETED], status="completed")
    await scene.post()
    async with scene.watched() as client:
        await client.until_closed()

    assert LIVE.isdisjoint(client.names())
    assert not await scene.listeners()


async def test_a_backtest_has_no_market(world: World, address: Address, ada: Person):
    tape = await recorded(world, ada, **COVERED)
    async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
        await client.until("replay_complete")
        await PriceBoard(world.services.redis).post(a_price("BTC/USDT"))
        assert not world.services.relay.prices.count_listeners("BTC/USDT")
        await tape.step()
        await client.until_seq(2)
        await asyncio.sleep(0.3)
        await tape.step()
        await client.until_seq(4)

    assert LIVE.isdisjoint(client.names())


async def test_both_kinds_of_sockets_share_a_subscription(scene: Scene):
    async with (
        scene.watched() as test,
        watching_prices(scene.address, scene.asset) as price,
    ):
        await scene.subscribed()
        await test.until("replay_complete")
        assert await scene.listeners() == 1
        assert scene.prices.count_listeners(scene.asset) == 2
        await scene.post(77.0)
        shown: list[Any] = [
            (await test.until("price_update"))["data"]["price"],
            (await price.until("price"))["data"]["price"],
        ]

    assert shown == [77.0, 77.0]
