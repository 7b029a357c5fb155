"""A forward test as its user lives it: earned by a backtest, started, watched, stopped."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from local.issuer import Issuer
from settings import ApiSettings
from tests.api.live import rising
from tests.api.prices import watching as watching_price
from tests.api.sockets import Address, serving
from tests.api.world import Person, World, created, error_of, opened_world, upload

pytestmark = pytest.mark.system

# Not the asset of other tests: a live data set is there for everybody's backtests.
LIVE = {"asset": "link-usdt", "timeframe": "1h", "starting_capital": 10_000}


@pytest.fixture(scope="module")
async def address(live: World) -> AsyncIterator[Address]:
    async with serving(live) as address:
        yield address


@pytest.fixture
async def ada(live: World) -> AsyncIterator[Person]:
    async with live.person() as person:
        yield person


async def proven_agent(ada: Person, address: Address) -> dict[str, Any]:
    """An agent with a profitable backtest."""
    await ada.add_key()
    await upload(ada, rising())
    agent = await ada.add_agent(model="simulated/always-long")
    session = created(await ada.start(agent["id"], end_date="2024-01-03"))["session"]
    async with address.watch(session["id"], ada.token) as watching:
        await watching.until_closed(seconds=60)
    return agent


async def test_a_forward_test_needs_a_profitable_backtest(ada: Person):
    await ada.add_key()
    agent = await ada.add_agent()
    answer = await ada.post("/api/arena/forward/start", LIVE | {"agent_id": agent["id"]})
    error_of(answer, 409, "NO_PROFITABLE_BACKTEST")


async def test_a_forward_test_from_start_to_result(ada: Person, address: Address):
    agent = await proven_agent(ada, address)
    body = LIVE | {"agent_id": agent["id"], "auto_stop_on_loss": True, "auto_stop_loss_pct": 50}
    session = created(await ada.post("/api/arena/forward/start", body))["session"]
    path = f"/api/arena/forward/{session['id']}"
    assert session["status"] == "running"
    assert session["websocket_url"].endswith(f"/ws/forward/{session['id']}")
    listed = (await ada.get("/api/arena/forward/active")).json()["sessions"]
    assert [each["id"] for each in listed] == [session["id"]]

    async with address.watch(session["id"], ada.token, last_seq=0, type="forward") as watching:
        for _ in range(3):
            await watching.until("ai_decision", seconds=60)
        shown = (await ada.get(path)).json()["session"]
        assert (shown["type"], shown["status"]) == ("forward", "running")
        assert shown["uptime_pct"] >= 50
        assert shown["next_candle_eta"] is not None
        stopped = (await ada.post(f"{path}/stop", {"close_position": True})).json()
        assert await watching.until_closed(seconds=30) == 1000

    assert (stopped["status"], stopped["position_closed"]) == ("completed", True)
    names = watching.names()
    live = {"price_update", "position_update", "countdown_update"}
    assert live < set(names)
    assert live.isdisjoint(names[: names.index("replay_complete")])
    assert names[:2] == ["session_initialized", "session_started"]
    assert names[-2:] == ["session_stopped", "session_completed"]
    assert [frame["data"]["index"] for frame in watching.of("candle_closed")] == list(
        range(len(watching.of("candle")))
    )
    seqs = watching.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    result = (await ada.get(f"/api/results/{stopped['result_id']}")).json()["result"]
    assert result["type"] == "forward"
    assert (await ada.post(f"{path}/stop")).json() == stopped
    error_of(await ada.post(f"{path}/pause"), 409, "SESSION_FINISHED")


async def test_one_feed_serves_everybody_who_watches_an_asset(
    ada: Person, address: Address, exchange_url: str
):
    agent = await proven_agent(ada, address)
    sol = LIVE | {"asset": "sol-usdt", "agent_id": agent["id"]}
    async with httpx.AsyncClient(base_url=exchange_url) as exchange:
        before = (await exchange.get("/debug/requests")).json()["by_path"].get("/ws", 0)
        session = created(await ada.post("/api/arena/forward/start", sol))["session"]
        async with (
            watching_price(address, "SOL/USDT") as one,
            watching_price(address, "SOL/USDT") as two,
            address.watch(session["id"], ada.token, type="forward") as test,
        ):
            for client in (one, two):
                await client.until("price")
            price = (await one.until("price"))["data"]
            update = await test.until("price_update")
            countdown = (await test.until("countdown_update"))["data"]
        after = (await exchange.get("/debug/requests")).json()["by_path"]["/ws"]
    await ada.post(f"/api/arena/forward/{session['id']}/stop")

    assert after - before == 1
    assert 0 < price["bid"] < price["price"] < price["ask"]
    assert update["data"]["price"] == pytest.approx(price["price"], rel=0.2)
    # An hour of the exchange takes a second.
    assert 0 <= countdown["seconds_remaining"] <= 1
    assert countdown["display"] == "0:01"
    assert countdown["next_candle_at"].endswith(":00:00.000Z")
    assert 1 <= countdown["next_ai_intervention_minutes"] <= 60


async def test_another_users_forward_test_and_a_backtest_under_this_path_are_not_found(
    live: World, ada: Person, address: Address
):
    agent = await proven_agent(ada, address)
    started = created(await ada.post("/api/arena/forward/start", LIVE | {"agent_id": agent["id"]}))[
        "session"
    ]
    path = f"/api/arena/forward/{started['id']}"
    async with live.person() as bob:
        error_of(await bob.get(path), 404, "SESSION_NOT_FOUND")
        error_of(await bob.post(f"{path}/stop"), 404, "SESSION_NOT_FOUND")
    for action in ("pause", "resume", "stop"):
        wrong = f"/api/arena/backtest/{started['id']}/{action}"
        error_of(await ada.post(wrong), 404, "SESSION_NOT_FOUND")
    await ada.post(f"{path}/stop")


async def test_a_start_that_cannot_be_meant_is_refused(ada: Person, address: Address):
    agent = await proven_agent(ada, address)
    for wrong in ({"fill_timing": "close"}, {"auto_stop_on_loss": True, "auto_stop_loss_pct": 0}):
        answer = await ada.post(
            "/api/arena/forward/start", LIVE | {"agent_id": agent["id"]} | wrong
        )
        error_of(answer, 422, "VALIDATION_ERROR")


async def test_plans_limit_tests_of_both_kinds_at_once(
    live: World, issuer: Issuer, settings: ApiSettings, ada: Person, address: Address
):
    agent = await proven_agent(ada, address)
    config = live.services.config
    production = settings.model_copy(
        update={
            "environment": "production",
            "temporal_task_queue": live.services.temporal._task_queue,
            "market_data_source": (config.market_source or "").replace("exchange:", "ccxt:"),
        }
    )
    body = LIVE | {"agent_id": agent["id"]}
    async with opened_world(production, issuer, live.issuer_url) as strict:
        person = strict.again(ada)
        answers = await asyncio.gather(
            *(person.post("/api/arena/forward/start", body) for _ in range(4)),
            *(person.start(agent["id"], playback_speed="slow") for _ in range(4)),
        )

    started = [answer.json()["session"] for answer in answers if answer.status_code == 201]
    for session in started:
        kind = "forward" if session["websocket_url"].find("/ws/forward/") > 0 else "backtest"
        await ada.post(f"/api/arena/{kind}/{session['id']}/stop", {"close_position": True})
    assert len(started) == 3
    for answer in answers:
        if answer.status_code != 201:
            error_of(answer, 409, "TOO_MANY_ACTIVE_TESTS")
