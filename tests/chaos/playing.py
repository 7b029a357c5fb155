"""What the commands of the kill runs share: their options, and how a run is played and shown."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from tests.chaos.reports import Report, show

Say = Callable[[str], None]
Scenario = Callable[[Path, Say], Coroutine[Any, Any, Report]]

output = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def options(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of what every kill run takes."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)))
    parser.add_argument("--leniency", type=float, default=1.0, help="factor for limits of time")
    parser.add_argument("--keep", action="store_true", help="leave the stack's files")
    return parser


def play(headline: str, scenario: Scenario, *, keeps_files: bool) -> NoReturn:
    """Play the scenario in a directory of its own, show its report, and leave with its outcome."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    output.print(f"{headline}; files in {directory}")
    try:
        report = asyncio.run(scenario(directory, _say))
    finally:
        if not keeps_files:
            shutil.rmtree(directory, ignore_errors=True)
    show(report, output)
    output.print(f"{time.monotonic() - began:.0f} s in all, {len(report.failures)} lines failed")
    sys.exit(1 if report.failures else 0)


def _say(what: str) -> None:
    output.print(f"{time.strftime('%H:%M:%S')} {what}")
