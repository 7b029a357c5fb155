"""A session with thousands of decisions: its histories stay short, its worker does not grow."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from tests.benchmarks.histories import RunSize, run_sizes
from tests.benchmarks.report import Row, Section, Table
from tests.benchmarks.running_stack import RunningStack, running_stack
from tests.laboratory import Plan
from workflows.runtime import workflow_id

# Where the server begins to warn.
WARNING_EVENTS = 10_240
WARNING_BYTES = 10 * 2**20
LONGEST_RUN_S = 3_600.0
SAMPLES = 20
# Caches fill at first; growth is counted from here on.
SETTLED_AFTER = 0.2

_CURSOR = "SELECT cursor FROM trading_sessions WHERE id = :id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The worker's memory when the session had come to a candle."""

    candle: int
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueFigures:
    """A session's runs, its pace, and its worker's memory along the way."""

    candles: int
    seconds: float
    runs: Sequence[RunSize]
    samples: Sequence[Sample]

    @property
    def longest_events(self) -> int:
        return max(run.events for run in self.runs)

    @property
    def longest_bytes(self) -> int:
        return max(run.bytes for run in self.runs)

    @property
    def growth_bytes(self) -> int:
        """From where the caches are filled to the end."""
        settled = [each for each in self.samples if each.candle >= SETTLED_AFTER * self.candles]
        return settled[-1].resident_bytes - settled[0].resident_bytes if settled else 0


async def run(candles: int = 10_000) -> ContinueFigures:
    """Run one session with a decision at every candle, on a stack of its own."""
    async with running_stack() as stack:
        data_set = await stack.add_candles(candles)
        await stack.run(Plan(candles=20, data_set_id=data_set))
        session_id = await stack.laboratory.add_session(Plan(candles=candles, data_set_id=data_set))
        begun = time.perf_counter()
        await stack.laboratory.start(session_id)
        watching = asyncio.create_task(_watch(stack, session_id, candles))
        await stack.wait_for(session_id, seconds=LONGEST_RUN_S)
        seconds = time.perf_counter() - begun
        return ContinueFigures(
            candles=candles,
            seconds=seconds,
            runs=await run_sizes(stack.client, workflow_id(session_id)),
            samples=await watching,
        )


async def _watch(stack: RunningStack, session_id: UUID, candles: int) -> list[Sample]:
    """Look at the worker's memory each time another part of the session is done."""
    samples: list[Sample] = []
    while len(samples) <= SAMPLES:
        cursor = int((await stack.laboratory.rows(_CURSOR, session_id))[0]["cursor"])
        if cursor >= len(samples) * candles / SAMPLES:
            samples.append(Sample(candle=cursor, resident_bytes=stack.resident_bytes("worker")))
        else:
            await asyncio.sleep(0.25)
    return samples


def report(found: ContinueFigures) -> Section:
    """The longest history against the server's limits, and the worker's growth."""
    rows = [
        Row(
            case=f"{found.candles:,} decisions in one session",
            measured=f"{found.candles / found.seconds:.1f} candles/s",
            beside=f"{len(found.runs)} runs",
        ),
        Row(
            case="longest history, events",
            measured=f"{found.longest_events:,}",
            target=f"< {WARNING_EVENTS:,}",
        ),
        Row(
            case="longest history, bytes",
            measured=f"{found.longest_bytes / 2**20:.2f} MiB",
            target=f"< {WARNING_BYTES // 2**20} MiB",
        ),
        Row(
            case=f"worker's memory, growth over the last {1 - SETTLED_AFTER:.0%}",
            measured=f"{found.growth_bytes / 2**20:+.1f} MiB",
            beside=f"{found.samples[-1].resident_bytes / 2**20:.0f} MiB at the end",
        ),
    ]
    return Section(name="continue-as-new", rows=rows, method=_METHOD, tables=[_memory(found)])


_METHOD = """\
One session at instant speed with a decision at every candle. A run of the workflow hands over to
the next one when the server suggests it; the limits are where the server begins to warn of a
history's length."""


def _memory(found: ContinueFigures) -> Table:
    return Table(
        title="Resident memory of the worker",
        header=("candle", "MiB"),
        rows=[[f"{each.candle:,}", f"{each.resident_bytes / 2**20:.1f}"] for each in found.samples],
    )
