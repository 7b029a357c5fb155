"""Repeats an activity on sessions alike, interrupted at every await, and compares what remains."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
from temporalio.exceptions import ApplicationError

from activities.contexts import SessionContexts
from activities.step_rows import plain_events, row_events
from db.repositories.steps import StepRepository
from events.records import count_events
from tests.activities.cases import Case
from tests.activities.interruptions import Interruption, Outcome, interrupted
from tests.activities.listening import Listener, durable
from tests.activities.processes import Machine, Process
from tests.activities.sessions import (
    Rows,
    Template,
    comparable_events,
    comparable_rows,
    exact_rows,
    template,
)
from tests.laboratory import Laboratory
from tests.plain_runs import PlainRun, environment

# More than any activity has awaits: who gets there is in an endless loop.
_MOST_AWAITS = 500
# As often as a twin attempt may be in the way.
_TRIES = 4
# These say how a result came about, or name the session.
_WORDING = frozenset(("summary", "result_id"))

Calls = dict[tuple[int, int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What attempts left behind, as it can be compared between sessions."""

    rows: Rows
    events: dict[int, Any]
    result: Any

    def differences(self, expected: "Report") -> Iterator[str]:
        """Where this differs from what was expected."""
        yield from _differences(expected.rows, self.rows, "rows")
        yield from _differences(expected.events, self.events, "events")
        yield from _differences(expected.result, self.result, "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A session whose first attempt was interrupted, and the process for the second.

    `sent` counts the first attempt's requests, `received` what the simulated OpenRouter had
    counted before it.
    """

    session_id: UUID
    first: Outcome
    process: Process
    calls_before: Calls
    calls_after: Calls
    sent: int
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where activities are tried: their laboratory, their processes, and who watches them."""

    laboratory: Laboratory
    machine: Machine
    server: psycopg.AsyncConnection[Any]
    listener: Listener
    contexts: SessionContexts

    async def prepared(self, case: Case) -> tuple[Template, Any]:
        """A session just before the activity, and the activity's input."""
        session_id = await self.laboratory.add_session(case.plan)
        process = self.machine.process()
        asked = await case.prepare(self.run(process, session_id, "run-1"))
        await process.end()
        return await template(self.server, session_id), asked

    def run(self, process: Process, session_id: UUID, run_id: str) -> PlainRun:
        return PlainRun(
            activities=process.activities,
            user_id=self.laboratory.user_id,
            session_id=session_id,
            run_id=run_id,
        )

    async def undisturbed(self, case: Case, original: Template, input: Any) -> Report:
        session_id = await original.copy(self.server)
        process = self.machine.process()
        result = await self.attempt(case, process, input_of(input, session_id))
        await process.end()
        return await self.report(original, session_id, result)

    async def attempt(self, case: Case, process: Process, input: Any, *, number: int = 1) -> Any:
        """One attempt, and further ones where its failure makes Temporal try again."""
        for tried in count(1):
            surroundings = environment(run_id=case.run_id, attempt=number)
            try:
                return await surroundings.run(case.activity(process.activities), input)
            except ApplicationError as e:
                if e.non_retryable or tried == _TRIES:
                    raise
            except Exception:
                if tried == _TRIES:
                    raise
        raise AssertionError

    async def report(self, original: Template, session_id: UUID, result: Any) -> Report:
        """Collect what is stored and what was published, and check what always holds."""
        rows = await exact_rows(self.server, session_id)
        live = durable(await self.listener.live(session_id))
        last_seq = rows["trading_sessions"][0]["last_seq"]
        assert sorted(live) == list(range(original.last_seq + 1, last_seq + 1))
        assert durable(await self.listener.stream(session_id)) == live
        assert await self.replayed(session_id, after=original.last_seq) == live
        check_numbering(rows)
        return Report(
            rows=comparable_rows(rows, session_id),
            events=comparable_events(live, session_id),
            result=comparable_result(result),
        )

    async def replayed(self, session_id: UUID, *, after: int) -> dict[int, Any]:
        """The events as a client that comes later gets them, from PostgreSQL."""
        database, user_id = self.laboratory.database, self.laboratory.user_id
        context = await self.contexts.get(str(session_id), str(user_id))
        frame = await self.contexts.frame(context)
        async with database.for_user(user_id) as session:
            rows = await StepRepository(session).rows_after(session_id, after, 1_000)
        events = [
            event
            for row in rows
            for event in (
                row_events(context, row, frame)
                if row.phase == "step"
                else plain_events(row, row.phase)
            )
        ]
        return {event.seq: asdict(event) for event in events if event.seq is not None}

    async def interrupt_everywhere(self, case: Case, how: Interruption, *, step: int = 1) -> int:
        """Interrupt the activity at every `step`-th of its awaits, each time on a session of its
        own, and run it again; return how many awaits it has.

        Where it begins is drawn, so that in time every await has its turn.
        """
        original, asked = await self.prepared(case)
        expected = await self.undisturbed(case, original, asked)
        process = self.machine.process()
        for at in range(random.randint(1, step), _MOST_AWAITS, step):
            session_id = await original.copy(self.server)
            mine = input_of(asked, session_id)
            trial = await self.interrupted(case, process, mine, at=at, how=how)
            where = f"interrupted at await {at} of {trial.first.suspensions}"
            process, sent = trial.process, len(trial.process.sent)
            result = await self.attempt(case, process, mine, number=2)
            found = await self.report(original, session_id, result)
            assert list(found.differences(expected)) == [], where
            await self.check_calls(trial, len(process.sent) - sent, where)
            if not case.is_warm:
                await process.end()
                process = self.machine.process()
            if trial.first.suspensions < at:
                await process.end()
                return trial.first.suspensions
        raise AssertionError("the activity never ends")

    async def interrupted(
        self, case: Case, process: Process, input: Any, *, at: int, how: Interruption
    ) -> Trial:
        """Make the first attempt, and what a kill makes of its process."""
        session_id = UUID(input.session_id)
        await process.warm_up()
        if case.is_warm:
            await _load_caches(process, input)
        calls_before, received = await self.calls(session_id), await self.received()
        sent = len(process.sent)
        activity = case.activity(process.activities)
        first = await interrupted(activity, input, at=at, how=how, run_id=case.run_id)
        sent = len(process.sent) - sent
        if first.was_killed:
            await process.kill()
            process = self.machine.process()
        else:
            assert not is_final(first.error), "an interruption ended the test for good"
            assert self.machine.busy_connections == 0, f"await {at} keeps a connection"
        return Trial(
            session_id=session_id,
            first=first,
            process=process,
            calls_before=calls_before,
            calls_after=await self.calls(session_id),
            sent=sent,
            received=received,
        )

    async def check_calls(self, trial: Trial, sent: int, where: str) -> None:
        """What was booked is not asked for again; what is unknown is, once, and is counted."""
        rows = await exact_rows(self.server, trial.session_id)
        made = {
            (row["candle_number"], row["call_no"]): row
            for row in rows["model_calls"]
            if (row["candle_number"], row["call_no"]) not in trial.calls_before
        }
        then = {key: trial.calls_after.get(key) for key in made}
        unknown = sum(status == "started" for status in then.values())
        booked = sum(status == "done" for status in then.values())
        assert all(row["status"] == "done" for row in made.values()), where
        assert rows["trading_sessions"][0]["possibly_paid_twice"] == unknown, where
        assert booked <= trial.sent <= booked + unknown, where
        assert sent == len(made) - booked, where
        received = await self.received() - trial.received
        assert len(made) <= received <= trial.sent + sent, where
        assert {key: row["attempts"] for key, row in made.items()} == {
            key: 2 if status == "started" else 1 for key, status in then.items()
        }, where

    async def calls(self, session_id: UUID) -> Calls:
        """The status of the session's model calls, by candle and number."""
        cursor = await self.server.execute(
            "SELECT candle_number, call_no, status FROM model_calls WHERE session_id = %s",
            (session_id,),
        )
        return {(candle, number): status for candle, number, status in await cursor.fetchall()}

    async def received(self) -> int:
        """How many requests the simulated OpenRouter has counted."""
        answer = await self.laboratory.http.get(f"{self.laboratory.openrouter_url}/debug/requests")
        return int(answer.json()["total"])


def input_of(input: Any, session_id: UUID) -> Any:
    """The same input for another session."""
    return replace(input, session_id=str(session_id))


def is_final(error: BaseException | None) -> bool:
    """Whether Temporal would not try again."""
    return isinstance(error, ApplicationError) and error.non_retryable


def comparable_result(result: Any) -> Any:
    """A result without its session's ids and without the words that say how it came about."""
    if result is None:
        return None
    return {key: value for key, value in asdict(result).items() if key not in _WORDING}


def check_numbering(rows: Rows) -> None:
    """Numbers without gaps or doubles, times strictly ascending to the microsecond."""
    next_seq, earliest = 1, datetime.fromisoformat("2000-01-01T00:00Z")
    for row in rows["steps"]:
        events = count_events(row["events"], row["phase"])
        happened_at = datetime.fromisoformat(row["happened_at"])
        assert (row["first_seq"], row["last_seq"]) == (next_seq, next_seq + events - 1)
        assert happened_at >= earliest
        next_seq += events
        earliest = happened_at + timedelta(microseconds=events)
    assert rows["trading_sessions"][0]["last_seq"] == next_seq - 1


def _differences(expected: Any, found: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _differences(expected.get(key), found.get(key), f"{path}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from _differences(*pair, f"{path}/{index}")
    elif expected != found:
        yield f"{path}: {found!r:.200} instead of {expected!r:.200}"


async def _load_caches(process: Process, input: Any) -> None:
    contexts = process.activities.sessions._contexts
    await contexts.frame(await contexts.get(input.session_id, input.user_id))
