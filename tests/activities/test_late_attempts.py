"""Attempts that Temporal has given up on, and attempts side by side."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from temporalio.exceptions import ApplicationError

from activities.failures import SUPERSEDED
from activities.sessions import ClaimInput, ControlResult
from tests.activities.cases import CASES, DECISIONS, Case
from tests.activities.experiments import Bench, comparable_result, input_of
from tests.activities.listening import durable
from tests.activities.sessions import exact_rows
from tests.plain_runs import PlainRun, environment

# Whoever reads does no harm, however late.
WRITING = [case for case in CASES if case.name != "calculate_indicators"]
# A session that has its result is owned by no newer run.
OWNING = [
    case
    for case in WRITING
    if not case.name.startswith("claim") and case.name != "write_ai_summary"
]


def by_name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", OWNING, ids=by_name)
async def test_a_late_attempt_of_an_older_run_changes_nothing(bench: Bench, case: Case):
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    await bench.run(process, session_id, "a-newer-run").claim()
    before = await exact_rows(bench.server, session_id)

    with pytest.raises(ApplicationError) as failure:
        await bench.attempt(case, process, input_of(asked, session_id))

    assert failure.value.type == SUPERSEDED
    assert await exact_rows(bench.server, session_id) == before
    assert await bench.listener.live(session_id) == []
    assert process.sent == []
    await process.end()


@pytest.mark.parametrize("case", WRITING, ids=by_name)
async def test_a_second_attempt_after_a_whole_one_changes_nothing(bench: Bench, case: Case):
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    mine = input_of(asked, session_id)
    result = await bench.attempt(case, process, mine)
    published = durable(await bench.listener.live(session_id))
    before, sent = await exact_rows(bench.server, session_id), len(process.sent)

    again = await bench.attempt(case, process, mine, number=2)

    assert comparable_result(again) == comparable_result(result)
    assert await exact_rows(bench.server, session_id) == before
    assert durable(await bench.listener.live(session_id)) == published
    assert len(process.sent) == sent
    await process.end()


STEPS = [case for case in CASES if case.name.startswith(("execute_step", "run_candles"))]
CONTROLS = [
    case for case in CASES if case.name in {"pause", "pause-of-a-paused-one", "resume", "speed"}
]


async def go_on(run: PlainRun) -> ControlResult:
    """The same run takes its session further: a decision, a candle, a control."""
    claimed = await run.claim()
    if claimed.decision_due:
        await run.decide()
    await run.step()
    return await run.control("resume", "a-later-one")


@pytest.mark.parametrize("case", [*STEPS, *CONTROLS, *DECISIONS], ids=by_name)
async def test_a_late_attempt_of_the_same_run_changes_nothing_and_tells_what_is_stored(
    bench: Bench, case: Case
):
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    mine = input_of(asked, session_id)
    await bench.attempt(case, process, mine)
    run = bench.run(process, session_id, case.run_id)
    controls = await go_on(run)
    published = durable(await bench.listener.live(session_id))
    before, sent = await exact_rows(bench.server, session_id), len(process.sent)

    if case in DECISIONS:
        # Nobody waits for it any more: the workflow went on with the recorded decision.
        with pytest.raises(ApplicationError, match="newer"):
            await bench.attempt(case, process, mine, number=2)
    else:
        told = await bench.attempt(case, process, mine, number=2)
        assert told == (run.state if case in STEPS else controls)

    assert await exact_rows(bench.server, session_id) == before
    assert durable(await bench.listener.live(session_id)).items() <= published.items()
    assert len(process.sent) == sent
    await process.end()


@pytest.mark.parametrize("case", CASES, ids=by_name)
async def test_two_attempts_side_by_side_leave_what_one_leaves(bench: Bench, case: Case):
    original, asked = await bench.prepared(case)
    expected = await bench.undisturbed(case, original, asked)
    session_id = await original.copy(bench.server)
    mine = input_of(asked, session_id)
    one, other = bench.machine.process(), bench.machine.process()

    results = await asyncio.gather(
        bench.attempt(case, one, mine), bench.attempt(case, other, mine, number=2)
    )

    found = await bench.report(original, session_id, results[0])
    assert list(found.differences(expected)) == []
    assert comparable_result(results[1]) == expected.result
    rows = await exact_rows(bench.server, session_id)
    unknown = rows["trading_sessions"][0]["possibly_paid_twice"]
    calls = len(rows["model_calls"]) - len(await bench.calls(original.session_id))
    assert calls <= len(one.sent) + len(other.sent) <= calls + unknown
    await one.end()
    await other.end()


async def test_a_claim_that_waited_beyond_its_time_limit_takes_nothing_over(
    bench: Bench, server: psycopg.AsyncConnection[Any], postgres_url: str
):
    """The claim of an older run, held up by a lock until a newer run owns the session."""
    session_id = await bench.laboratory.add_session(CASES[0].plan)
    process = bench.machine.process()
    ids = {"session_id": str(session_id), "user_id": str(bench.laboratory.user_id)}
    late = environment(run_id="an-older-run")
    late.info = replace(late.info, start_to_close_timeout=timedelta(seconds=0.2))
    async with await psycopg.AsyncConnection.connect(postgres_url) as holder:
        await holder.execute(
            "UPDATE trading_sessions SET epoch = epoch + 1, owner_run_id = 'a-newer-run'"
            " WHERE id = %s",
            (session_id,),
        )
        waiting = asyncio.create_task(
            late.run(process.activities.sessions.claim, ClaimInput(**ids))
        )
        await asyncio.sleep(0.3)
    before = await exact_rows(server, session_id)

    with pytest.raises(TimeoutError):
        await waiting

    assert await exact_rows(server, session_id) == before
    await process.end()


async def test_a_late_pause_that_found_nothing_to_do_does_not_undo_a_resume(bench: Bench):
    """It left no row to be known by: what the workflow knew then tells that it is late."""
    case = next(case for case in CASES if case.name == "pause-of-a-paused-one")
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    mine = input_of(asked, session_id)
    await bench.attempt(case, process, mine)
    await bench.run(process, session_id, case.run_id).claim()
    run = bench.run(process, session_id, case.run_id)
    await run.claim()
    await run.control("resume", "a-resume")
    before = await exact_rows(bench.server, session_id)

    told = await bench.attempt(case, process, mine, number=2)

    assert not told.paused
    assert await exact_rows(bench.server, session_id) == before
    await process.end()


@pytest.mark.parametrize("name", ["pause", "pause-of-a-paused-one", "stop"])
async def test_a_control_that_comes_after_the_end_changes_nothing(bench: Bench, name: str):
    case = next(case for case in CASES if case.name == name)
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    run = bench.run(process, session_id, case.run_id)
    await run.claim()
    await run.control("stop", "another-stop")
    await run.finish()
    before = await exact_rows(bench.server, session_id)

    await bench.attempt(case, process, input_of(asked, session_id), number=2)

    assert await exact_rows(bench.server, session_id) == before
    await process.end()


async def test_after_a_failure_no_step_is_stored_and_no_result(bench: Bench):
    case = next(case for case in CASES if case.name == "execute_step-exit")
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    run = bench.run(process, session_id, case.run_id)
    await run.claim()
    finish = run.finish_input()
    await process.activities.results.fail(run.fail_input())
    before = await exact_rows(bench.server, session_id)

    for attempt in (
        bench.attempt(case, process, input_of(asked, session_id)),
        run.call(process.activities.results.finish, finish),
    ):
        with pytest.raises(ApplicationError) as failure:
            await attempt
        assert failure.value.type == SUPERSEDED

    assert before["trading_sessions"][0]["status"] == "failed"
    assert await exact_rows(bench.server, session_id) == before
    await process.end()


async def test_a_failure_does_not_undo_a_result(bench: Bench):
    case = next(case for case in CASES if case.name == "finish-end-of-data")
    original, asked = await bench.prepared(case)
    session_id = await original.copy(bench.server)
    process = bench.machine.process()
    run = bench.run(process, session_id, case.run_id)
    await run.claim()
    late = run.fail_input()
    await bench.attempt(case, process, input_of(asked, session_id))
    before = await exact_rows(bench.server, session_id)

    await run.call(process.activities.results.fail, late)

    assert await exact_rows(bench.server, session_id) == before
    await process.end()
