"""What kills workers, workflows or Temporal's own data does not change the outcome."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from typing_extensions import override

from activities import reconciliation
from activities.reconciliation import GIVE_UP_AFTER, Reconciler
from db.repositories.sessions import ReconcileRepository, StaleSession
from tests.conftest import TEMPORAL_NAMESPACE
from tests.laboratory import Laboratory, Plan
from workflows import runtime
from workflows.runtime import (
    Listable,
    SessionType,
    Temporal,
    TemporalUnreachable,
    connect,
    workflow_id,
)

FLIP = Plan(candles=14, model="simulated/flip")
AT_ONCE = timedelta(0)


async def check_same(laboratory: Laboratory, session_id: UUID, plain: UUID) -> None:
    """The outcome is that of an undisturbed run, and no number was lost or given twice."""
    row = await laboratory.session_row(session_id)
    assert row["status"] == "completed"
    assert await laboratory.trades(session_id) == await laboratory.trades(plain) != []
    assert await laboratory.decisions(session_id) == await laboratory.decisions(plain)
    steps = (
        "SELECT candle_number, phase, first_seq, last_seq, equity FROM steps"
        " WHERE session_id = :id ORDER BY last_seq"
    )
    assert await laboratory.rows(steps, session_id) == await laboratory.rows(steps, plain)
    events = await laboratory.streamed(session_id)
    assert [event.seq for event in events] == list(range(1, row["last_seq"] + 1))
    timestamps = [event.timestamp for event in events]
    assert timestamps == sorted(set(timestamps))


async def test_workers_that_stop_at_random_candles_change_nothing(laboratory: Laboratory):
    session_id = await laboratory.started(FLIP)

    for candle in sorted(random.sample(range(1, FLIP.candles), 3)):
        async with laboratory.worker(grace=0):
            await laboratory.stepped(session_id, candle)
    async with laboratory.worker():
        await laboratory.ended(session_id)

    await check_same(laboratory, session_id, await laboratory.plain(FLIP))
    row = await laboratory.session_row(session_id)
    answer = await laboratory.http.get(f"{laboratory.openrouter_url}/debug/requests")
    # The plain run asks the same questions under the same user: each is counted twice.
    asked = sum(body["requests"] for body in answer.json()["by_hash"].values())
    assert asked <= 2 * FLIP.candles + row["possibly_paid_twice"]


async def forget(laboratory: Laboratory, session_id: UUID) -> None:
    """Delete the running workflow with its history, until Temporal has never heard of it."""
    workflow = WorkflowExecution(workflow_id=workflow_id(session_id))
    await laboratory.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=laboratory.client.namespace, workflow_execution=workflow
        )
    )
    handle = laboratory.client.get_workflow_handle(workflow.workflow_id)
    async with asyncio.timeout(20):
        while await is_known(handle):  # it is deleted in the background
            await asyncio.sleep(0.01)


async def is_known(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError as e:
        if e.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def test_a_session_whose_workflow_was_lost_is_started_again_and_ends_the_same(
    apart: Laboratory,
):
    reconciler = Reconciler(apart.database, apart.temporal)
    terminated, forgotten = await apart.started(FLIP), await apart.started(FLIP)
    async with apart.worker(grace=0):
        await apart.stepped(terminated, 3)
        await apart.stepped(forgotten, 3)
        await apart.client.get_workflow_handle(workflow_id(terminated)).terminate("a test")
        await forget(apart, forgotten)

    assert await reconciler.run_once(unchanged_for=AT_ONCE) == 2
    async with apart.worker():
        await asyncio.gather(apart.ended(terminated), apart.ended(forgotten))

    plain = await apart.plain(FLIP)
    await check_same(apart, terminated, plain)
    await check_same(apart, forgotten, plain)
    assert (await apart.session_row(terminated))["epoch"] == 2


@pytest.mark.parametrize("activity", ["calculate_indicators", "execute_step", "request_decision"])
async def test_an_operators_cancellation_ends_no_test(apart: Laboratory, activity: str):
    """Whatever runs at that moment: the workflow ends, and the session is taken up again."""
    plan = Plan(candles=8, model="simulated/flip:delay-20")
    session_id = await apart.started(plan)
    handle = apart.client.get_workflow_handle(workflow_id(session_id))
    async with apart.worker():
        await apart.stepped(session_id, 2)
        while activity not in {
            pending.activity_type.name
            for pending in (await handle.describe()).raw_description.pending_activities
        }:
            await asyncio.sleep(0)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert (await apart.session_row(session_id))["status"] == "running"

    assert await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE) == 1
    async with apart.worker():
        await apart.ended(session_id)

    await check_same(apart, session_id, await apart.plain(plan))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trading_sessions SET rules = '{}' WHERE id = :id",
        "UPDATE steps SET state = '{}' WHERE session_id = :id AND state IS NOT NULL",
    ],
    ids=["rules", "state"],
)
async def test_a_session_that_nobody_can_read_fails_and_says_so(apart: Laboratory, damage: str):
    session_id = await apart.started(FLIP)
    async with apart.worker(grace=0):
        await apart.stepped(session_id, 2)
        await apart.client.get_workflow_handle(workflow_id(session_id)).terminate("a test")
    async with apart.database.as_system() as session:
        await session.execute(text(damage), {"id": session_id})

    await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE)
    async with apart.worker():
        with pytest.raises(WorkflowFailureError):
            await apart.client.get_workflow_handle(workflow_id(session_id)).result()
    row = await apart.session_row(session_id)

    assert row["status"] == "failed"
    assert row["error"]["error_code"] == "SESSION_UNREADABLE"
    events = await apart.streamed(session_id)
    assert events[-1].event == "session_error"
    assert events[-1].seq == row["last_seq"]
    assert await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE) == 0


async def test_reconciliation_leaves_alone_what_runs_what_ended_and_what_just_moved(
    apart: Laboratory,
):
    reconciler = Reconciler(apart.database, apart.temporal)
    running = await apart.started(FLIP)
    just_inserted = await apart.add_session(FLIP)
    async with apart.worker():
        ended = await apart.run(Plan(candles=1, model="simulated/hold"))
        await apart.ended(running)
    waiting = await apart.started(FLIP)
    before = [await apart.session_row(each) for each in (running, waiting, ended)]

    assert await reconciler.run_once() == 0
    assert not await apart.temporal.is_running(just_inserted)
    assert await reconciler.run_once(unchanged_for=AT_ONCE) == 1  # the one that nobody started
    assert await apart.temporal.is_running(just_inserted)
    assert await reconciler.run_once(unchanged_for=AT_ONCE) == 0
    assert [await apart.session_row(each) for each in (running, waiting, ended)] == before


class Asked(Temporal):
    """Notes for which sessions it was asked one by one."""

    def __init__(self, laboratory: Laboratory) -> None:
        super().__init__(laboratory.client, laboratory.task_queue)
        self.asked: list[UUID] = []

    @override
    async def is_running(self, session_id: UUID, type: SessionType = "backtest") -> bool:
        self.asked.append(session_id)
        return await super().is_running(session_id, type)


async def stale(laboratory: Laboratory) -> Sequence[StaleSession]:
    async with laboratory.database.as_system() as session:
        found = await ReconcileRepository(session).stale(AT_ONCE)
    return [each for each in found if each.user_id == laboratory.user_id]


async def listed(temporal: Temporal, laboratory: Laboratory, count: int) -> None:
    """Wait until the listing knows of so many of the laboratory's quiet sessions."""
    sessions = await stale(laboratory)
    async with asyncio.timeout(10):
        while len(sessions) - len(await temporal.unlisted(sessions)) < count:
            await asyncio.sleep(0.05)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two quiet sessions are many, and one of those listed is asked for."""
    monkeypatch.setattr(reconciliation, "LISTED_FROM", 2)
    monkeypatch.setattr(reconciliation, "LISTED_AND_ASKED", 1)


@pytest.mark.usefixtures("many")
async def test_many_quiet_sessions_are_looked_up_in_one_listing(apart: Laboratory):
    await apart.client.start_workflow(  # an operator's own: no id of ours, and no input
        "backtest", id=f"backtest-by-hand-{apart.user_id}", task_queue=apart.task_queue
    )
    running = {await apart.started(FLIP) for _ in range(4)}
    lost = await apart.add_session(FLIP)
    temporal = Asked(apart)
    await listed(temporal, apart, 4)

    assert await Reconciler(apart.database, temporal).run_once(unchanged_for=AT_ONCE) == 1
    assert len(temporal.asked) == 2
    assert temporal.asked[0] in running
    assert temporal.asked[1] == lost
    assert await temporal.is_running(lost)


@pytest.mark.usefixtures("many")
async def test_a_listing_of_what_is_gone_is_found_out(apart: Laboratory):
    """As where Temporal keeps its listing elsewhere, and lost the rest."""
    lost = {await apart.add_session(FLIP) for _ in range(3)}

    class Outdated(Asked):
        @override
        async def unlisted(self, sessions: Sequence[Listable]) -> Sequence[Listable]:
            return []

    assert await Reconciler(apart.database, Outdated(apart)).run_once(unchanged_for=AT_ONCE) == 3
    assert all([await apart.temporal.is_running(each) for each in lost])


@pytest.mark.usefixtures("many")
async def test_without_a_listing_each_is_asked_for(apart: Laboratory):
    lost = {await apart.add_session(FLIP) for _ in range(3)}

    class Unlisted(Asked):
        @override
        async def unlisted(self, sessions: Sequence[Listable]) -> Sequence[Listable]:
            raise TemporalUnreachable("a test")

    temporal = Unlisted(apart)
    assert await Reconciler(apart.database, temporal).run_once(unchanged_for=AT_ONCE) == 3
    assert set(temporal.asked) == lost


async def test_a_paused_session_without_a_workflow_comes_back_paused(apart: Laboratory):
    async with apart.worker():
        session_id = await apart.started(FLIP)
        await apart.stepped(session_id, 2)
        await apart.temporal.signal_pause(session_id, "a-pause")
        cursor = (await apart.paused(session_id))["cursor"]
        await apart.client.get_workflow_handle(workflow_id(session_id)).terminate("a test")

        assert await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE) == 1
        row = await apart.reached(session_id, lambda row: row["epoch"] == 2)
        assert (row["status"], row["cursor"]) == ("paused", cursor)
        await apart.temporal.signal_resume(session_id, "a-resume")
        await apart.ended(session_id)

    plain = await apart.plain(FLIP)
    assert await apart.trades(session_id) == await apart.trades(plain) != []


async def test_a_stop_that_was_recorded_outlives_its_workflow(apart: Laboratory):
    """The stop is in the row; the run that comes next has nothing left to do but end."""
    session_id = await apart.started(FLIP)
    async with apart.worker(grace=0):
        await apart.stepped(session_id, 2)
        await apart.temporal.signal_pause(session_id, "a-pause")
        await apart.paused(session_id)
        await apart.client.get_workflow_handle(workflow_id(session_id)).terminate("a test")
    async with apart.database.for_user(apart.user_id) as session:
        await session.execute(
            text("UPDATE trading_sessions SET stop_close_position = true WHERE id = :id"),
            {"id": session_id},
        )

    await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE)
    async with apart.worker():
        await apart.ended(session_id)

    assert (await apart.session_row(session_id))["status"] == "stopped"


@asynccontextmanager
async def cut_off(address: str) -> AsyncIterator[Client]:
    """A client that reached Temporal and reaches it no more."""
    host, port = address.split(":")
    open_ends: list[asyncio.StreamWriter] = []
    piping: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append(writer)
        while data := await reader.read(65_536):
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for ends in ((reader, back), (there, writer)):
            piping.add(asyncio.create_task(pipe(*ends)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    client = await connect(f"127.0.0.1:{own}", namespace=TEMPORAL_NAMESPACE)
    server.close()
    for task in piping:
        task.cancel()
    for end in open_ends:
        end.transport.abort()
    await asyncio.wait(piping)
    yield client


async def test_reconciliation_does_nothing_while_temporal_is_unreachable(
    apart: Laboratory, temporal_address: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runtime, "CALL_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(runtime, "QUERY_TIMEOUT", timedelta(seconds=0.3))
    sessions = [await apart.add_session(FLIP) for _ in range(GIVE_UP_AFTER)]
    before = [await apart.session_row(each) for each in sessions]

    async with cut_off(temporal_address) as client:
        temporal = Temporal(client, apart.task_queue)
        with pytest.raises(TemporalUnreachable):
            await Reconciler(apart.database, temporal).run_once(unchanged_for=AT_ONCE)
        assert await temporal.progress(sessions[0]) is None
        assert await temporal.poller_count() == 0

    assert [await apart.session_row(each) for each in sessions] == before
    assert not any([await apart.temporal.is_running(each) for each in sessions])


async def test_a_session_that_cannot_be_started_keeps_no_other_waiting(apart: Laboratory):
    one, other = await apart.add_session(FLIP), await apart.add_session(FLIP)

    class Picky:
        async def is_running(self, session_id: UUID, type: SessionType) -> bool:
            return await apart.temporal.is_running(session_id)

        async def unlisted(self, sessions: Sequence[StaleSession]) -> Sequence[StaleSession]:
            raise AssertionError

        async def start_again(self, session: StaleSession) -> None:
            if session.id == one:
                raise TemporalUnreachable("a test")
            await apart.temporal.start_again(session)

        async def stop_for_good(self, session: StaleSession) -> None:
            raise AssertionError

    assert await Reconciler(apart.database, Picky()).run_once(unchanged_for=AT_ONCE) == 1
    assert await apart.temporal.is_running(other)


async def test_one_process_reconciles_at_a_time(apart: Laboratory):
    await apart.add_session(FLIP)
    inside, leave = asyncio.Event(), asyncio.Event()

    class Slow:
        async def is_running(self, session_id: UUID, type: SessionType) -> bool:
            inside.set()
            await leave.wait()
            return True

        async def unlisted(self, sessions: Sequence[StaleSession]) -> Sequence[StaleSession]:
            raise AssertionError

        async def start_again(self, session: StaleSession) -> None:
            raise AssertionError

        async def stop_for_good(self, session: StaleSession) -> None:
            raise AssertionError

    first = asyncio.create_task(Reconciler(apart.database, Slow()).run_once(unchanged_for=AT_ONCE))
    await inside.wait()
    assert await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=AT_ONCE) == 0
    leave.set()
    assert await first == 0


async def test_reconciliation_goes_on_after_failures(apart: Laboratory, empty_postgres_url: str):
    tries: list[UUID] = []

    class Away:
        async def is_running(self, session_id: UUID, type: SessionType) -> bool:
            tries.append(session_id)
            raise TemporalUnreachable("a test")

        async def unlisted(self, sessions: Sequence[StaleSession]) -> Sequence[StaleSession]:
            raise AssertionError

        async def start_again(self, session: StaleSession) -> None:
            raise AssertionError

        async def stop_for_good(self, session: StaleSession) -> None:
            raise AssertionError

    await apart.add_session(FLIP)
    with psycopg.connect(empty_postgres_url) as superuser:
        superuser.execute("SET session_replication_role = replica")  # no trigger touches the row
        superuser.execute("UPDATE trading_sessions SET updated_at = now() - interval '1 hour'")
    looking = asyncio.create_task(Reconciler(apart.database, Away()).run_every(0.01))
    async with asyncio.timeout(10):
        while len(tries) < 3:
            await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.wait([looking])
    assert looking.cancelled()


async def deactivate(laboratory: Laboratory) -> None:
    async with laboratory.database.as_system() as session:
        await session.execute(
            text("UPDATE users SET is_active = false WHERE id = :id"), {"id": laboratory.user_id}
        )


async def test_the_tests_of_a_user_who_was_deactivated_are_stopped(apart: Laboratory):
    """Whatever state they are in, and whether or not Temporal has heard of them."""
    slow = Plan(candles=14, model="simulated/flip", speed="slow")
    reconciler = Reconciler(apart.database, apart.temporal)
    running, paused = await apart.started(slow), await apart.started(slow)
    never_started, lost = await apart.add_session(FLIP), await apart.started(slow)
    sessions = [running, paused, never_started, lost]
    async with apart.worker():
        for each in (running, paused, lost):
            await apart.stepped(each, 1)
        await apart.temporal.signal_pause(paused, "a-pause")
        await apart.paused(paused)
        await apart.client.get_workflow_handle(workflow_id(lost)).terminate("a test")
        await reconciler.run_once()
        assert {(await apart.session_row(each))["status"] for each in sessions} <= {
            "initializing",
            "running",
            "paused",
        }

        await deactivate(apart)
        for _ in range(2):  # what was told twice is stopped once
            await reconciler.run_once()
        for each in sessions:
            await apart.ended(each)

    rows = [await apart.session_row(each) for each in sessions]
    assert [row["status"] for row in rows] == ["stopped"] * 4
    assert [row["stop_close_position"] for row in rows] == [True] * 4
    assert (await apart.result(never_started))["total_trades"] == 0
    assert await reconciler.run_once(unchanged_for=AT_ONCE) == 0


async def test_a_deactivation_waits_for_a_temporal_that_is_away(
    apart: Laboratory, temporal_address: str, monkeypatch: pytest.MonkeyPatch
):
    slow = Plan(candles=14, model="simulated/flip", speed="slow")
    async with apart.worker():
        session_id = await apart.started(slow)
        await apart.stepped(session_id, 1)
        await deactivate(apart)
        async with cut_off(temporal_address) as client:
            monkeypatch.setattr(runtime, "CALL_TIMEOUT", timedelta(seconds=0.3))
            await Reconciler(apart.database, Temporal(client, apart.task_queue)).run_once()
            monkeypatch.undo()
        assert (await apart.session_row(session_id))["status"] == "running"

        await Reconciler(apart.database, apart.temporal).run_once()
        await apart.ended(session_id)

    assert (await apart.session_row(session_id))["status"] == "stopped"


async def test_a_test_that_ended_by_itself_is_not_started_again_to_be_stopped(apart: Laboratory):
    async with apart.worker():
        session_id = await apart.run(Plan(candles=1, model="simulated/hold"))
        before = await apart.session_row(session_id)
        await deactivate(apart)

        await Reconciler(apart.database, apart.temporal).run_once()
        # As if it had ended between the look at its row and the call.
        await apart.temporal.stop_for_good(
            StaleSession(
                id=session_id,
                user_id=apart.user_id,
                type="backtest",
                status="running",
                agent_name="agent",
                asset="BTC/USDT",
                timeframe="1h",
                mode="omni",
                data_set_id=before["data_set_id"],
            )
        )
        await apart.ended(session_id)

    assert await apart.session_row(session_id) == before
