"""Calls with one API key take turns; other keys do not wait for them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError

from activities.key_slots import KeySlots
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


async def test_a_key_is_not_remembered_longer_than_it_is_used():
    slots = KeySlots(1)
    async with slots.of("sk-or-v1-secret"):
        assert slots.of("sk-or-v1-secret").locked()
    gc.collect()

    assert len(slots._of_key) == 0
