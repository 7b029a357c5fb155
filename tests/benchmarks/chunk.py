"""A long session whose decisions are far apart, from its start to its result."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.histories import ActivityUse, activity_uses
from tests.benchmarks.report import Row, Section, Table
from tests.benchmarks.running_stack import running_stack
from tests.laboratory import Plan
from workflows.runtime import workflow_id

TARGET_RATE = 2_000
LONGEST_RUN_S = 900.0

_STORED = """
    SELECT s.last_seq AS events, count(*) AS steps
    FROM trading_sessions s JOIN steps ON steps.session_id = s.id AND steps.phase = 'step'
    WHERE s.id = :id GROUP BY s.last_seq
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFigures:
    """How long the session took, what it stored, and which activities took the time."""

    candles: int
    interval: int
    seconds: float
    events: int
    activities: Mapping[str, ActivityUse]
    processor_seconds: Mapping[str, float]

    @property
    def candles_per_second(self) -> float:
        return self.candles / self.seconds

    @property
    def finish_seconds(self) -> float:
        return sum(self.activities["finish"].seconds)


async def run(candles: int = 50_000, interval: int = 500) -> ChunkFigures:
    """Run one session with a decision every `interval` candles, on a stack of its own."""
    async with running_stack() as stack:
        data_set = await stack.add_candles(candles)
        await stack.run(Plan(candles=20, interval=10, data_set_id=data_set))
        plan = Plan(candles=candles, interval=interval, data_set_id=data_set)
        session_id = await stack.laboratory.add_session(plan)
        before, begun = stack.processor_seconds(), time.perf_counter()
        await stack.laboratory.start(session_id)
        await stack.wait_for(session_id, seconds=LONGEST_RUN_S)
        seconds, after = time.perf_counter() - begun, stack.processor_seconds()
        stored = (await stack.laboratory.rows(_STORED, session_id))[0]
        assert stored["steps"] == candles, f"{stored['steps']} steps for {candles} candles"
        return ChunkFigures(
            candles=candles,
            interval=interval,
            seconds=seconds,
            events=stored["events"],
            activities=await activity_uses(stack.client, workflow_id(session_id)),
            processor_seconds={name: after[name] - before[name] for name in after},
        )


def report(found: ChunkFigures) -> Section:
    """Candles a second, and what the time went into."""
    return Section(
        name="long session in chunks",
        rows=[
            Row(
                case=f"{found.candles:,} candles, a decision every {found.interval}",
                measured=f"{found.candles_per_second:,.0f} candles/s",
                beside=f"{found.seconds:.1f} s",
                target=f"≥ {TARGET_RATE:,} candles/s",
            ),
            Row(case="its result (`finish`)", measured=f"{found.finish_seconds:.2f} s"),
            Row(
                case="its events, stored and published",
                measured=f"{found.events / found.seconds:,.0f} events/s",
                beside=f"{found.events:,} events",
            ),
        ],
        method=_METHOD,
        tables=[_activities(found), _processor_time(found)],
    )


_METHOD = """\
One session at instant speed, from its start to its stored result: every candle is a row of `steps`
with its state, statistics and events, and every event goes to Redis. The candles are simulated, and
neither they nor their indicators are in memory at the start."""


def _activities(found: ChunkFigures) -> Table:
    uses = sorted(found.activities.items(), key=lambda item: -sum(item[1].seconds))
    rows = [
        [name, str(len(use.seconds)), f"{sum(use.seconds):.2f}", f"{_mean_ms(use):.1f}"]
        for name, use in uses
    ]
    inside = sum(sum(use.seconds) for use in found.activities.values())
    return Table(
        title="Seconds by activity",
        header=("activity", "times", "seconds", "ms each"),
        rows=[*rows, ["between activities", "", f"{found.seconds - inside:.2f}", ""]],
        note="An activity's time is Temporal's: from scheduled to completed.",
    )


def _mean_ms(use: ActivityUse) -> float:
    return sum(use.seconds) / len(use.seconds) * 1000


def _processor_time(found: ChunkFigures) -> Table:
    return Table(
        title="Processor seconds by process",
        header=("process", "seconds"),
        rows=[[name, f"{spent:.2f}"] for name, spent in found.processor_seconds.items()],
    )
