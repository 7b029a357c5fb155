"""A file of real candles through the command line, from the start of the process to its end."""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from local.services import python_environment, python_module
from tests.benchmarks.report import Row, Section
from tests.benchmarks.running_stack import BenchmarkFailed, RunningStack, running_stack

TARGET_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFigures:
    """Seconds of each import of one and the same file, every time as a new data set."""

    candles: int
    seconds: Sequence[float]


async def run(file: Path, repetitions: int = 3) -> ImportFigures:
    """Import the file into a stack of its own."""
    candles = len(file.read_text().splitlines()) - 1
    async with running_stack(()) as stack:
        seconds = [
            await asyncio.to_thread(_import, stack, file, f"benchmark-{number}", candles)
            for number in range(repetitions)
        ]
    return ImportFigures(candles=candles, seconds=seconds)


def _import(stack: RunningStack, file: Path, source: str, candles: int) -> float:
    options = ["--asset", "BTC/USDT", "--timeframe", "1h", "--source", source]
    options += ["--data-dir", str(stack.directory.path)]
    begun = time.perf_counter()
    finished = subprocess.run(
        python_module("cli", "candles", "import", str(file), *options),
        env=python_environment(stack.plan.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if finished.returncode or f"imported {candles:,} candles" not in finished.stdout:
        raise BenchmarkFailed(f"{finished.stdout}\n{finished.stderr}")
    return seconds


def report(found: ImportFigures) -> Section:
    """Seconds, the start of the process included."""
    return Section(
        name="candle import",
        rows=[
            Row(
                case=f"{found.candles:,} candles, `alphalab candles import`",
                measured=f"{median(found.seconds):.2f} s",
                target=f"< {TARGET_S:g} s",
            )
        ],
        method=(
            "A CSV file of real candles, read, checked and stored in one transaction: "
            f"the whole command, median of {len(found.seconds)}."
        ),
    )
