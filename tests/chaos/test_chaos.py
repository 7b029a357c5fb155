"""Nothing that kills a process changes the outcome: `python -m tests.chaos` in short."""

from pathlib import Path

import pytest

from tests.chaos.market import candle_file
from tests.chaos.plans import Plan
from tests.chaos.scenario import run_scenario

PLAN = Plan(
    candles=30,
    seed=7,
    model="simulated/flip",
    victims=("request", "redis", "everything"),
    bystander_candles=16,
    references=1,
    orderly_restart=False,
    leniency=4.0,
)


@pytest.mark.system
@pytest.mark.timeout(240)
async def test_nothing_that_kills_a_process_changes_the_outcome(tmp_path: Path):
    report = await run_scenario(tmp_path, candle_file(tmp_path), PLAN, print)

    assert report.failures == []
    assert len(report.standstills) == len(PLAN.victims)
