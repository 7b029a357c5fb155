"""Kills everything there is under running forward tests, and counts what they did.

python -m tests.chaos.forward [--kills 20] [--seed N]
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.chaos.forward.plans import ForwardPlan
from tests.chaos.forward.scenario import run_forward_scenario
from tests.chaos.reports import show

output = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def main() -> None:
    plan, keeps_files = _arguments()
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    output.print(f"{len(plan.victims)} kills, seed {plan.seed}; files in {directory}")
    try:
        report = asyncio.run(run_forward_scenario(directory, plan, _say))
    finally:
        if not keeps_files:
            shutil.rmtree(directory, ignore_errors=True)
    show(report, output)
    output.print(f"{time.monotonic() - began:.0f} s in all, {len(report.failures)} lines failed")
    sys.exit(1 if report.failures else 0)


def _arguments() -> tuple[ForwardPlan, bool]:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.forward", description=__doc__)
    usual = ForwardPlan()
    parser.add_argument("--kills", type=int, default=len(usual.victims))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)))
    parser.add_argument("--candle-seconds", type=float, default=usual.candle_seconds)
    parser.add_argument("--leniency", type=float, default=1.0, help="factor for limits of time")
    parser.add_argument("--keep", action="store_true", help="leave the stack's files")
    given = parser.parse_args()
    plan = ForwardPlan(
        seed=given.seed,
        victims=usual.victims[: given.kills],
        candle_seconds=given.candle_seconds,
        leniency=given.leniency,
    )
    return plan, given.keep


def _say(what: str) -> None:
    output.print(f"{time.strftime('%H:%M:%S')} {what}")


if __name__ == "__main__":
    main()
