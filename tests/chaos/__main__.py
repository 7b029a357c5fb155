"""Kills everything there is under a running backtest and compares it with undisturbed ones.

python -m tests.chaos [--candles 2000] [--seed N]
"""

from pathlib import Path

from tests.chaos.market import candle_file
from tests.chaos.plans import Plan
from tests.chaos.playing import Say, options, play
from tests.chaos.reports import Report
from tests.chaos.scenario import run_scenario


def main() -> None:
    plan, keeps_files = _arguments()

    async def scenario(directory: Path, say: Say) -> Report:
        return await run_scenario(directory, candle_file(directory), plan, say)

    headline = f"{plan.candles} candles, seed {plan.seed}, {plan.model}"
    play(headline, scenario, keeps_files=keeps_files)


def _arguments() -> tuple[Plan, bool]:
    parser, usual = options("tests.chaos", __doc__), Plan()
    parser.add_argument("--candles", type=int, default=usual.candles)
    parser.add_argument("--model", default=usual.model, help="one that OpenRouter lists")
    parser.add_argument("--interval", type=int, default=1, help="candles between two decisions")
    given = parser.parse_args()
    plan = Plan(
        candles=given.candles,
        seed=given.seed,
        model=given.model,
        interval=given.interval,
        leniency=given.leniency,
    )
    return plan, given.keep


if __name__ == "__main__":
    main()
