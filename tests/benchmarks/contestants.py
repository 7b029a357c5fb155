"""What runs against each other: backtests, and workflows of their shape that do nothing."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Protocol
from uuid import UUID, uuid4

from tests.benchmarks.histories import activity_uses
from tests.benchmarks.noop import CarryingNoopWorkflow, NoopWorkflow
from tests.benchmarks.noop_messages import Cargo, Parcel
from tests.benchmarks.running_stack import NOOP_QUEUE, RunningStack
from tests.laboratory import Plan
from workflows.runtime import workflow_id

LONGEST_RUN_S = 900.0

_LATENCY = "SELECT avg(latency_ms)::float8 AS ms FROM decisions WHERE session_id = :id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A workflow that is ready to be run to its end."""

    workflow_id: str
    run: Callable[[], Awaitable[object]]


class Contestant(Protocol):
    """Something with three activities a candle, known by the first and the last of them."""

    name: str
    first_activity: str
    last_activity: str

    async def entry(self, candles: int) -> Entry:
        """One more workflow, with everything done that belongs to no measurement."""

    async def model_ms(self, entries: Sequence[Entry]) -> float:
        """The mean latency of the model per decision, as it was booked."""


class Backtests:
    """Sessions at instant speed that ask for a decision at every candle."""

    name = "backtest"
    first_activity = "calculate_indicators"
    last_activity = "request_decision"

    def __init__(self, stack: RunningStack, data_set: UUID) -> None:
        self._stack = stack
        self._data_set = data_set
        self._sessions: dict[str, UUID] = {}

    async def entry(self, candles: int) -> Entry:
        plan = Plan(candles=candles, data_set_id=self._data_set)
        session_id = await self._stack.laboratory.add_session(plan)
        name = workflow_id(session_id)
        self._sessions[name] = session_id
        return Entry(workflow_id=name, run=partial(self._run, session_id))

    async def model_ms(self, entries: Sequence[Entry]) -> float:
        sessions = [self._sessions[entry.workflow_id] for entry in entries]
        rows = [await self._stack.laboratory.rows(_LATENCY, each) for each in sessions]
        return mean(float(row[0]["ms"]) for row in rows)

    async def _run(self, session_id: UUID) -> None:
        await self._stack.laboratory.start(session_id)
        await self._stack.wait_for(session_id, seconds=LONGEST_RUN_S)


class Noops:
    """Workflows whose activities carry a number."""

    name = "no-op"
    first_activity = "count_first"
    last_activity = "count_third"

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack

    async def entry(self, candles: int) -> Entry:
        return Entry(
            workflow_id=(workflow_id := f"noop-{uuid4()}"),
            run=partial(
                self._stack.client.execute_workflow,
                NoopWorkflow.run,
                candles,
                id=workflow_id,
                task_queue=NOOP_QUEUE,
            ),
        )

    async def model_ms(self, entries: Sequence[Entry]) -> float:
        return 0.0


class CarryingNoops:
    """Workflows whose activities carry payloads as large as those of a session that has run."""

    name = "no-op, same payloads"
    first_activity = "carry_first"
    last_activity = "carry_third"

    def __init__(self, stack: RunningStack, cargo: Cargo) -> None:
        self._stack = stack
        self._cargo = cargo

    async def entry(self, candles: int) -> Entry:
        return Entry(
            workflow_id=(workflow_id := f"noop-{uuid4()}"),
            run=partial(
                self._stack.client.execute_workflow,
                CarryingNoopWorkflow.run,
                replace(self._cargo, candles=candles),
                id=workflow_id,
                task_queue=NOOP_QUEUE,
            ),
        )

    async def model_ms(self, entries: Sequence[Entry]) -> float:
        return 0.0


async def contestants(stack: RunningStack, data_set: UUID) -> list[Contestant]:
    """All three, the backtest first; it runs once, to find out how large its payloads are."""
    backtests = Backtests(stack, data_set)
    entry = await backtests.entry(30)
    await entry.run()
    cargo = await _cargo(stack, entry.workflow_id)
    return [backtests, Noops(stack), CarryingNoops(stack, cargo)]


async def _cargo(stack: RunningStack, workflow_id: str) -> Cargo:
    uses = await activity_uses(stack.client, workflow_id)
    names = ("calculate_indicators", "execute_step", "request_decision")
    parcels = [_parcel(uses[name].typical_input, uses[name].typical_result) for name in names]
    return Cargo(candles=0, first=parcels[0], second=parcels[1], third=parcels[2])


def _parcel(input_bytes: int, result_bytes: int) -> Parcel:
    envelope = len('{"content":"","answer":1000}')
    return Parcel(content="x" * max(input_bytes - envelope, 0), answer=result_bytes - 2)
