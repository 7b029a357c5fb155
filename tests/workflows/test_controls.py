"""What the user asks of a running test: pause, resume, speed, stop."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType

from activities import model_calls as calls
from api.controls import Controls
from api.errors import NotFound
from tests.laboratory import Laboratory, Plan
from workflows import policies
from workflows.backtest import BacktestWorkflow
from workflows.runtime import WorkflowFinished, workflow_id

FLIP = Plan(candles=14, model="simulated/flip")
LONG = Plan(candles=40, model="simulated/always-long")


async def activities_between(
    laboratory: Laboratory, session_id: UUID, signal: str, until: str
) -> list[str]:
    """The activities that were scheduled after a signal had arrived, up to one of them."""
    handle = laboratory.client.get_workflow_handle(workflow_id(session_id))
    scheduled: list[str] = []
    has_arrived = False
    for event in (await handle.fetch_history()).events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            has_arrived |= event.workflow_execution_signaled_event_attributes.signal_name == signal
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and has_arrived:
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            if name == until:
                return scheduled
            scheduled.append(name)
    return scheduled


async def names(laboratory: Laboratory, session_id: UUID) -> list[str]:
    return [event["event"] for event in await laboratory.events(session_id)]


async def test_a_pause_takes_effect_within_one_candle_and_resume_goes_on(staffed: Laboratory):
    session_id = await staffed.started(FLIP)
    await staffed.stepped(session_id, 4)

    await staffed.temporal.signal_pause(session_id, "a-pause")
    row = await staffed.paused(session_id)
    await asyncio.sleep(0.3)

    assert (await staffed.session_row(session_id))["cursor"] == row["cursor"] < 14
    assert row["pause_reason"] == "user"
    assert row["paused_at"] is not None
    after = await activities_between(staffed, session_id, "pause", "record_control")
    assert after.count("execute_step") <= 1
    paused = (await staffed.events(session_id, "session_paused"))[0]["data"]
    assert (paused["current_candle"], paused["reason"]) == (row["cursor"], "user")

    await staffed.temporal.signal_resume(session_id, "a-resume")
    await staffed.ended(session_id)
    plain = await staffed.plain(FLIP)
    assert (await staffed.session_row(session_id))["paused_at"] is None
    assert await staffed.trades(session_id) == await staffed.trades(plain) != []
    assert await staffed.decisions(session_id) == await staffed.decisions(plain)


async def test_a_pause_inside_a_stretch_waits_for_no_more_than_the_chunk_under_way(
    staffed: Laboratory,
):
    plan = Plan(candles=6_000, model="simulated/hold", interval=6_000, indicators=())
    session_id = await staffed.started(plan)
    await staffed.stepped(session_id, 2)

    asked = asyncio.get_running_loop().time()
    await staffed.temporal.signal_pause(session_id, "a-pause")
    row = await staffed.paused(session_id)
    took = asyncio.get_running_loop().time() - asked

    assert row["cursor"] < 6_000
    after = await activities_between(staffed, session_id, "pause", "record_control")
    assert len(after) <= 1
    assert took < 3.0, "on a quiet machine it is less than one second"
    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)


async def test_a_pause_survives_the_worker(laboratory: Laboratory):
    async with laboratory.worker():
        session_id = await laboratory.started(FLIP)
        await laboratory.stepped(session_id, 3)
        await laboratory.temporal.signal_pause(session_id, "a-pause")
        cursor = (await laboratory.paused(session_id))["cursor"]

    async with laboratory.worker():
        progress = await laboratory.progress(session_id)
        assert (progress.status, progress.current_candle) == ("paused", cursor)
        await laboratory.temporal.signal_resume(session_id, "a-resume")
        await laboratory.ended(session_id)

    plain = await laboratory.plain(FLIP)
    assert await laboratory.trades(session_id) == await laboratory.trades(plain) != []
    assert await laboratory.decisions(session_id) == await laboratory.decisions(plain)


async def wait_for_delay(laboratory: Laboratory, session_id: UUID) -> None:
    """Until the test waits between two candles."""
    handle = laboratory.client.get_workflow_handle(workflow_id(session_id))
    started = EventType.EVENT_TYPE_TIMER_STARTED
    async with asyncio.timeout(20):
        while started not in {each.event_type for each in (await handle.fetch_history()).events}:
            await asyncio.sleep(0.05)


async def test_a_new_speed_cuts_a_playback_delay_short_and_is_an_event(
    staffed: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(policies.PLAYBACK_DELAY, "slow", timedelta(minutes=10))
    session_id = await staffed.started(Plan(candles=4, model="simulated/hold", speed="slow"))
    await wait_for_delay(staffed, session_id)

    await staffed.temporal.signal_speed(session_id, "faster", "instant")
    await staffed.ended(session_id)

    assert (await staffed.session_row(session_id))["playback_speed"] == "instant"
    changes = await staffed.events(session_id, "speed_changed")
    assert [change["data"] for change in changes] == [{"speed": "instant"}]


async def test_a_pause_cuts_a_playback_delay_short(
    staffed: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(policies.PLAYBACK_DELAY, "slow", timedelta(minutes=10))
    session_id = await staffed.started(Plan(candles=4, model="simulated/hold", speed="slow"))
    await wait_for_delay(staffed, session_id)

    await staffed.temporal.signal_pause(session_id, "a-pause")
    await staffed.paused(session_id)
    await staffed.temporal.signal_stop(session_id, "a-stop", True)

    await staffed.ended(session_id)


async def test_a_signal_with_the_same_id_counts_once(staffed: Laboratory):
    session_id = await staffed.started(FLIP)
    temporal = staffed.temporal
    await staffed.stepped(session_id, 1)

    await temporal.signal_pause(session_id, "a-pause")
    await temporal.signal_pause(session_id, "a-pause")
    await staffed.paused(session_id)
    await temporal.signal_resume(session_id, "a-resume")
    await temporal.signal_pause(session_id, "a-pause")
    await temporal.signal_resume(session_id, "a-resume")
    await staffed.ended(session_id)

    happened = await names(staffed, session_id)
    assert happened.count("session_paused") == 1
    assert happened.count("session_resumed") == 1


async def test_an_unknown_speed_is_ignored(staffed: Laboratory):
    session_id = await staffed.started(Plan(candles=6, model="simulated/hold"))

    await staffed.temporal.signal_speed(session_id, "too-fast", "warp")
    await staffed.ended(session_id)

    assert (await staffed.session_row(session_id))["playback_speed"] == "instant"
    assert await staffed.events(session_id, "speed_changed") == []


async def test_a_stop_that_closes_ends_with_a_manual_exit(staffed: Laboratory):
    session_id = await staffed.started(LONG)
    await staffed.reached(session_id, lambda row: row["open_position"] is not None)

    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)

    row, result = await staffed.session_row(session_id), await staffed.result(session_id)
    last = (await staffed.trades(session_id))[-1]
    assert (row["status"], row["end_reason"], row["open_position"]) == ("stopped", "stopped", None)
    assert (last["exit_type"], last["exit_candle"]) == ("manual", row["cursor"] - 1)
    assert row["cursor"] < 40
    assert result["end_reason"] == "stopped"
    assert result["open_position_at_end"] is False
    assert result["total_candles"] == row["cursor"]


async def test_a_stop_that_does_not_close_leaves_the_position_in_the_result(staffed: Laboratory):
    session_id = await staffed.started(LONG)
    await staffed.reached(session_id, lambda row: row["open_position"] is not None)

    await staffed.temporal.signal_stop(session_id, "a-stop", False)
    await staffed.ended(session_id)

    row, result = await staffed.session_row(session_id), await staffed.result(session_id)
    last = (await staffed.trades(session_id))[-1]
    assert row["status"] == "stopped"
    assert result["open_position_at_end"] is (last["exit_price"] is None)
    assert result["open_position_at_end"] is True
    assert row["open_position"]["type"] == "long"


async def test_a_second_stop_changes_nothing(staffed: Laboratory):
    session_id = await staffed.started(LONG)
    await staffed.reached(session_id, lambda row: row["open_position"] is not None)
    await staffed.temporal.signal_pause(session_id, "a-pause")
    await staffed.paused(session_id)

    await staffed.temporal.signal_stop(session_id, "a-stop", False)
    with suppress(WorkflowFinished):  # the first one may be that quick
        await staffed.temporal.signal_stop(session_id, "another", True)

    await staffed.ended(session_id)
    assert (await staffed.result(session_id))["open_position_at_end"] is True
    assert (await names(staffed, session_id)).count("session_completed") == 1


async def test_a_paused_test_can_be_stopped(staffed: Laboratory):
    session_id = await staffed.started(LONG)
    await staffed.stepped(session_id, 2)
    await staffed.temporal.signal_pause(session_id, "a-pause")
    cursor = (await staffed.paused(session_id))["cursor"]

    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)

    row = await staffed.session_row(session_id)
    assert (row["status"], row["cursor"], row["pause_reason"]) == ("stopped", cursor, None)


async def test_a_test_can_be_stopped_before_its_first_candle(laboratory: Laboratory):
    session_id = await laboratory.started(LONG)
    await laboratory.temporal.signal_stop(session_id, "a-stop", True)

    async with laboratory.worker():
        await laboratory.ended(session_id)

    row, result = await laboratory.session_row(session_id), await laboratory.result(session_id)
    assert (row["status"], row["cursor"]) == ("stopped", 0)
    assert (result["total_trades"], result["total_candles"]) == (0, 0)
    assert float(result["ending_capital"]) == 10_000.0
    assert await names(laboratory, session_id) == ["stats_update", "session_completed"]


async def model_calls(laboratory: Laboratory, session_id: UUID) -> list[dict[str, Any]]:
    return await laboratory.rows("SELECT * FROM model_calls WHERE session_id = :id", session_id)


async def wait_for_call(laboratory: Laboratory, session_id: UUID) -> None:
    """Until a model is asked; the simulated OpenRouter then counts a request in flight."""
    async with asyncio.timeout(20):
        while True:
            answer = await laboratory.http.get(f"{laboratory.openrouter_url}/debug/requests")
            if answer.json()["in_flight"]:
                return
            await asyncio.sleep(0.02)


async def test_a_stop_does_not_wait_for_a_model_that_hangs(
    staffed: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "CANCELLATION_GRACE_S", 0.2)
    session_id = await staffed.started(Plan(candles=4, model="simulated/hold:hang"))
    await wait_for_call(staffed, session_id)

    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id, seconds=10)

    row = await staffed.session_row(session_id)
    assert (row["status"], row["cursor"]) == ("stopped", 1)
    assert [call["status"] for call in await model_calls(staffed, session_id)] == ["started"]
    assert await staffed.decisions(session_id) == []


async def test_a_reply_that_ends_within_the_grace_of_a_stop_is_booked(staffed: Laboratory):
    """It takes three and a half seconds: longer than the first heartbeat, which brings the stop."""
    session_id = await staffed.started(Plan(candles=4, model="simulated/hold:delay-350"))
    await wait_for_call(staffed, session_id)

    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)

    calls, row = await model_calls(staffed, session_id), await staffed.session_row(session_id)
    assert [call["status"] for call in calls] == ["done"]
    assert row["cost_usd"] == calls[0]["cost_usd"] > 0
    assert row["cost_usd"] == (await staffed.result(session_id))["cost_usd"]
    handle = staffed.client.get_workflow_handle(workflow_id(session_id))
    happened = {event.event_type async for event in handle.fetch_history_events()}
    assert EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED in happened, "no stop cut in"


async def test_a_finished_test_takes_no_more_signals(staffed: Laboratory):
    session_id = await staffed.run(Plan(candles=1, model="simulated/hold"))

    with pytest.raises(WorkflowFinished):
        await staffed.temporal.signal_pause(session_id, "too-late")
    with pytest.raises(WorkflowFinished):
        await staffed.temporal.signal_speed(session_id, "too-late", "fast")


async def test_a_signal_without_an_id_counts_too(staffed: Laboratory):
    """As an operator sends it from the Web UI."""
    session_id = await staffed.started(LONG)
    handle = staffed.client.get_workflow_handle_for(BacktestWorkflow.run, workflow_id(session_id))
    await staffed.stepped(session_id, 1)

    await handle.signal(BacktestWorkflow.pause)
    await staffed.paused(session_id)
    await handle.signal(BacktestWorkflow.stop)

    await staffed.ended(session_id)
    assert (await staffed.session_row(session_id))["status"] == "stopped"


async def test_a_stop_that_nobody_waits_for_any_more_leaves_nothing_behind(laboratory: Laboratory):
    controls = Controls(laboratory.database, laboratory.temporal)
    session_id = await laboratory.started(Plan(candles=2, ai_summary=True))
    stop = controls.stop(laboratory.user_id, session_id, close_position=True)
    given_up = asyncio.create_task(stop)
    await until_waited_for()

    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert not waited_for()

    stop = controls.stop(laboratory.user_id, session_id, close_position=True)
    in_vain = asyncio.create_task(stop)
    await until_waited_for()
    async with laboratory.database.as_system() as session:
        await session.execute(
            text("DELETE FROM trading_sessions WHERE id = :id"), {"id": session_id}
        )
    with pytest.raises(NotFound):
        await in_vain
    assert not waited_for()


async def until_waited_for() -> None:
    async with asyncio.timeout(10):
        while not waited_for():
            await asyncio.sleep(0.01)


def waited_for() -> list["asyncio.Task[Any]"]:
    """Who waits for the end of a test's workflow."""
    return [each for each in asyncio.all_tasks() if "wait_result" in repr(each.get_coro())]
