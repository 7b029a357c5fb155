"""A candle's time outside the model, beside a workflow of the same shape that does nothing."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

import psutil

from tests.benchmarks.contestants import Backtests, CarryingNoops, Contestant, Noops, contestants
from tests.benchmarks.histories import stretch_seconds
from tests.benchmarks.report import Row, Section, Table
from tests.benchmarks.running_stack import RunningStack, running_stack

OURS, BARE, CARRYING = Backtests.name, Noops.name, CarryingNoops.name
TARGET_RATIO = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many sessions at once, of so many candles each, measured so many times."""

    sessions: int
    candles: int
    repetitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One measurement: milliseconds per candle of a session, and what of it the model took.

    `whole_ms` includes how sessions start and end. `processor_ms` is processor time per candle of
    any session, by process, and `foreign` the share of the processors that others used meanwhile.
    """

    wall_ms: float
    whole_ms: float
    model_ms: float
    processor_ms: Mapping[str, float]
    foreign: float

    @property
    def outside_ms(self) -> float:
        return self.wall_ms - self.model_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """All measurements of a load, by what ran; those of one repetition have one index."""

    load: Load
    timings: Mapping[str, Sequence[Timing]]

    def outside_ms(self, name: str) -> float:
        return median(timing.outside_ms for timing in self.timings[name])

    def ratios(self) -> list[float]:
        """Ours to the bare no-op measured next to it, repetition by repetition."""
        pairs = zip(self.timings[OURS], self.timings[BARE], strict=True)
        return [ours.outside_ms / noop.outside_ms for ours, noop in pairs]

    def ratio(self, name: str) -> float:
        if name == BARE:
            return median(self.ratios())
        return self.outside_ms(OURS) / self.outside_ms(name)

    def processor_ms(self, name: str, process: str) -> float:
        return median(timing.processor_ms[process] for timing in self.timings[name])

    @property
    def foreign(self) -> float:
        return max(timing.foreign for each in self.timings.values() for timing in each)


LOADS = (
    Load(sessions=1, candles=100, repetitions=15),
    Load(sessions=10, candles=40, repetitions=9),
    Load(sessions=50, candles=32, repetitions=5),
)
QUICK_LOADS = (
    Load(sessions=1, candles=30, repetitions=1),
    Load(sessions=10, candles=10, repetitions=1),
)


async def run(loads: Sequence[Load] = LOADS) -> list[LoadFigures]:
    """Measure every load with all contestants, which take turns on the same servers."""
    async with running_stack(("worker", "no-op worker")) as stack:
        data_set = await stack.add_candles(max(100, *(load.candles for load in loads)))
        entered = await contestants(stack, data_set)
        for each in entered:
            await measure(stack, each, Load(sessions=4, candles=5, repetitions=1))
        return [await _measure_load(stack, entered, load) for load in loads]


async def _measure_load(
    stack: RunningStack, entered: Sequence[Contestant], load: Load
) -> LoadFigures:
    """The two that are compared go first in turn; the third is measured once, to explain them."""
    timings: dict[str, list[Timing]] = {each.name: [] for each in entered}
    ours, bare, carrying = entered
    for repetition in range(load.repetitions):
        for each in (ours, bare) if repetition % 2 == 0 else (bare, ours):
            timings[each.name].append(await measure(stack, each, load))
    timings[carrying.name].append(await measure(stack, carrying, load))
    return LoadFigures(load=load, timings=timings)


async def measure(stack: RunningStack, contestant: Contestant, load: Load) -> Timing:
    """Run as many workflows at once as the load says."""
    entries = [await contestant.entry(load.candles) for _ in range(load.sessions)]
    begun, ours, all_ = time.perf_counter(), stack.processor_seconds(), _processor_seconds()
    await asyncio.gather(*(entry.run() for entry in entries))
    seconds = time.perf_counter() - begun
    spent = {name: after - ours[name] for name, after in stack.processor_seconds().items()}
    foreign = _processor_seconds() - all_ - sum(spent.values())
    stretches = [
        await stretch_seconds(
            stack.client,
            entry.workflow_id,
            first=contestant.first_activity,
            last=contestant.last_activity,
        )
        for entry in entries
    ]
    candles = load.candles * load.sessions
    return Timing(
        wall_ms=mean(stretches) / load.candles * 1000,
        whole_ms=seconds / load.candles * 1000,
        model_ms=await contestant.model_ms(entries),
        processor_ms={name: each / candles * 1000 for name, each in spent.items()},
        foreign=max(foreign, 0.0) / (seconds * (os.cpu_count() or 1)),
    )


def _processor_seconds() -> float:
    """What the machine's processors did for anybody but this process."""
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - own.user - own.system


def report(found: Sequence[LoadFigures]) -> Section:
    """The ratios, and where the processor time goes."""
    return Section(
        name="per-candle time outside the model",
        rows=[row for figures in found for row in _rows(figures)],
        method=_METHOD,
        tables=[_times(found), *(_processor_time(figures) for figures in found)],
    )


_METHOD = f"""\
Sessions with a decision at every candle. From the first candle's first activity to the end of the
last candle's last one, as Temporal's histories have it, the mean of all sessions that run at once,
divided by their candles; minus the latency of the model as it was booked with each decision. Beside
it two workflows with the same three activities per candle, the same queues, options, summaries and
worker settings, whose activities do nothing: the first carries a number, the second as many bytes
as ours, measured once. They take turns on the same servers (PostgreSQL with fsync); the ratio is
the median of the ratios of neighbours. Target: at most {TARGET_RATIO} beside the first."""


def _rows(figures: LoadFigures) -> list[Row]:
    return [
        Row(
            case=f"{_sessions(figures.load)}, beside {name}",
            measured=f"{figures.outside_ms(OURS):.1f} ms",
            beside=f"{figures.outside_ms(name):.1f} ms",
            ratio=f"{figures.ratio(name):.2f}",
            target=f"≤ {TARGET_RATIO}" if name == BARE else "",
        )
        for name in (BARE, CARRYING)
    ]


def _sessions(load: Load) -> str:
    return "1 session" if load.sessions == 1 else f"{load.sessions} sessions at once"


def _times(found: Sequence[LoadFigures]) -> Table:
    return Table(
        title="Wall time per candle of a session",
        header=(
            *("sessions", "candles each", "backtest, ms", "its model, ms", "its start to end, ms"),
            *("no-op, ms", "no-op, same payloads, ms", "ratios to no-op", "used by others"),
        ),
        rows=[_line(each) for each in found],
        note=(
            "Start to end is everything, divided by the candles: claim, loading the candles and "
            "the result as well. The last column is the largest share of the processors that "
            "other programs took in a measurement: where it is not near zero, look at the ratios "
            "only, or measure again."
        ),
    )


def _line(figures: LoadFigures) -> list[str]:
    ours = figures.timings[OURS]
    return [
        str(figures.load.sessions),
        str(figures.load.candles),
        f"{median(each.wall_ms for each in ours):.1f}",
        f"{median(each.model_ms for each in ours):.1f}",
        f"{median(each.whole_ms for each in ours):.1f}",
        f"{figures.outside_ms(BARE):.1f}",
        f"{figures.outside_ms(CARRYING):.1f}",
        ", ".join(f"{ratio:.2f}" for ratio in figures.ratios()),
        f"{figures.foreign:.0%}",
    ]


def _processor_time(figures: LoadFigures) -> Table:
    names = list(figures.timings)
    processes = list(figures.timings[OURS][0].processor_ms)
    columns = [[figures.processor_ms(name, process) for process in processes] for name in names]
    rows = [
        [process, *(f"{column[i]:.2f}" for column in columns)]
        for i, process in enumerate(processes)
    ]
    return Table(
        title=f"Processor time per candle, {_sessions(figures.load)}",
        header=("process", *(f"{name}, ms" for name in names)),
        rows=[*rows, ["all", *(f"{sum(column):.2f}" for column in columns)]],
        note="How sessions start and end is included.",
    )
