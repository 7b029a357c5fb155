"""Calls with one API key take turns; other keys do not wait for them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError

from activities import decisions, model_calls
from activities.key_slots import KeySlots, Line, StillWaiting, Turn
from tests.activities.experiments import Bench
from tests.activities.processes import Process
from tests.laboratory import Plan
from tests.plain_runs import PlainRun

KEY = "sk-or-v1-test"


@pytest.fixture
async def process(bench: Bench) -> AsyncIterator[Process]:
    """A process in which a key has a single slot."""
    process = bench.machine.process()
    process.activities.decisions._slots = KeySlots(1)
    yield process
    await process.end()


async def asking(bench: Bench, process: Process, **plan: str) -> tuple[UUID, PlainRun]:
    """A session whose first decision is due."""
    session_id = await bench.laboratory.add_session(
        Plan(candles=2, **({"model": "simulated/flip"} | plan))  # type: ignore[arg-type]
    )
    run = bench.run(process, session_id, "run-1")
    await run.claim()
    await run.step()
    return session_id, run


async def until_sent(process: Process, requests: int) -> None:
    async with asyncio.timeout(10):
        while len(process.sent) < requests:
            await asyncio.sleep(0.01)


async def until_withdrawn(bench: Bench, session_id: UUID) -> None:
    """Until the first call was opened and waits for its turn."""
    async with asyncio.timeout(10):
        while await bench.calls(session_id) != {(0, 1): "refused"}:
            await asyncio.sleep(0.01)


def the_turn(process: Process) -> AbstractAsyncContextManager[None]:
    """The only place of the key that sessions have."""
    return process.activities.decisions._slots.of(KEY).turn()


async def test_calls_of_one_key_take_turns_and_other_keys_go_on(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model_calls, "CANCELLATION_GRACE_S", 0.0)
    _, endless = await asking(bench, process, model="simulated/flip:hang")
    session_id, waiting = await asking(bench, process)
    _, other = await asking(bench, process, api_key="sk-or-v1-other")

    first = asyncio.create_task(endless.decide())
    await until_sent(process, 1)
    second = asyncio.create_task(waiting.decide())
    await until_withdrawn(bench, session_id)
    await other.decide()
    assert len(process.sent) == 2, "the key's only slot is taken"

    first.cancel()
    await second
    assert len(process.sent) == 3


async def test_a_call_that_is_given_up_while_it_waits_was_never_made(
    bench: Bench, process: Process
):
    session_id, waiting = await asking(bench, process)
    async with the_turn(process):
        given_up = asyncio.create_task(waiting.decide())
        await until_withdrawn(bench, session_id)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    assert await bench.calls(session_id) == {(0, 1): "refused"}
    assert process.sent == []

    await waiting.decide()

    assert await bench.calls(session_id) == {(0, 1): "done"}
    assert len(process.sent) == 1
    row = await bench.laboratory.session_row(session_id)
    assert row["possibly_paid_twice"] == 0


async def test_a_key_that_was_taken_away_while_a_call_waits_pays_for_nothing(
    bench: Bench, process: Process
):
    session_id, waiting = await asking(bench, process)
    async with the_turn(process):
        in_vain = asyncio.create_task(waiting.decide())
        await until_withdrawn(bench, session_id)
        await bench.laboratory.give_key(session_id, None)

    with pytest.raises(ApplicationError) as told:
        await in_vain
    assert told.value.type == "NoApiKey"
    assert process.sent == []


async def test_a_reply_that_is_booked_is_decided_by_without_a_turn(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    session_id, run = await asking(bench, process)
    with monkeypatch.context() as broken:
        broken.setattr(decisions, "decision_outcome", None)
        with pytest.raises(ApplicationError):
            await run.decide()
    assert await bench.calls(session_id) == {(0, 1): "done"}

    async with the_turn(process), asyncio.timeout(10):
        await run.decide()

    assert len(process.sent) == 1
    assert len(await bench.laboratory.decisions(session_id)) == 1


async def test_a_failed_call_gives_its_slot_back(bench: Bench, process: Process):
    _, failing = await asking(bench, process, model="simulated/flip:500")
    _, after = await asking(bench, process)

    with pytest.raises(Exception, match="500"):
        await failing.decide()
    async with asyncio.timeout(10):
        await after.decide()


async def test_a_call_whose_turn_does_not_come_hands_it_back_and_was_never_made(
    bench: Bench, process: Process, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decisions, "TURN_PATIENCE_S", 0.05)
    request = process.activities.decisions.request_decision
    session_id, waiting = await asking(bench, process)
    asked = replace(waiting.decision_input(), turn=Turn(since=1.5))

    async with the_turn(process):
        handed_back = await waiting.call(request, asked, attempt=3)

    turn = handed_back.turn
    assert turn == Turn(since=1.5, failed=2)
    assert (handed_back.order, handed_back.pause_s) == (None, decisions.TURN_PAUSE_S)
    assert await bench.calls(session_id) == {(0, 1): "refused"}
    assert process.sent == []
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


async def pass_through(line: Line, order: list[float], since: float, patience: float | None = 60):
    async with line.turn(since=since, patience=patience):
        order.append(since)


async def test_of_those_who_wait_the_one_who_came_first_goes_first():
    line, order = Line(1, 4), list[float]()

    async with line.turn():
        waiting = [
            asyncio.create_task(pass_through(line, order, since)) for since in (3.0, 1.0, 2.0, 0.0)
        ]
        await asyncio.sleep(0)
        waiting[3].cancel()
        assert not line.is_free
    await asyncio.gather(*waiting, return_exceptions=True)

    assert order == [1.0, 2.0, 3.0]
    assert line.is_free


async def test_of_too_many_who_wait_those_who_came_last_are_sent_away():
    line, order = Line(1, 2), list[float]()

    async with line.turn():
        comers = (5.0, 3.0, 4.0, 6.0, 1.0)
        waiting = [asyncio.create_task(pass_through(line, order, since)) for since in comers]
        endless = asyncio.create_task(pass_through(line, order, 9.0, patience=None))
        gone, _ = await asyncio.wait([*waiting, endless], timeout=0.01)
        assert {waiting.index(each) for each in gone} == {0, 1, 2, 3}
    told = await asyncio.gather(*waiting, endless, return_exceptions=True)

    assert [isinstance(each, StillWaiting) for each in told] == [*[True] * 4, False, False]
    assert order == [1.0, 9.0]
    assert line.is_free


async def test_who_is_sent_away_in_the_moment_of_giving_up_takes_no_place_along():
    line, order = Line(1, 1), list[float]()

    async with line.turn():
        late = asyncio.create_task(pass_through(line, order, 2.0))
        await asyncio.sleep(0)
        early = asyncio.create_task(pass_through(line, order, 1.0))
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert not line.is_free
    await early

    async with line.turn():
        assert not line.is_free
    assert order == [1.0]


async def test_a_place_that_comes_in_the_moment_of_giving_up_is_passed_on():
    line = Line(1, 2)
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
    line = Line(1, 1)
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
