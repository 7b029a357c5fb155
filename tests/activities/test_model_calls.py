"""The rows of model calls: what is counted, and what counts."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg

from db.repositories.stepping import Bill, BookedReply, CallKey, SteppingRepository
from tests.activities.experiments import Bench
from tests.laboratory import Plan

REPLY = BookedReply(
    model_source="simulated",
    request_hash="h",
    raw_reply="{}",
    usage={"prompt_tokens": 10, "completion_tokens": 2},
    tokens=12,
    cost_usd=0.25,
    generation_id=None,
    model_used=None,
    latency_ms=5,
)


async def a_key(bench: Bench) -> CallKey:
    session_id = await bench.laboratory.add_session(Plan(candles=2))
    return CallKey(session_id=session_id, epoch=0, candle_number=0, call_no=1)


async def opened(bench: Bench, key: CallKey) -> bool:
    database, user_id = bench.laboratory.database, bench.laboratory.user_id
    async with database.statements_for_user(user_id) as connection:
        return await SteppingRepository(connection).open_call(key, id=uuid4())


async def refused(bench: Bench, key: CallKey) -> None:
    database, user_id = bench.laboratory.database, bench.laboratory.user_id
    async with database.statements_for_user(user_id) as connection:
        await SteppingRepository(connection).refuse_call(key)


async def booked(bench: Bench, key: CallKey) -> int | None:
    database, user_id = bench.laboratory.database, bench.laboratory.user_id
    async with database.statements_for_user(user_id) as connection:
        return await SteppingRepository(connection).book_call(Bill(key=key, reply=REPLY))


async def counted(server: psycopg.AsyncConnection[Any], session_id: UUID) -> tuple[int, float]:
    cursor = await server.execute(
        "SELECT possibly_paid_twice, cost_usd::float8 FROM trading_sessions WHERE id = %s",
        (session_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def test_a_call_that_was_refused_is_made_again_and_not_counted(bench: Bench):
    key = await a_key(bench)
    for _ in range(3):
        assert await opened(bench, key)
        await refused(bench, key)
    assert await opened(bench, key)

    assert await booked(bench, key) == 1
    assert await counted(bench.server, key.session_id) == (0, 0.25)


async def test_an_unknown_call_is_counted_once_whatever_is_refused_afterwards(bench: Bench):
    key = await a_key(bench)
    assert await opened(bench, key)
    assert await opened(bench, key)
    await refused(bench, key)
    assert await opened(bench, key)

    assert await booked(bench, key) == 2
    assert await counted(bench.server, key.session_id) == (1, 0.25)


async def test_unknown_calls_of_several_decisions_add_up(bench: Bench):
    one = await a_key(bench)
    other = CallKey(session_id=one.session_id, epoch=0, candle_number=1, call_no=2)
    for key, times in ((one, 3), (other, 2)):
        for _ in range(times):
            assert await opened(bench, key)

    assert await counted(bench.server, one.session_id) == (3, 0.0)


async def test_a_reply_counts_although_a_twin_attempt_was_refused(bench: Bench):
    key = await a_key(bench)
    assert await opened(bench, key)
    await refused(bench, key)

    assert await booked(bench, key) == 1


async def test_a_reply_is_booked_and_paid_once(bench: Bench):
    key = await a_key(bench)
    assert await opened(bench, key)
    assert await booked(bench, key) == 1

    assert await booked(bench, key) is None
    assert not await opened(bench, key)
    assert await counted(bench.server, key.session_id) == (0, 0.25)


async def test_an_older_epoch_opens_and_books_nothing(bench: Bench):
    key = await a_key(bench)
    assert await opened(bench, key)
    await bench.server.execute(
        "UPDATE trading_sessions SET epoch = 1 WHERE id = %s", (key.session_id,)
    )

    assert not await opened(bench, key)
    assert await booked(bench, key) is None
    assert await counted(bench.server, key.session_id) == (0, 0.0)


async def test_a_reply_that_comes_while_postgresql_restarts_is_booked_and_not_bought_again(
    bench: Bench,
):
    """Each connection of the process is cut while the model still writes, as by a restart."""
    session_id = await bench.laboratory.add_session(Plan(candles=2, model="simulated/flip:slow"))
    process = bench.machine.process()
    run = bench.run(process, session_id, "run-1")
    await run.claim()
    await run.step()
    decision = asyncio.create_task(run.decide())
    while not process.sent:
        await asyncio.sleep(0.01)

    pids = [each.info.backend_pid for each in bench.machine.connections if not each.closed]
    assert pids
    await bench.server.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (pids,))
    await decision

    assert await bench.calls(session_id) == {(0, 1): "done"}
    assert len(process.sent) == 1
    assert (await counted(bench.server, session_id))[0] == 0
    await process.end()


async def test_a_call_that_never_ended_counts_in_the_result(bench: Bench):
    session_id = await bench.laboratory.add_session(Plan(candles=2))
    process = bench.machine.process()
    run = bench.run(process, session_id, "run-1")
    await run.claim()
    await run.step()
    key = CallKey(session_id=session_id, epoch=run.epoch, candle_number=0, call_no=1)
    assert await opened(bench, key)
    await run.control("stop", "a-stop")

    await run.finish()

    found = await bench.laboratory.rows(
        "SELECT possibly_paid_twice FROM test_results WHERE session_id = :id", session_id
    )
    assert [row["possibly_paid_twice"] for row in found] == [1]
    await process.end()
