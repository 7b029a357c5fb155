"""A backtest as its user lives it: started over REST, watched on a socket, read as a result."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import Client as TemporalClient

from activities import ai_summaries, model_calls
from api.controls import STOP_PATIENCE
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.sockets import Address, serving
from tests.api.world import Person, World, created, error_of, staffed_world, upload
from tests.laboratory import walk
from tests.loopback import eventually

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
async def staffed(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, temporal_client: TemporalClient
) -> AsyncIterator[World]:
    """A world with a worker."""
    async with staffed_world(settings, issuer, simulators_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="module")
async def address(staffed: World) -> AsyncIterator[Address]:
    async with serving(staffed) as address:
        yield address


@pytest.fixture
async def ada(staffed: World) -> AsyncIterator[Person]:
    async with staffed.person() as person:
        yield person


@pytest.fixture
async def agent(ada: Person) -> dict[str, Any]:
    await ada.add_key()
    await upload(ada)
    return await ada.add_agent()


async def test_a_backtest_from_start_to_result(
    staffed: World, address: Address, ada: Person, agent: dict[str, Any]
) -> None:
    session = created(
        await ada.start(agent["id"], decision_mode="every_n_candles", decision_interval_candles=4)
    )["session"]
    async with (
        address.watch(session["id"], ada.token, last_seq=0) as counting,
        address.watch(session["id"], ada.token) as plain,
    ):
        codes = await asyncio.gather(
            counting.until_closed(seconds=60), plain.until_closed(seconds=60)
        )

    assert set(codes) == {1000}
    seqs = counting.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert [frame["data"]["index"] for frame in counting.of("candle")] == list(range(48))
    decided = [frame["data"]["candle_index"] for frame in counting.of("ai_decision")]
    assert decided == list(range(0, 48, 4))
    stamps = [frame["timestamp"] for frame in counting.frames if "seq" in frame]
    assert stamps == sorted(set(stamps))
    assert plain.names()[-1] == counting.names()[-1] == "session_completed"

    shown = (await ada.get(f"/api/arena/backtest/{session['id']}")).json()["session"]
    assert (shown["status"], shown["current_candle"], shown["decisions_count"]) == (
        "completed",
        48,
        12,
    )
    end = counting.frames[-1]["data"]
    assert end["result_id"] == shown["result_id"]
    await check_result(ada, shown["result_id"], session, counting.of("position_closed"))


async def check_result(
    ada: Person, result_id: str, session: dict[str, Any], closed: list[dict[str, Any]]
) -> None:
    result = (await ada.get(f"/api/results/{result_id}")).json()["result"]
    listed = (await ada.get("/api/results")).json()
    trades = (await ada.get(f"/api/results/{result_id}/trades")).json()
    reasoning = (await ada.get(f"/api/results/{result_id}/reasoning?limit=5")).json()

    assert result["session_id"] == session["id"]
    assert result["max_drawdown_pct"] >= 0
    assert result["data_fingerprint"] == walk(240).slice(48, 96).fingerprint()
    times = [point["time"] for point in result["equity_curve"]]
    assert times == sorted(set(times))
    assert [each["id"] for each in listed["results"]] == [result_id]
    assert listed["pagination"] == {"page": 1, "limit": 20, "total": 1, "total_pages": 1}
    assert trades["summary"]["total"] == result["total_trades"] == len(closed)
    assert [trade["id"] for trade in trades["trades"]] == [
        frame["data"]["trade_id"] for frame in closed
    ]
    assert reasoning["reasoning"] == reasoning["thoughts"]
    assert reasoning["total_entries"] == 12
    assert len(reasoning["thoughts"]) == 5
    thought = reasoning["thoughts"][1]
    assert thought["indicators"] == thought["indicator_values"]
    assert (thought["candle_number"], thought["model"]) == (4, "simulated/momentum")


async def test_a_test_is_summed_up_where_that_was_asked_for(
    address: Address, ada: Person, agent: dict[str, Any]
) -> None:
    every_16th = {"decision_mode": "every_n_candles", "decision_interval_candles": 16}
    asked, plain = [
        created(await ada.start(agent["id"], **every_16th, **more))["session"]
        for more in ({"ai_summary": True}, {})
    ]
    assert (asked["ai_summary"], plain["ai_summary"]) == (True, False)

    async def shown(session: dict[str, Any]) -> Any:
        path = f"/api/arena/backtest/{session['id']}"
        result_id = (await ada.get(path)).json()["session"]["result_id"]
        if result_id is None:
            return {"ai_summary": None}
        return (await ada.get(f"/api/results/{result_id}")).json()["result"]

    async def is_summed_up() -> bool:
        return (await shown(asked))["ai_summary"] is not None

    await eventually(is_summed_up, seconds=30)
    result = await shown(asked)
    assert (
        f"buying and holding came to {result['buy_and_hold_return_pct']:.6g} %"
        in result["ai_summary"]
    )
    assert (await shown(plain))["ai_summary"] is None


async def test_a_stop_does_not_wait_for_the_summary(
    staffed: World, ada: Person, agent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_calls, "CANCELLATION_GRACE_S", 0.1)
    monkeypatch.setattr(ai_summaries, "HTTP_TIMEOUT_S", 3.0)
    silent = await ada.add_agent("Silent", model="simulated/momentum:hang")
    session = created(await ada.start(silent["id"], ai_summary=True))["session"]
    path = f"/api/arena/backtest/{session['id']}"

    async def is_asked() -> bool:
        return bool((await ada.get(path)).json()["session"]["current_candle"])

    await eventually(is_asked, seconds=30)
    async with asyncio.timeout(STOP_PATIENCE.total_seconds() - 1):
        stopped = await ada.post(f"{path}/stop")

    assert (stopped.status_code, stopped.json()["status"]) == (200, "completed")
    assert stopped.json()["result_id"] is not None
    assert await staffed.services.temporal.is_running(UUID(session["id"]))


async def test_pause_resume_and_stop_over_both_ways(
    address: Address, ada: Person, agent: dict[str, Any]
) -> None:
    session = created(await ada.start(agent["id"], playback_speed="slow"))["session"]
    path = f"/api/arena/backtest/{session['id']}"
    async with address.watch(session["id"], ada.token, last_seq=0) as client:
        await client.until("candle", seconds=30)
        paused = await ada.post(f"{path}/pause")
        await client.until("session_paused")
        status = (await ada.get(path)).json()["session"]
        await client.send({"action": "change_speed", "data": {"speed": "fast"}})
        await client.until("speed_changed")
        await client.send({"action": "resume"})
        await client.until("session_resumed")
        await client.until("candle")
        stopped = await ada.post(f"{path}/stop", {"close_position": True})
        code = await client.until_closed(seconds=20)

    assert paused.json()["status"] == "paused"
    assert (status["status"], status["pause_reason"]) == ("paused", "user")
    assert status["playback_speed"] == "slow"
    assert (stopped.status_code, stopped.json()["status"]) == (200, "completed")
    assert code == 1000
    assert client.seqs() == list(range(1, len(client.seqs()) + 1))
    again = await ada.post(f"{path}/stop", {"close_position": False})
    assert again.json() == stopped.json()
    error_of(await ada.post(f"{path}/pause"), 409, "SESSION_FINISHED")
    assert (await ada.get(path)).json()["session"]["status"] == "completed"


async def test_an_agent_is_not_removed_under_its_test(ada: Person, agent: dict[str, Any]) -> None:
    session = created(await ada.start(agent["id"], playback_speed="slow"))["session"]

    error_of(await ada.delete(f"/api/agents/{agent['id']}"), 409, "AGENT_BUSY")
    await ada.post(f"/api/arena/backtest/{session['id']}/stop")
    deleted = await ada.delete(f"/api/agents/{agent['id']}")

    assert deleted.json()["message"] == "Agent deleted"
    listed = (await ada.get("/api/results")).json()["results"]
    assert [(each["agent_name"], each["agent_id"]) for each in listed] == [(agent["name"], None)]


async def test_another_users_result_does_not_exist(
    staffed: World, ada: Person, agent: dict[str, Any]
) -> None:
    session = created(await ada.start(agent["id"], playback_speed="slow"))["session"]
    stopped = await ada.post(f"/api/arena/backtest/{session['id']}/stop")
    path = f"/api/results/{stopped.json()['result_id']}"

    assert (await ada.get(path)).status_code == 200
    async with staffed.person() as bob:
        for answer in (
            await bob.get(path),
            await bob.get(f"{path}/trades"),
            await bob.get(f"{path}/reasoning"),
        ):
            error_of(answer, 404, "RESULT_NOT_FOUND")
        assert (await bob.get("/api/results")).json()["results"] == []
