"""The whole story: import, two undisturbed runs, one under kills, and three that were paused."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from local.processes import free_port
from tests.chaos.accounts import Database, Ledger
from tests.chaos.bystanders import Bystanders, paused_bystanders
from tests.chaos.checks import (
    Line,
    bystander_lines,
    import_lines,
    kill_lines,
    resumed_lines,
    run_lines,
    same_lines,
    standstills,
    stopped_lines,
)
from tests.chaos.people import signed_up
from tests.chaos.plans import Plan
from tests.chaos.reports import Report
from tests.chaos.runs import Run, Track
from tests.chaos.stacks import ChaosStack

AGENT = "Chaos"


async def run_scenario(
    directory: Path, candle_file: Path, plan: Plan, say: Callable[[str], None]
) -> Report:
    """Run the plan on a stack of its own and say how it goes."""
    report = Report()
    async with started(directory, say) as stack:
        report.add("import", await _import(stack, candle_file, plan))
        async with signed_up(stack) as person:
            track = Track(
                stack=stack,
                person=person,
                database=Database(stack.setting("DATABASE_URL")),
                ledger=Ledger(stack.setting("OPENROUTER_BASE_URL")),
                plan=plan,
            )
            try:
                await _compare(track, report, say)
            finally:
                await track.database.close()
    return report


async def _compare(track: Track, report: Report, say: Callable[[str], None]) -> None:
    plan = track.plan
    agent_id = await track.person.add_agent(AGENT, plan.model)
    reference = await _run(track, agent_id, "undisturbed run", report, say)
    for number in range(2, plan.references + 1):
        again = await _run(track, agent_id, f"undisturbed run {number}", report, say)
        report.add(f"undisturbed run {number}", list(same_lines(again, reference)))
    bystanders = await paused_bystanders(track)
    report.add("bystanders", list(bystander_lines(bystanders)))
    say("three bystanders are paused")
    disturbed = await _run(track, agent_id, "run under kills", report, say, is_disturbed=True)
    report.add("run under kills", list(kill_lines(disturbed, plan)))
    report.add("run under kills", list(same_lines(disturbed, reference)))
    report.standstills = standstills(disturbed)
    if plan.orderly_restart:
        await track.stack.stop()
        say(f"stopped the stack in order; started again in {await track.stack.start():.1f} s")
    report.add("bystanders", await _take_up(bystanders))


async def _run(
    track: Track,
    agent_id: str,
    name: str,
    report: Report,
    say: Callable[[str], None],
    *,
    is_disturbed: bool = False,
) -> Run:
    run = await track.run(agent_id, is_disturbed=is_disturbed)
    pace = run.seconds / track.plan.candles * 1000
    say(f"{name}: {track.plan.candles} candles in {run.seconds:.1f} s, {pace:.0f} ms a candle")
    report.add(name, list(run_lines(run, track.plan)))
    return run


async def _take_up(bystanders: Bystanders) -> list[Line]:
    ends, expected = await bystanders.take_up(), bystanders.undisturbed
    return [
        *resumed_lines(ends.resumed, expected),
        *stopped_lines(ends.closed, expected, closes=True),
        *stopped_lines(ends.kept, expected, closes=False),
    ]


async def _import(stack: ChaosStack, candle_file: Path, plan: Plan) -> list[Line]:
    began = time.monotonic()
    asset = ("--asset", "BTC/USDT", "--timeframe", "1h")
    printed = await stack.alphalab("candles", "import", str(candle_file), *asset)
    seconds = time.monotonic() - began
    return list(import_lines(printed.splitlines()[0], seconds, plan))


@asynccontextmanager
async def started(
    directory: Path, say: Callable[[str], None], settings: Mapping[str, str] | None = None
) -> AsyncIterator[ChaosStack]:
    """A stack of its own, with settings that a newcomer does not have."""
    stack = ChaosStack(directory / "stack", api_port=free_port(), settings=settings)
    try:
        say(f"the stack is ready after {await stack.start():.1f} s")
        yield stack
    finally:
        await stack.stop()
