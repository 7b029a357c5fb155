"""A finished test is summed up by its own model: once, within its budget, or not at all."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities import ai_summaries, decisions
from activities.ai_summaries import AFTER_ALL_CANDLES, AiSummaryResult
from activities.key_slots import KeySlots, Turn
from integrations.openrouter.schemas import ModelInfo
from tests.activities.experiments import Bench
from tests.activities.processes import Process
from tests.laboratory import Plan
from tests.plain_runs import PlainRun

CALL = (AFTER_ALL_CANDLES, 1)


@pytest.fixture
async def process(bench: Bench) -> AsyncIterator[Process]:
    process = bench.machine.process()
    yield process
    await process.end()


async def finished(bench: Bench, process: Process, **plan: Any) -> PlainRun:
    """A test that has its result, without a single decision: its model was not asked yet."""
    ordinary = Plan(candles=3, model="simulated/hold", ai_summary=True)
    session_id = await bench.laboratory.add_session(replace(ordinary, **plan))
    run = bench.run(process, session_id, "run-1")
    claimed = await run.claim()
    assert claimed.ai_summary
    for _ in range(claimed.total_candles):
        await run.step()
    await run.finish()
    return run


async def refused(run: PlainRun) -> str | None:
    with pytest.raises(ApplicationError) as told:
        await run.sum_up()
    return told.value.type


async def test_a_summary_is_bought_once_and_counts_as_a_cost_of_the_session(
    bench: Bench, process: Process
):
    run = await finished(bench, process)

    assert await run.sum_up()
    before = await bench.laboratory.result(run.session_id)
    assert await run.sum_up()

    after = await bench.laboratory.result(run.session_id)
    row = await bench.laboratory.session_row(run.session_id)
    assert after == before
    assert after["ai_summary"].startswith("[simulated] The test came to 0 %, where buying")
    assert len(process.sent) == 1
    assert row["cost_usd"] > after["cost_usd"] == 0
    assert row["tokens"] > after["tokens"] == 0
    assert await bench.calls(run.session_id) == {CALL: "done"}


async def test_a_reply_that_is_booked_is_not_bought_again_even_without_a_key(
    bench: Bench, process: Process
):
    run = await finished(bench, process)
    await run.sum_up()
    await bench.server.execute(
        "UPDATE test_results SET ai_summary = NULL WHERE session_id = %s", (run.session_id,)
    )
    await bench.laboratory.give_key(run.session_id, None)

    assert await run.sum_up()

    assert (await bench.laboratory.result(run.session_id))["ai_summary"]
    assert len(process.sent) == 1


@pytest.mark.parametrize(
    ("plan", "reason", "status"),
    [
        ({"api_key": "sk-broke-1"}, "InsufficientCredits", "refused"),
        ({"api_key": "sk-invalid-1"}, "ModelRefused", "refused"),
        ({"api_key": None}, "NoApiKey", None),
        ({"model": "simulated/hold:500"}, "ModelUnavailable", "refused"),
        ({"model": "simulated/hold:404"}, "ModelRefused", "refused"),
        ({"model": "simulated/hold:half-stream"}, "ModelUnavailable", "started"),
        ({"max_cost_usd": 1e-6}, "BudgetReached", None),
    ],
    ids=str,
)
async def test_trouble_with_the_model_leaves_the_result_as_it_is(
    bench: Bench, process: Process, plan: dict[str, Any], reason: str, status: str | None
):
    run = await finished(bench, process, **plan)
    before = await bench.laboratory.result(run.session_id)

    assert await refused(run) == reason

    assert await bench.laboratory.result(run.session_id) == before
    assert before["ai_summary"] is None
    assert (await bench.calls(run.session_id)).get(CALL) == status


async def test_a_model_that_takes_too_long_is_not_waited_for(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ai_summaries, "HTTP_TIMEOUT_S", 0.3)
    run = await finished(bench, process, model="simulated/hold:hang")

    assert await refused(run) == "ModelUnavailable"


async def test_a_budget_that_has_room_for_it_is_used(bench: Bench, process: Process):
    run = await finished(bench, process, max_cost_usd=0.001)

    assert await run.sum_up()

    row = await bench.laboratory.session_row(run.session_id)
    assert 0 < row["cost_usd"] < 0.001


async def test_a_model_whose_price_is_unknown_costs_what_its_dearest_call_did():
    messages = [{"role": "user", "content": "x" * 3_000}]

    assert ai_summaries.most_expected(None, messages, 0.25) == 0.25
    assert ai_summaries.most_expected(None, messages, None) == 0


@pytest.mark.parametrize("piece", ["1.5,", "記録", "é", "🙂"])
def test_at_most_every_byte_of_what_is_sent_is_a_token(piece: str):
    priced = ModelInfo(
        id="a-model",
        name="A model",
        description="",
        context_length=None,
        supported_parameters=frozenset(),
        input_modalities=frozenset(),
        prompt_price=1.0,
        completion_price=0.0,
    )
    messages = [{"role": "user", "content": piece * 500}]

    assert ai_summaries.most_expected(priced, messages, None) > len(piece.encode()) * 500


async def test_a_reply_beyond_all_limits_is_paid_for_once_and_says_nothing(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("integrations.openrouter.client.MAX_REPLY_BYTES", 10)
    run = await finished(bench, process)

    assert not await run.sum_up()
    assert not await run.sum_up()

    assert (await bench.laboratory.result(run.session_id))["ai_summary"] is None
    assert len(process.sent) == 1
    assert await bench.calls(run.session_id) == {CALL: "done"}


async def test_of_a_test_without_a_candle_nothing_is_said(bench: Bench, process: Process):
    session_id = await bench.laboratory.add_session(Plan(candles=2, ai_summary=True))
    run = bench.run(process, session_id, "run-1")
    await run.claim()
    await run.control("stop", "a-stop")
    await run.finish()

    assert not await run.sum_up()
    assert process.sent == []


async def test_a_newer_owner_of_the_session_is_not_paid_for_by_a_late_attempt(
    bench: Bench, process: Process
):
    run = await finished(bench, process)
    await bench.server.execute(
        "UPDATE trading_sessions SET epoch = epoch + 1 WHERE id = %s", (run.session_id,)
    )

    assert await refused(run) == "Superseded"
    assert process.sent == []


async def test_the_key_of_a_user_who_was_deactivated_pays_for_no_summary(
    bench: Bench, process: Process
):
    run = await finished(bench, process)
    activate = "UPDATE users SET is_active = %s WHERE id = %s"
    await bench.server.execute(activate, (False, run.user_id))
    try:
        assert await refused(run) == "NoApiKey"
    finally:
        await bench.server.execute(activate, (True, run.user_id))

    assert process.sent == []
    assert (await bench.laboratory.result(run.session_id))["ai_summary"] is None


async def test_a_summary_whose_turn_does_not_come_hands_it_back_and_was_never_made(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ai_summaries, "TURN_PATIENCE_S", 0.05)
    summaries = process.activities.ai_summaries
    monkeypatch.setattr(summaries, "_slots", KeySlots(1))
    run = await finished(bench, process)
    asked = replace(run.summary_input(), turn=Turn(since=1.5))

    async with summaries._slots.of("sk-or-v1-test").turn():
        handed_back = await run.call(summaries.write_ai_summary, asked, attempt=2)
        of_old = await run.call(summaries.write_ai_summary, run.summary_input())

    assert handed_back == AiSummaryResult(
        is_written=False, turn=Turn(since=1.5, failed=1), pause_s=decisions.TURN_PAUSE_S
    )
    assert of_old == AiSummaryResult(is_written=False)
    assert process.sent == []
    written = await run.call(
        summaries.write_ai_summary, replace(asked, turn=handed_back.turn), attempt=1
    )
    assert written == AiSummaryResult(is_written=True)
    assert len(process.sent) == 1
