"""Calls with one API key take turns; other keys do not wait for them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError

from activities import decisions
from activities.key_slots import KeySlots, Line, StillWaiting, Turn
from tests.activities.experiments import Bench
from tests.activities.processes import Process
from tests.laboratory import Plan
from tests.plain_runs import PlainRun

A_WHILE_S = 0.3


@pytest.fixture
async def process(bench: Bench) -> AsyncIterator[Process]:
    """A process in which a key has a single slot."""
    process = bench.machine.process()
    process.activities.decisions._slots = KeySlots(1)
    yield process
    await process.end()


async def asking(bench: Bench, process: Process, **plan: str) -> tuple[UUID, PlainRun]:
    """A session whose first decision is due, of a model that takes its time."""
    session_id = await bench.laboratory.add_session(
        Plan(candles=2, **({"model": "simulated/flip:slow"} | plan))  # type: ignore[arg-type]
    )
    run = bench.run(process, session_id, "run-1")
    await run.claim()
    await run.step()
    return session_id, run


async def until_sent(process: Process, requests: int) -> None:
    async with asyncio.timeout(10):
        while len(process.sent) < requests:
            await asyncio.sleep(0.01)


async def test_calls_of_one_key_take_turns_and_other_keys_go_on(bench: Bench, process: Process):
    one, two = [(await asking(bench, process))[1] for _ in range(2)]
    _, other = await asking(bench, process, model="simulated/flip", api_key="sk-or-v1-other")

    first = asyncio.create_task(one.decide())
    await until_sent(process, 1)
    second = asyncio.create_task(two.decide())
    await asyncio.sleep(A_WHILE_S)
    assert len(process.sent) == 1, "the key's only slot is taken"
    await other.decide()
    assert len(process.sent) == 2
    assert not first.done()

    await asyncio.gather(first, second)
    assert len(process.sent) == 3


async def test_a_call_that_is_given_up_while_it_waits_was_never_made(
    bench: Bench, process: Process
):
    _, busy = await asking(bench, process)
    session_id, waiting = await asking(bench, process)
    first = asyncio.create_task(busy.decide())
    await until_sent(process, 1)
    second = asyncio.create_task(waiting.decide())
    async with asyncio.timeout(10):
        while await bench.calls(session_id) != {(0, 1): "refused"}:
            await asyncio.sleep(0.01)

    await asyncio.sleep(A_WHILE_S)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await bench.calls(session_id) == {(0, 1): "refused"}
    await first
    await waiting.decide()

    assert await bench.calls(session_id) == {(0, 1): "done"}
    assert len(process.sent) == 2
    row = await bench.laboratory.session_row(session_id)
    assert row["possibly_paid_twice"] == 0


async def test_a_key_that_was_taken_away_while_a_call_waits_pays_for_nothing(
    bench: Bench, process: Process
):
    _, busy = await asking(bench, process)
    session_id, waiting = await asking(bench, process)
    first = asyncio.create_task(busy.decide())
    await until_sent(process, 1)
    second = asyncio.create_task(waiting.decide())
    async with asyncio.timeout(10):
        while await bench.calls(session_id) != {(0, 1): "refused"}:
            await asyncio.sleep(0.01)
    await bench.laboratory.give_key(session_id, None)

    await first
    with pytest.raises(ApplicationError) as told:
        await second
    assert told.value.type == "NoApiKey"
    assert len(process.sent) == 1


async def test_a_failed_call_gives_its_slot_back(bench: Bench, process: Process):
    _, failing = await asking(bench, process, model="simulated/flip:500")
    _, after = await asking(bench, process, model="simulated/flip")

    with pytest.raises(Exception, match="500"):
        await failing.decide()
    async with asyncio.timeout(10):
        await after.decide()


async def test_a_call_that_waits_for_long_hands_its_turn_back_and_was_never_made(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decisions, "TURN_PATIENCE_S", A_WHILE_S)
    request = process.activities.decisions.request_decision
    _, busy = await asking(bench, process)
    session_id, waiting = await asking(bench, process)
    first = asyncio.create_task(busy.decide())
    await until_sent(process, 1)
    asked = replace(waiting.decision_input(), turn=Turn(since=1.5))

    handed_back = await waiting.call(request, asked, attempt=3)

    turn = handed_back.turn
    assert turn == Turn(since=1.5, failed=2)
    assert handed_back.order is None
    assert await bench.calls(session_id) == {(0, 1): "refused"}
    assert len(process.sent) == 1
    await first
    decided = await waiting.call(request, replace(asked, turn=turn))
    assert (decided.turn, decided.order is None) == (None, False)
    assert await bench.calls(session_id) == {(0, 1): "done"}
    assert (await bench.laboratory.session_row(session_id))["possibly_paid_twice"] == 0


async def test_failures_before_a_wait_count_towards_the_last(bench: Bench, process: Process):
    _, failing = await asking(bench, process, model="simulated/flip:500-always")
    request = process.activities.decisions.request_decision
    asked = failing.decision_input()
    for failed, attempt, is_last in ((0, 7, False), (0, 8, True), (6, 1, False), (6, 2, True)):
        turn = Turn(since=0.0, failed=failed)
        with pytest.raises(ApplicationError) as told:
            await failing.call(request, replace(asked, turn=turn), attempt=attempt)
        assert (told.value.type, told.value.non_retryable) == ("ModelUnavailable", is_last)


async def test_of_those_who_wait_the_one_who_came_first_goes_first():
    line, order = Line(1), list[float]()

    async def pass_through(since: float) -> None:
        async with line.turn(since=since):
            order.append(since)

    async with line.turn():
        waiting = [asyncio.create_task(pass_through(since)) for since in (3.0, 1.0, 2.0, 0.0)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        assert not line.is_free
    await asyncio.gather(*waiting, return_exceptions=True)

    assert order == [1.0, 2.0, 3.0]
    assert line.is_free


async def test_a_place_that_comes_in_the_moment_of_giving_up_is_passed_on():
    line = Line(1)
    holder, late, after = line.turn(), line.turn(), line.turn()
    await holder.__aenter__()
    giving_up = asyncio.ensure_future(late.__aenter__())
    await asyncio.sleep(0)
    next_one = asyncio.ensure_future(after.__aenter__())
    await asyncio.sleep(0)

    await holder.__aexit__(None, None, None)
    giving_up.cancel()

    with pytest.raises(asyncio.CancelledError):
        await giving_up
    await asyncio.wait_for(next_one, 5)
    await after.__aexit__(None, None, None)
    assert line.is_free


async def test_nobody_waits_longer_than_patience():
    line = Line(1)
    async with line.turn():
        with pytest.raises(StillWaiting):
            async with line.turn(patience=0.01):
                raise AssertionError
    async with line.turn(patience=0.01):
        assert not line.is_free


async def test_a_key_is_not_remembered_longer_than_it_is_used():
    slots = KeySlots(1)
    async with slots.of("sk-or-v1-secret").turn():
        assert not slots.of("sk-or-v1-secret").is_free
    gc.collect()

    assert len(slots._of_key) == 0
