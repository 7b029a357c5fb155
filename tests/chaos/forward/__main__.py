"""Kills everything there is under running forward tests, and counts what they did.

python -m tests.chaos.forward [--kills 20] [--seed N]
"""

from pathlib import Path

from tests.chaos.forward.plans import ForwardPlan
from tests.chaos.forward.scenario import run_forward_scenario
from tests.chaos.playing import Say, options, play
from tests.chaos.reports import Report


def main() -> None:
    plan, keeps_files = _arguments()

    async def scenario(directory: Path, say: Say) -> Report:
        return await run_forward_scenario(directory, plan, say)

    headline = f"{len(plan.victims)} kills, seed {plan.seed}"
    play(headline, scenario, keeps_files=keeps_files)


def _arguments() -> tuple[ForwardPlan, bool]:
    parser, usual = options("tests.chaos.forward", __doc__), ForwardPlan()
    parser.add_argument("--kills", type=int, default=len(usual.victims))
    parser.add_argument("--candle-seconds", type=float, default=usual.candle_seconds)
    given = parser.parse_args()
    plan = ForwardPlan(
        seed=given.seed,
        victims=usual.victims[: given.kills],
        candle_seconds=given.candle_seconds,
        leniency=given.leniency,
    )
    return plan, given.keep


if __name__ == "__main__":
    main()
