"""Whatever interrupts an activity, wherever: run again, it leaves what one run leaves."""

import pytest

from tests.activities.cases import CASES, Case
from tests.activities.experiments import Bench
from tests.activities.interruptions import Interruption


@pytest.mark.parametrize("how", ["kill", "cancel"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_activity_interrupted_at_any_await_leaves_what_one_run_leaves(
    bench: Bench, case: Case, how: Interruption, request: pytest.FixtureRequest
):
    interruptions = await bench.interrupt_everywhere(case, how)

    request.node.user_properties.append(("interruptions", interruptions))
    assert interruptions >= 4, "an activity that touches PostgreSQL waits for it"
