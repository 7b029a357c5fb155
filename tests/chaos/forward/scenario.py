"""The whole story: tests are earned and started, killed under, left without Temporal, stopped."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.chaos.accounts import Database
from tests.chaos.forward.checks import LOST, evidence_lines, kill_lines, standstills
from tests.chaos.forward.plans import ForwardPlan
from tests.chaos.forward.runs import Evidence, ForwardTrack, Running
from tests.chaos.kills import Kill
from tests.chaos.market import rising_file
from tests.chaos.people import signed_up
from tests.chaos.plans import Strike
from tests.chaos.reports import Report
from tests.chaos.scenario import started

# In time, by each test: it has come back to its rhythm.
DECISIONS_AFTERWARDS = 3
CLOSED_SECONDS = 60.0


async def run_forward_scenario(
    directory: Path, plan: ForwardPlan, say: Callable[[str], None]
) -> Report:
    """Run the plan on a stack of its own and say how it goes."""
    settings = {"SIMULATED_EXCHANGE_SPEED": repr(plan.speed)}
    async with started(directory, say, settings) as stack, signed_up(stack) as person:
        asset = ("--asset", "BTC/USDT", "--timeframe", "1h")
        await stack.alphalab("candles", "import", str(rising_file(directory)), *asset)
        database = Database(stack.setting("DATABASE_URL"))
        track = ForwardTrack(stack=stack, person=person, database=database, plan=plan)
        try:
            return _report(await _run(track, say), plan)
        finally:
            await database.close()


async def _run(track: ForwardTrack, say: Callable[[str], None]) -> list[Evidence]:
    tests = await track.started()
    client = track.client(tests[0])
    watching = asyncio.create_task(client.run())
    try:
        kills = await _disturbed(track, tests, say)
        ended = [await track.stopped(each, kills) for each in tests]
        await asyncio.wait_for(watching, timeout=CLOSED_SECONDS)
    finally:
        watching.cancel()
    say("stopped all")
    return [replace(ended[0], client=client), *ended[1:]]


async def _disturbed(
    track: ForwardTrack, tests: Sequence[Running], say: Callable[[str], None]
) -> list[Kill]:
    await track.goes_on(tests, 1)
    say(f"{len(tests)} tests decide; now {len(track.plan.victims)} kills")
    kills = await track.strike(track.plan.strikes(), tests[0])
    await track.goes_on(tests, DECISIONS_AFTERWARDS)
    say("all of them go on")
    if track.plan.loses_temporal:
        kills += await track.strike([Strike(victim=LOST, candle=0, delay=1.0)], tests[0])
        await track.goes_on(tests, DECISIONS_AFTERWARDS)
        say("all of them go on without what Temporal knew")
    return kills


def _report(tests: Sequence[Evidence], plan: ForwardPlan) -> Report:
    report = Report()
    for evidence in tests:
        report.add(evidence.subject.name, list(evidence_lines(evidence)))
    report.add("kills", list(kill_lines(tests, plan)))
    report.standstills = standstills(tests)
    return report
