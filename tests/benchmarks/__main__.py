"""`python -m tests.benchmarks [NAME …]`: measures, prints tables, keeps them with `--write`."""

import argparse
import asyncio
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import (
    candle_import,
    chunk,
    continue_as_new,
    core,
    core_table,
    forward,
    latency,
    load,
    sessions,
)
from tests.benchmarks.report import Row, Section, page_with

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "benchmarks.md"
CANDLE_FILE = "BTCUSDT_1h.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A measurement in full, and one that only shows that it works."""

    full: Callable[[], Section]
    quick: Callable[[], Section]


def _candle_file() -> Path:
    folder = os.environ.get("ALPHALAB_DATA", PROJECT.parent / "shared" / "data")
    path = Path(folder) / CANDLE_FILE
    if not path.exists():
        raise FileNotFoundError(f"no {CANDLE_FILE}: set ALPHALAB_DATA to the directory that has it")
    return path


BENCHMARKS: Mapping[str, Benchmark] = {
    "core": Benchmark(
        full=lambda: core_table.report(core.run(_candle_file())),
        quick=lambda: core_table.report(core.run(_candle_file(), repetitions=1)),
    ),
    "import": Benchmark(
        full=lambda: candle_import.report(asyncio.run(candle_import.run(_candle_file()))),
        quick=lambda: candle_import.report(asyncio.run(candle_import.run(_candle_file(), 1))),
    ),
    "sessions": Benchmark(
        full=lambda: sessions.report(asyncio.run(sessions.run())),
        quick=lambda: sessions.report(asyncio.run(sessions.run(sessions.QUICK_LOADS))),
    ),
    "chunk": Benchmark(
        full=lambda: chunk.report(asyncio.run(chunk.run())),
        quick=lambda: chunk.report(asyncio.run(chunk.run(candles=5_000))),
    ),
    "latency": Benchmark(
        full=lambda: latency.report(asyncio.run(latency.run())),
        quick=lambda: latency.report(asyncio.run(latency.run(60, chunked_candles=2_000))),
    ),
    "load": Benchmark(
        full=lambda: load.report(asyncio.run(load.run())),
        quick=lambda: load.report(
            asyncio.run(load.run(clients=10, seconds=1, sessions=2, sockets=10, candles=5))
        ),
    ),
    "forward": Benchmark(
        full=lambda: forward.report(asyncio.run(forward.run())),
        quick=lambda: forward.report(asyncio.run(forward.run(tests=10, minutes=1))),
    ),
    "continue_as_new": Benchmark(
        full=lambda: continue_as_new.report(asyncio.run(continue_as_new.run())),
        quick=lambda: continue_as_new.report(asyncio.run(continue_as_new.run(candles=300))),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when something of it failed, which is then no reason to stop."""
    given = _parse(arguments)
    names = given.names or list(BENCHMARKS)
    sections: list[Section] = []
    failed: list[str] = []
    for name in names:
        begun = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        try:
            chosen = BENCHMARKS[name]
            sections.append(chosen.quick() if given.quick else chosen.full())
        except Exception as e:
            traceback.print_exc()
            failed.append(name)
            reason = f"failed: {type(e).__name__}"
            sections.append(Section(name=name, rows=[Row(case=reason, measured="")], method=""))
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(page_with(sections))
    if given.write and not failed:
        PAGE.write_text(page_with(sections, PAGE.read_text()))
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small figures, to see that it works")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if given.write and given.quick:
        parser.error("--write keeps what was measured in full")
    return given


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Temporal's native threads may abort an interpreter that tears itself down.
    os._exit(code)
