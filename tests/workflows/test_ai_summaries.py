"""A test that is to be summed up has its result first, and then a summary, or none."""

import asyncio

import pytest

from activities import ai_summaries, decisions
from activities.ai_summaries import AFTER_ALL_CANDLES
from tests.laboratory import Laboratory, Plan
from workflows.runtime import workflow_id

SUMMED_UP = Plan(candles=3, model="simulated/flip", ai_summary=True)
SUMMARY_CALLS = (
    f"SELECT status FROM model_calls WHERE session_id = :id AND candle_number = {AFTER_ALL_CANDLES}"
)


async def test_a_backtest_is_summed_up_where_that_was_asked_for(staffed: Laboratory):
    asked, plain = await asyncio.gather(
        staffed.run(SUMMED_UP), staffed.run(Plan(candles=3, model="simulated/flip"))
    )

    summary = (await staffed.result(asked))["ai_summary"]
    assert summary.startswith("[simulated] The test came to ")
    assert [row["status"] for row in await staffed.rows(SUMMARY_CALLS, asked)] == ["done"]
    assert (await staffed.result(plain))["ai_summary"] is None
    assert await staffed.rows(SUMMARY_CALLS, plain) == []
    names = [event["event"] for event in await staffed.events(asked)]
    assert names[-1] == "session_completed"


async def test_a_model_that_cannot_be_paid_leaves_a_completed_test_without_a_summary(
    staffed: Laboratory,
):
    plan = Plan(candles=4, model="simulated/hold", interval=4, speed="slow", ai_summary=True)
    session_id = await staffed.started(plan)
    await staffed.stepped(session_id, 2)
    await staffed.give_key(session_id, await staffed.add_key("sk-broke-1"))
    await staffed.temporal.signal_stop(session_id, "a-stop", True)

    result = await staffed.ended(session_id)

    assert result.status == "completed"
    assert (await staffed.session_row(session_id))["status"] == "stopped"
    assert (await staffed.result(session_id))["ai_summary"] is None
    assert [row["status"] for row in await staffed.rows(SUMMARY_CALLS, session_id)] == ["refused"]


async def test_summaries_that_wait_for_one_key_are_bought_once_each(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    for module in (decisions, ai_summaries):
        monkeypatch.setattr(module, "TURN_PATIENCE_S", 0.05)
        monkeypatch.setattr(module, "TURN_PAUSE_S", 0.05)
    laboratory.max_decisions_per_key = 1
    plan = Plan(candles=1, model="simulated/hold:delay-30", ai_summary=True)
    async with laboratory.worker():
        sessions = [await laboratory.started(plan) for _ in range(3)]
        for session_id in sessions:
            await laboratory.ended(session_id)

    asked = 0
    for session_id in sessions:
        assert (await laboratory.result(session_id))["ai_summary"]
        assert (await laboratory.session_row(session_id))["possibly_paid_twice"] == 0
        handle = laboratory.client.get_workflow_handle(workflow_id(session_id))
        asked += (await handle.fetch_history()).to_json().count("write_ai_summary")
    assert asked > len(sessions), "at least one was handed back"
    answer = await laboratory.http.get(f"{laboratory.openrouter_url}/debug/requests")
    assert answer.json()["total"] == 2 * len(sessions)
