"""Whatever interrupts an activity, wherever: run again, it leaves what one run leaves."""

import pytest

from tests.activities.cases import CASES, DECISIONS, Case
from tests.activities.experiments import Bench
from tests.activities.interruptions import Interruption

# One case of each activity is killed at every await, and a model call, which is more than rows, is
# also cancelled at every one. What else may lie before an activity, and cancelling it, is tried at
# every third await.
FIRST = [*{case.activity: case for case in reversed(CASES)}.values()]
ATTEMPTS: list[tuple[Case, Interruption, int]] = [
    *((case, "kill", 1 if case in FIRST or case in DECISIONS else 3) for case in CASES),
    *(
        (case, "cancel", 1 if case in DECISIONS else 3)
        for case in CASES
        if case in FIRST or case in DECISIONS
    ),
]


@pytest.mark.parametrize(
    ("case", "how", "step"), ATTEMPTS, ids=[f"{case.name}-{how}" for case, how, _ in ATTEMPTS]
)
async def test_an_activity_interrupted_at_any_await_leaves_what_one_run_leaves(
    bench: Bench, case: Case, how: Interruption, step: int, request: pytest.FixtureRequest
):
    awaits = await bench.interrupt_everywhere(case, how, step=step)

    request.node.user_properties.append(("awaits", awaits))
    assert awaits >= 4, "an activity that touches PostgreSQL waits for it"
