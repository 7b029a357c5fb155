"""Kills everything there is under a running backtest and compares it with undisturbed ones.

python -m tests.chaos [--candles 2000] [--seed N]
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

from tests.chaos.market import candle_file
from tests.chaos.plans import Plan
from tests.chaos.reports import show
from tests.chaos.scenario import run_scenario

output = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def main() -> None:
    plan, keeps_files = _arguments()
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    output.print(f"{plan.candles} candles, seed {plan.seed}, {plan.model}; files in {directory}")
    try:
        report = asyncio.run(run_scenario(directory, candle_file(directory), plan, _say))
    finally:
        if not keeps_files:
            shutil.rmtree(directory, ignore_errors=True)
    show(report, output)
    output.print(f"{time.monotonic() - began:.0f} s in all, {len(report.failures)} lines failed")
    sys.exit(1 if report.failures else 0)


def _arguments() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    usual = Plan()
    parser.add_argument("--candles", type=int, default=usual.candles)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)))
    parser.add_argument("--model", default=usual.model, help="one that OpenRouter lists")
    parser.add_argument("--interval", type=int, default=1, help="candles between two decisions")
    parser.add_argument("--leniency", type=float, default=1.0, help="factor for limits of time")
    parser.add_argument("--keep", action="store_true", help="leave the stack's files")
    given = parser.parse_args()
    plan = Plan(candles=given.candles, seed=given.seed, model=given.model, interval=given.interval)
    return plan, given.keep


def _say(what: str) -> None:
    output.print(f"{time.strftime('%H:%M:%S')} {what}")


if __name__ == "__main__":
    main()
