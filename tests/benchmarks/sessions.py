"""A candle's time outside the model, beside a workflow of the same shape that does nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from uuid import UUID, uuid4

from tests.benchmarks.histories import activity_uses
from tests.benchmarks.noop import Cargo, CarryingNoopWorkflow, NoopWorkflow, Parcel
from tests.benchmarks.report import Row, Section, Table
from tests.benchmarks.running_stack import NOOP_QUEUE, RunningStack, running_stack
from tests.laboratory import Plan
from workflows.runtime import backtest_id

OURS, BARE, CARRYING = "backtest", "no-op", "no-op, same payloads"
TARGET_RATIO = 1.5
LONGEST_RUN_S = 900.0
WARM_UP_CANDLES = 30

_LATENCY = "SELECT avg(latency_ms)::float8 AS ms FROM decisions WHERE session_id = :id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many sessions at once, of so many candles each, measured so many times."""

    sessions: int
    candles: int
    repetitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One measurement: milliseconds per candle of a session, and what of it the model took.

    `processor_ms` is processor time per candle of any session, by process.
    """

    wall_ms: float
    model_ms: float
    processor_ms: Mapping[str, float]

    @property
    def outside_ms(self) -> float:
        return self.wall_ms - self.model_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """All measurements of a load, by what ran; those of one repetition have one index."""

    load: Load
    timings: Mapping[str, Sequence[Timing]]

    def outside_ms(self, kind: str) -> float:
        return median(timing.outside_ms for timing in self.timings[kind])

    def model_ms(self) -> float:
        return median(timing.model_ms for timing in self.timings[OURS])

    def ratios(self, kind: str) -> list[float]:
        """Ours to the no-op measured next to it, repetition by repetition."""
        pairs = zip(self.timings[OURS], self.timings[kind], strict=True)
        return [ours.outside_ms / noop.outside_ms for ours, noop in pairs]

    def processor_ms(self, kind: str, process: str) -> float:
        return median(timing.processor_ms.get(process, 0.0) for timing in self.timings[kind])


LOADS = (
    Load(sessions=1, candles=200, repetitions=5),
    Load(sessions=10, candles=60, repetitions=3),
    Load(sessions=50, candles=30, repetitions=3),
)
QUICK_LOADS = (
    Load(sessions=1, candles=30, repetitions=1),
    Load(sessions=10, candles=10, repetitions=1),
)


async def run(loads: Sequence[Load] = LOADS) -> list[LoadFigures]:
    """Measure every load with all three, which take turns on the same servers."""
    async with running_stack(("worker", "no-op worker")) as stack:
        data_set = await stack.add_candles(max(load.candles for load in loads) + WARM_UP_CANDLES)
        first = await stack.run(Plan(candles=WARM_UP_CANDLES, data_set_id=data_set))
        bench = _Bench(stack=stack, data_set=data_set, cargo=await _cargo(stack, first))
        for kind in (OURS, BARE, CARRYING):
            await bench.measure(kind, Load(sessions=4, candles=5, repetitions=1))
        return [await _measure_load(bench, load) for load in loads]


async def _measure_load(bench: "_Bench", load: Load) -> LoadFigures:
    timings: dict[str, list[Timing]] = {OURS: [], BARE: [], CARRYING: []}
    for repetition in range(load.repetitions):
        kinds = list(timings)
        turn = repetition % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            timings[kind].append(await bench.measure(kind, load))
    return LoadFigures(load=load, timings=timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    stack: RunningStack
    data_set: UUID
    cargo: Cargo

    async def measure(self, kind: str, load: Load) -> Timing:
        runs, ids = await self._prepare(kind, load)
        before, begun = self.stack.processor_seconds(), time.perf_counter()
        await asyncio.gather(*(run() for run in runs))
        wall_ms = (time.perf_counter() - begun) / load.candles * 1000
        after = self.stack.processor_seconds()
        candles = load.candles * load.sessions
        return Timing(
            wall_ms=wall_ms,
            model_ms=await self._model_ms(ids),
            processor_ms={name: (after[name] - before[name]) / candles * 1000 for name in after},
        )

    async def _prepare(
        self, kind: str, load: Load
    ) -> tuple[list[Callable[[], Awaitable[object]]], list[UUID]]:
        """What is to run, with everything done that does not belong to the measurement."""
        if kind != OURS:
            noop = self._count if kind == BARE else self._carry
            return [partial(noop, load.candles)] * load.sessions, []
        plan = Plan(candles=load.candles, data_set_id=self.data_set)
        ids = [await self.stack.laboratory.add_session(plan) for _ in range(load.sessions)]
        return [partial(self._backtest, session_id) for session_id in ids], ids

    async def _backtest(self, session_id: UUID) -> None:
        await self.stack.laboratory.start(session_id)
        await self.stack.wait_for(session_id, seconds=LONGEST_RUN_S)

    async def _count(self, candles: int) -> None:
        await self.stack.client.execute_workflow(
            NoopWorkflow.run, candles, id=f"noop-{uuid4()}", task_queue=NOOP_QUEUE
        )

    async def _carry(self, candles: int) -> None:
        cargo = Cargo(
            candles=candles,
            first=self.cargo.first,
            second=self.cargo.second,
            third=self.cargo.third,
        )
        await self.stack.client.execute_workflow(
            CarryingNoopWorkflow.run, cargo, id=f"noop-{uuid4()}", task_queue=NOOP_QUEUE
        )

    async def _model_ms(self, ids: Sequence[UUID]) -> float:
        rows = [await self.stack.laboratory.rows(_LATENCY, session_id) for session_id in ids]
        return mean(float(row[0]["ms"]) for row in rows) if rows else 0.0


async def _cargo(stack: RunningStack, session_id: UUID) -> Cargo:
    """Parcels that are as large as the payloads of a session that has run."""
    uses = await activity_uses(stack.client, backtest_id(session_id))
    names = ("calculate_indicators", "execute_step", "request_decision")
    parcels = [_parcel(uses[name].typical_input, uses[name].typical_result) for name in names]
    return Cargo(candles=0, first=parcels[0], second=parcels[1], third=parcels[2])


def _parcel(input_bytes: int, result_bytes: int) -> Parcel:
    envelope = len('{"content":"","answer":1000}')
    return Parcel(content="x" * max(input_bytes - envelope, 0), answer=result_bytes - 2)


def report(found: Sequence[LoadFigures]) -> Section:
    """The ratios, and where the processor time goes."""
    return Section(
        name="per-candle time outside the model",
        rows=[row for figures in found for row in _rows(figures)],
        method=_METHOD,
        tables=[_times(found), *(_processor_time(figures) for figures in found)],
    )


_METHOD = f"""\
A decision is asked for at every candle. The wall time from start to result of all sessions that
run at once, divided by the candles of one of them, minus the latency of the model as it was booked
with each decision. Claim, result and everything else that a session does is in it. Beside it two
workflows with the same three activities per candle, the same queues, options, summaries and worker
settings, whose activities do nothing: the first carries a number, the second as many bytes as ours.
They take turns on the same servers (PostgreSQL with fsync); the ratio is the median of the ratios
of neighbours. Target: at most {TARGET_RATIO} beside the first."""


def _rows(figures: LoadFigures) -> list[Row]:
    ours = f"{figures.outside_ms(OURS):.1f} ms"
    return [
        Row(
            case=f"{_sessions(figures.load)}, beside {kind}",
            measured=ours,
            beside=f"{figures.outside_ms(kind):.1f} ms",
            ratio=f"{median(figures.ratios(kind)):.2f}",
            target=f"≤ {TARGET_RATIO}" if kind == BARE else "",
        )
        for kind in (BARE, CARRYING)
    ]


def _sessions(load: Load) -> str:
    return "1 session" if load.sessions == 1 else f"{load.sessions} sessions at once"


def _times(found: Sequence[LoadFigures]) -> Table:
    return Table(
        title="Wall time per candle",
        header=(
            *("sessions", "candles each", "backtest, ms", "of it model, ms", "outside, ms"),
            *("no-op, ms", "no-op, same payloads, ms", "candles/s in all", "ratios to no-op"),
        ),
        rows=[
            [
                str(each.load.sessions),
                str(each.load.candles),
                f"{each.outside_ms(OURS) + each.model_ms():.1f}",
                f"{each.model_ms():.1f}",
                f"{each.outside_ms(OURS):.1f}",
                f"{each.outside_ms(BARE):.1f}",
                f"{each.outside_ms(CARRYING):.1f}",
                f"{median(_rates(each)):.1f}",
                ", ".join(f"{ratio:.2f}" for ratio in each.ratios(BARE)),
            ]
            for each in found
        ],
    )


def _rates(figures: LoadFigures) -> list[float]:
    return [figures.load.sessions / timing.wall_ms * 1000 for timing in figures.timings[OURS]]


def _processor_time(figures: LoadFigures) -> Table:
    kinds = list(figures.timings)
    processes = list(figures.timings[OURS][0].processor_ms)
    return Table(
        title=f"Processor time per candle, {_sessions(figures.load)}",
        header=("process", *(f"{kind}, ms" for kind in kinds)),
        rows=[
            [process, *(f"{figures.processor_ms(kind, process):.2f}" for kind in kinds)]
            for process in processes
        ],
    )
