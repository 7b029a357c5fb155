"""What operators see of a test without opening a payload."""

import asyncio
import json

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.common import SearchAttributeKey

from tests.laboratory import Laboratory, Plan
from tests.workflows.histories import payloads_of
from workflows.backtest import BacktestWorkflow
from workflows.runtime import workflow_id

LARGEST_PAYLOAD_BYTES = 16_000


async def test_progress_and_state_are_told_while_it_runs_and_after(staffed: Laboratory):
    session_id = await staffed.started(Plan(candles=30, model="simulated/flip"))
    await staffed.stepped(session_id, 4)
    await staffed.temporal.signal_pause(session_id, "a-pause")
    row = await staffed.paused(session_id)

    progress = await staffed.temporal.progress(session_id)
    handle = staffed.client.get_workflow_handle_for(BacktestWorkflow.run, workflow_id(session_id))
    state = await handle.query(BacktestWorkflow.state)

    assert progress is not None
    assert (progress.status, progress.pause_reason) == ("paused", "user")
    assert (progress.current_candle, progress.total_candles) == (row["cursor"], 30)
    assert progress.equity == pytest.approx(float(row["current_equity"]))
    assert progress.pnl_pct == pytest.approx(float(row["current_pnl_pct"]), abs=1e-6)
    assert progress.speed == "instant"
    # The pause may have come between the last candle's step and its decision.
    number, decision, _ = (await staffed.decisions(session_id))[-1]
    assert number >= row["cursor"] - 2
    assert progress.last_decision == f"candle {number}: {decision}"
    assert state is not None
    assert (state.next_candle, state.equity) == (row["cursor"], progress.equity)
    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)
    after = await staffed.temporal.progress(session_id)
    assert after is not None
    assert after.current_candle == row["cursor"]


async def test_nobody_answers_for_a_test_without_workers(laboratory: Laboratory):
    session_id = await laboratory.started(Plan(candles=1))

    asked = asyncio.get_running_loop().time()
    progress = await laboratory.temporal.progress(session_id)

    assert progress is None
    assert asyncio.get_running_loop().time() - asked < 5
    assert await laboratory.temporal.poller_count() == 0
    assert await laboratory.temporal.is_reachable()


async def test_search_attributes_and_summaries_say_who_and_what(staffed: Laboratory):
    session_id = await staffed.run(Plan(candles=3, model="simulated/flip"))

    handle = staffed.client.get_workflow_handle(workflow_id(session_id))
    description = await handle.describe()
    result = await staffed.result(session_id)
    found = description.typed_search_attributes
    keyword = SearchAttributeKey.for_keyword
    assert found.get(keyword("AlphaUserId")) == str(staffed.user_id)
    assert found.get(keyword("AlphaAgent")) == "agent"
    assert found.get(keyword("AlphaAsset")) == "BTC/USDT"
    assert found.get(keyword("AlphaTimeframe")) == "1h"
    assert found.get(keyword("AlphaMode")) == "omni"
    assert found.get(keyword("AlphaStatus")) == "completed"
    pnl = found.get(SearchAttributeKey.for_float("AlphaPnlPct"))
    assert pnl == pytest.approx(float(result["total_pnl_pct"]), abs=1e-6)
    assert await description.static_summary() == "agent on BTC/USDT 1h"
    summaries = [
        json.loads(event.user_metadata.summary.data)
        for event in (await handle.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert summaries[:4] == [
        "claim the session",
        "candle 0: indicators",
        "candle 0: step",
        "candle 0: decision",
    ]
    assert summaries[-1] == "result"


async def test_a_users_tests_are_found_by_their_attributes(staffed: Laboratory):
    session_id = await staffed.started(Plan(candles=30))
    await staffed.temporal.signal_pause(session_id, "a-pause")
    await staffed.paused(session_id)

    query = f'AlphaUserId = "{staffed.user_id}" AND AlphaStatus = "paused"'
    async with asyncio.timeout(20):
        while not [each async for each in staffed.client.list_workflows(query)]:
            await asyncio.sleep(0.1)

    assert [each.id async for each in staffed.client.list_workflows(query)] == [
        workflow_id(session_id)
    ]
    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)


async def test_payloads_stay_small(staffed: Laboratory):
    """Thirty indicators and a position with all its levels; the limit is for the longest names."""
    indicators = [f"{name}_{length}" for name in ("ema", "rsi", "sma") for length in range(5, 15)]
    session_id = await staffed.run(
        Plan(candles=4, model="simulated/flip", indicators=sorted(indicators))
    )

    handle = staffed.client.get_workflow_handle(workflow_id(session_id))
    sizes = [len(data) for data in payloads_of((await handle.fetch_history()).to_json())]

    assert len(sizes) > 30
    assert max(sizes) < LARGEST_PAYLOAD_BYTES
