"""Whatever interrupts an activity, wherever: run again, it leaves what one run leaves."""

import pytest

from tests.activities.cases import CASES, DECISIONS, Case
from tests.activities.experiments import Bench
from tests.activities.interruptions import Interruption

# A cancelled attempt leaves the rows that a killed one does; what it unwinds through is the
# activity's, whatever that had found to do. A model call is more than rows.
CANCELLED = [*{case.activity: case for case in reversed(CASES)}.values(), *DECISIONS]
ATTEMPTS = [
    *((case, "kill") for case in CASES),
    *((case, "cancel") for case in CASES if case in CANCELLED),
]


@pytest.mark.parametrize(
    ("case", "how"), ATTEMPTS, ids=[f"{case.name}-{how}" for case, how in ATTEMPTS]
)
async def test_an_activity_interrupted_at_any_await_leaves_what_one_run_leaves(
    bench: Bench, case: Case, how: Interruption, request: pytest.FixtureRequest
):
    interruptions = await bench.interrupt_everywhere(case, how)

    request.node.user_properties.append(("interruptions", interruptions))
    assert interruptions >= 4, "an activity that touches PostgreSQL waits for it"
