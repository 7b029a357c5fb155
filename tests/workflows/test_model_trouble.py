"""Trouble with the model: a test pauses with the reason, and goes on from where it was."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType
from temporalio.common import RetryPolicy

from activities import decisions, model_calls
from activities.failures import PERMANENT_FAILURES
from tests.laboratory import Laboratory, Plan
from workflows import policies
from workflows.runtime import workflow_id


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries soon after each other, so that a test sees them exhausted."""
    policy = RetryPolicy(
        initial_interval=timedelta(milliseconds=20),
        maximum_attempts=2,
        non_retryable_error_types=PERMANENT_FAILURES,
    )
    monkeypatch.setitem(policies.DECISION, "retry_policy", policy)


async def calls(laboratory: Laboratory, session_id: UUID) -> list[dict[str, Any]]:
    return await laboratory.rows(
        "SELECT * FROM model_calls WHERE session_id = :id ORDER BY candle_number, call_no",
        session_id,
    )


async def requests(laboratory: Laboratory) -> int:
    answer = await laboratory.http.get(f"{laboratory.openrouter_url}/debug/requests")
    return int(answer.json()["total"])


async def resume(laboratory: Laboratory, session_id: UUID) -> None:
    await laboratory.temporal.signal_resume(session_id, "a-resume")
    await laboratory.ended(session_id)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("402-first", "insufficient_credits"),
        ("401-first", "model_unavailable"),
        ("403-first", "model_unavailable"),
        ("404-first", "model_unavailable"),
    ],
)
async def test_a_refusal_pauses_the_test_at_once_and_resume_asks_again(
    staffed: Laboratory, fault: str, reason: str
):
    session_id = await staffed.started(Plan(candles=3, model=f"simulated/flip:{fault}"))

    row = await staffed.paused(session_id)

    status = fault.partition("-")[0]
    assert row["pause_reason"] == reason
    assert row["error"]["error_code"] == reason.upper()
    assert status in row["error"]["message"]
    assert await requests(staffed) == 1
    trouble, paused = (await staffed.events(session_id))[-2:]
    assert trouble["event"] == "session_error"
    assert trouble["data"]["recoverable"] is True
    assert trouble["data"]["candle_index"] == 0
    assert (paused["event"], paused["data"]["reason"]) == ("session_paused", reason)

    await resume(staffed, session_id)
    row = await staffed.session_row(session_id)
    assert (row["status"], row["error"], row["pause_reason"]) == ("completed", None, None)
    assert [candle for candle, _, _ in await staffed.decisions(session_id)] == [0, 1, 2]
    assert row["possibly_paid_twice"] == 0
    assert {call["attempts"] for call in await calls(staffed, session_id)} == {1}


@pytest.mark.parametrize("fault", ["429-always", "500-always", "503-always"])
@pytest.mark.usefixtures("few_tries")
async def test_exhausted_retries_pause_the_test(staffed: Laboratory, fault: str):
    session_id = await staffed.started(Plan(candles=3, model=f"simulated/flip:{fault}"))

    row = await staffed.paused(session_id)

    assert row["pause_reason"] == "model_unavailable"
    assert row["cursor"] == 1
    assert await requests(staffed) == 2
    assert row["possibly_paid_twice"] == 0
    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)
    assert (await staffed.session_row(session_id))["status"] == "stopped"


async def test_trouble_that_is_retried_away_leaves_no_trace_but_its_tries(
    staffed: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=4)
    monkeypatch.setitem(policies.DECISION, "retry_policy", policy)

    session_id = await staffed.run(Plan(candles=2, model="simulated/flip:500:408"))

    plain = await staffed.plain(Plan(candles=2, model="simulated/flip"))
    assert await staffed.decisions(session_id) == await staffed.decisions(plain)
    assert await staffed.events(session_id, "session_error") == []
    row = await staffed.session_row(session_id)
    assert (row["status"], row["possibly_paid_twice"]) == ("completed", 0)


async def test_retry_after_is_honoured(staffed: Laboratory, monkeypatch: pytest.MonkeyPatch):
    """The provider says one second; without that, the next try would come in a minute."""
    policy = RetryPolicy(initial_interval=timedelta(minutes=1), maximum_attempts=2)
    monkeypatch.setitem(policies.DECISION, "retry_policy", policy)

    session_id = await staffed.run(Plan(candles=1, model="simulated/hold:429"), seconds=30)

    row = (await calls(staffed, session_id))[0]
    assert row["status"] == "done"
    assert row["finished_at"] - row["created_at"] >= timedelta(seconds=1)


async def test_without_a_key_the_test_pauses_until_there_is_one(staffed: Laboratory):
    session_id = await staffed.started(Plan(candles=2, model="simulated/hold", api_key=None))
    row = await staffed.paused(session_id)
    assert row["pause_reason"] == "no_api_key"
    assert await requests(staffed) == 0

    await staffed.give_key(session_id, await staffed.add_key("sk-or-v1-new"))
    await resume(staffed, session_id)

    assert (await staffed.session_row(session_id))["status"] == "completed"


async def test_a_key_that_cannot_be_opened_is_no_key(staffed: Laboratory):
    session_id = await staffed.add_session(Plan(candles=1, model="simulated/hold"))
    lost = await staffed.add_key("sk-or-v1-lost", fernet_key=Fernet.generate_key().decode())
    await staffed.give_key(session_id, lost)
    await staffed.start(session_id)

    assert (await staffed.paused(session_id))["pause_reason"] == "no_api_key"
    await staffed.give_key(session_id, await staffed.add_key("sk-or-v1-new"))
    await resume(staffed, session_id)


async def test_a_key_deleted_under_way_pauses_and_its_replacement_goes_on(staffed: Laboratory):
    plan = Plan(candles=12, model="simulated/flip")
    session_id = await staffed.started(plan)
    await staffed.stepped(session_id, 3)

    async with staffed.database.for_user(staffed.user_id) as session:
        await session.execute(text("DELETE FROM api_keys"))
    row = await staffed.paused(session_id)
    await staffed.give_key(session_id, await staffed.add_key("sk-or-v1-new"))
    await resume(staffed, session_id)

    plain = await staffed.plain(plan)
    assert row["pause_reason"] == "no_api_key"
    assert await staffed.decisions(session_id) == await staffed.decisions(plain)
    assert await staffed.trades(session_id) == await staffed.trades(plain) != []


async def test_a_key_whose_account_is_empty_pauses_and_another_one_goes_on(staffed: Laboratory):
    plan = Plan(candles=2, model="simulated/hold", api_key="sk-broke-1")
    session_id = await staffed.started(plan)

    assert (await staffed.paused(session_id))["pause_reason"] == "insufficient_credits"
    await staffed.give_key(session_id, await staffed.add_key("sk-or-v1-rich"))
    await resume(staffed, session_id)

    assert (await staffed.session_row(session_id))["status"] == "completed"


async def test_a_reached_budget_pauses_the_test_before_the_next_call(staffed: Laboratory):
    session_id = await staffed.started(
        Plan(candles=8, model="simulated/hold", max_cost_usd=0.00015)
    )

    row = await staffed.paused(session_id)

    bought = await calls(staffed, session_id)
    assert row["pause_reason"] == "budget_reached"
    assert row["cost_usd"] >= row["max_cost_usd"] > row["cost_usd"] - bought[-1]["cost_usd"]
    assert await requests(staffed) == len(bought) == row["cursor"] - 1
    await staffed.temporal.signal_resume(session_id, "a-resume")
    await staffed.reached(session_id, lambda row: row["last_seq"] > 4 + 4 * len(bought))
    assert (await staffed.paused(session_id))["pause_reason"] == "budget_reached"
    assert await requests(staffed) == len(bought)
    await staffed.temporal.signal_stop(session_id, "a-stop", True)
    await staffed.ended(session_id)


async def test_a_speed_change_keeps_the_reason_of_a_pause(staffed: Laboratory):
    session_id = await staffed.started(Plan(candles=2, model="simulated/hold:402-first"))
    before = await staffed.paused(session_id)

    await staffed.temporal.signal_speed(session_id, "slower", "fast")
    row = await staffed.reached(session_id, lambda row: row["playback_speed"] == "fast")

    kept = ("status", "pause_reason", "paused_at", "error")
    assert {name: row[name] for name in kept} == {name: before[name] for name in kept}
    await resume(staffed, session_id)


@pytest.mark.parametrize("fault", ["garbage", "nan", "huge", "unknown-action"])
async def test_an_unusable_reply_is_asked_for_once_more(staffed: Laboratory, fault: str):
    session_id = await staffed.run(Plan(candles=2, model=f"simulated/flip:{fault}"))

    plain = await staffed.plain(Plan(candles=2, model="simulated/flip"))
    row = await staffed.session_row(session_id)
    assert await staffed.decisions(session_id) == await staffed.decisions(plain)
    assert (row["status"], row["invalid_replies"], row["possibly_paid_twice"]) == (
        "completed",
        0,
        0,
    )
    made = [(call["candle_number"], call["call_no"]) for call in await calls(staffed, session_id)]
    assert made == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    "fault", ["garbage-always", "nan-always", "huge-always", "unknown-action-always"]
)
async def test_two_unusable_replies_are_a_flagged_hold(staffed: Laboratory, fault: str):
    session_id = await staffed.run(Plan(candles=2, model=f"simulated/flip:{fault}"))

    row = await staffed.session_row(session_id)
    decided = await staffed.rows(
        "SELECT decision, reasoning, invalid_reply, order_data FROM decisions"
        " WHERE session_id = :id",
        session_id,
    )
    assert (row["status"], row["invalid_replies"]) == ("completed", 2)
    assert {each["decision"] for each in decided} == {"hold"}
    assert all(each["invalid_reply"] for each in decided)
    assert all(each["reasoning"].startswith("No valid reply: ") for each in decided)
    assert (await staffed.result(session_id))["invalid_replies"] == 2
    shown = await staffed.events(session_id, "ai_decision")
    assert [each["data"]["invalid_reply"] for each in shown] == [True, True]


async def test_half_a_stream_is_asked_for_again_and_counted_as_possibly_paid(staffed: Laboratory):
    session_id = await staffed.run(Plan(candles=2, model="simulated/flip:half-stream"))

    plain = await staffed.plain(Plan(candles=2, model="simulated/flip"))
    row = await staffed.session_row(session_id)
    assert await staffed.decisions(session_id) == await staffed.decisions(plain)
    assert (row["status"], row["possibly_paid_twice"]) == ("completed", 2)
    assert [call["attempts"] for call in await calls(staffed, session_id)] == [2, 2]
    assert (await staffed.result(session_id))["possibly_paid_twice"] == 2


async def test_many_tests_in_trouble_do_not_disturb_each_other(staffed: Laboratory):
    faults = ("402-first", "garbage-always", "fenced", "thinking", "whole", "no-schema", "no-json")
    sessions = await asyncio.gather(
        *(staffed.started(Plan(candles=2, model=f"simulated/flip:{fault}")) for fault in faults)
    )

    await staffed.paused(sessions[0])
    await asyncio.gather(*(staffed.ended(session_id) for session_id in sessions[1:]))

    plain = await staffed.plain(Plan(candles=2, model="simulated/flip"))
    for session_id in sessions[2:]:
        assert await staffed.decisions(session_id) == await staffed.decisions(plain)
    await resume(staffed, sessions[0])


async def test_tests_that_wait_for_one_key_for_long_neither_fail_nor_pay_twice(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    """Together they wait for longer than a decision may take."""
    monkeypatch.setattr(decisions, "TURN_PATIENCE_S", 0.3)
    monkeypatch.setattr(decisions, "TURN_PAUSE_S", 0.1)
    monkeypatch.setitem(policies.DECISION, "schedule_to_close_timeout", timedelta(seconds=3))
    laboratory.max_decisions_per_key = 1
    plan = Plan(candles=1, model="simulated/hold:delay-100")
    async with laboratory.worker():
        sessions = [await laboratory.started(plan) for _ in range(5)]
        for session_id in sessions:
            await laboratory.ended(session_id)

    completed = waits = 0
    for session_id in sessions:
        found = Counter(await activity_events(laboratory, session_id))
        assert found["ACTIVITY_TASK_TIMED_OUT"] == found["ACTIVITY_TASK_FAILED"] == 0
        completed += found["ACTIVITY_TASK_COMPLETED"]
        row = await laboratory.session_row(session_id)
        assert (row["status"], row["possibly_paid_twice"]) == ("completed", 0)
        assert found["TIMER_STARTED"] == found["TIMER_FIRED"]
        waits += found["TIMER_FIRED"]
    assert waits > 0
    # Undisturbed, a session takes five: claim, indicators, step, decision, result.
    assert completed > 5 * len(sessions)
    assert await requests(laboratory) == len(sessions)


async def test_a_key_with_very_many_tests_does_not_hold_up_another_key(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model_calls, "CANCELLATION_GRACE_S", 0.0)
    laboratory.max_decisions, laboratory.max_decisions_per_key = 4, 2
    async with laboratory.worker(grace=0.0):
        for _ in range(6):
            crowded = await laboratory.started(Plan(candles=1, model="simulated/hold:hang"))
            await laboratory.stepped(crowded, 1)

        await laboratory.run(Plan(candles=2, api_key="sk-or-v1-other"), seconds=20)

        assert await requests(laboratory) == 2 + 2


async def activity_events(laboratory: Laboratory, session_id: UUID) -> list[str]:
    handle = laboratory.client.get_workflow_handle(workflow_id(session_id))
    history = await handle.fetch_history()
    return [EventType.Name(each.event_type).removeprefix("EVENT_TYPE_") for each in history.events]
