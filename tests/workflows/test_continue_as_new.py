"""A history that grows long goes on as a new run, and nobody notices."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from temporalio.api.enums.v1 import EventType

from activities import decisions, model_calls
from local.servers import TemporalServer
from migrations.namespace import upgrade_namespace
from tests.conftest import TEMPORAL_NAMESPACE
from tests.laboratory import Laboratory, Plan
from tests.workflows.conftest import Connections
from workflows.runtime import connect, workflow_id

SUGGESTED_AT = 80
LONG = Plan(candles=300, model="simulated/flip", interval=10)
SIGNALS = 20


@pytest.fixture(scope="module")
async def forgetful(servers_dir: Path, connections: Connections) -> AsyncIterator[Laboratory]:
    """A laboratory on a Temporal that suggests a new run after few events."""
    server = TemporalServer(
        servers_dir / "forgetful-temporal",
        dynamic_config={"limit.historyCount.suggestContinueAsNew": str(SUGGESTED_AT)},
    )
    server.start()
    try:
        await upgrade_namespace(server.address, TEMPORAL_NAMESPACE)
        client = await connect(server.address, namespace=TEMPORAL_NAMESPACE)
        laboratory = replace(connections, client=client).laboratory("forgetful")
        await laboratory.sign_up()
        async with laboratory.worker():
            yield laboratory
    finally:
        server.stop()


async def signal_often(laboratory: Laboratory, session_id: UUID) -> None:
    """A signal now and then, from the first candles to the last: some meet a change of runs."""
    for number in range(SIGNALS):
        await laboratory.stepped(session_id, number * 300 // SIGNALS)
        await laboratory.temporal.signal_speed(session_id, f"speed-{number}", "instant")


async def test_a_test_of_many_runs_ends_as_one_of_a_single_run(forgetful: Laboratory):
    session_id = await forgetful.started(LONG)
    await asyncio.gather(signal_often(forgetful, session_id), forgetful.ended(session_id))

    plain = await forgetful.plain(LONG)
    row = await forgetful.session_row(session_id)
    assert row["status"] == "completed"
    assert row["epoch"] >= 8, "each run claims the session under a new epoch"
    assert await forgetful.trades(session_id) == await forgetful.trades(plain) != []
    assert await forgetful.decisions(session_id) == await forgetful.decisions(plain)
    events = await forgetful.streamed(session_id)
    assert [event.seq for event in events] == list(range(1, row["last_seq"] + 1))
    timestamps = [event.timestamp for event in events]
    assert timestamps == sorted(set(timestamps))
    assert len([event for event in events if event.event == "speed_changed"]) == SIGNALS


async def test_every_run_stays_short_and_names_the_one_before(forgetful: Laboratory):
    plan = Plan(candles=30, model="simulated/hold")
    session_id = await forgetful.run(plan)

    handle = forgetful.client.get_workflow_handle(workflow_id(session_id))
    runs = 0
    run_id = ""
    while True:
        history = await forgetful.client.get_workflow_handle(
            handle.id, run_id=run_id or None
        ).fetch_history()
        runs += 1
        assert len(history.events) < SUGGESTED_AT + 30
        started = history.events[0].workflow_execution_started_event_attributes
        if not (run_id := started.continued_execution_run_id):
            break
    assert runs == (await forgetful.session_row(session_id))["epoch"] >= 4


async def test_a_turn_goes_along_into_the_next_run_and_ends_with_a_pause(
    forgetful: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decisions, "TURN_PATIENCE_S", 0.01)
    monkeypatch.setattr(decisions, "TURN_PAUSE_S", 0.01)
    monkeypatch.setattr(model_calls, "CANCELLATION_GRACE_S", 0.0)
    crowded = replace(forgetful, task_queue="crowded", max_decisions_per_key=1)
    async with crowded.worker(grace=0.0):
        busy = await crowded.started(Plan(candles=1, model="simulated/hold:hang"))
        await crowded.reached(busy, lambda row: row["cursor"] == 1)
        while not await crowded.rows("SELECT 1 FROM model_calls WHERE session_id = :id", busy):
            await asyncio.sleep(0.01)
        session_id = await crowded.started(Plan(candles=1))
        await crowded.reached(session_id, lambda row: row["epoch"] >= 2)
        first = crowded.client.get_workflow_handle(workflow_id(session_id))
        first_run = (await first.describe()).raw_description.workflow_execution_info.first_run_id
        turn, *same = await turns(crowded, session_id, first_run)

        assert await turned_again(crowded, session_id, lambda since: since == turn)
        await crowded.temporal.signal_pause(session_id, "a-pause")
        await crowded.paused(session_id)
        await crowded.temporal.signal_resume(session_id, "a-resume")
        assert await turned_again(crowded, session_id, lambda since: since > turn)

    assert set(same) == {turn}


async def turned_again(
    laboratory: Laboratory, session_id: UUID, condition: Callable[[float], bool]
) -> bool:
    """Whether the newest turn of the newest run comes to meet the condition."""
    async with asyncio.timeout(10):
        while True:
            newest = await turns(laboratory, session_id, None)
            if newest and condition(newest[-1]):
                return True
            await asyncio.sleep(0.02)


async def turns(laboratory: Laboratory, session_id: UUID, run_id: str | None) -> list[float]:
    """Since when the decisions that a run asked for have waited."""
    handle = laboratory.client.get_workflow_handle(workflow_id(session_id), run_id=run_id)
    scheduled = [
        event.activity_task_scheduled_event_attributes
        for event in (await handle.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    return [
        json.loads(each.input.payloads[0].data)["turn"]["since"]
        for each in scheduled
        if each.activity_type.name == "request_decision"
    ]
