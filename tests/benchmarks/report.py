"""Figures as markdown: a part for each benchmark, with the machine that it was measured on."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from local.servers import postgres_binary, redis_binary, temporal_binary

PACKAGES = ("temporalio", "psycopg", "redis", "httpx", "numpy", "backtesting")
HEADER = ("case", "measured", "beside it", "ratio", "target")
_INTRODUCTION = """# Benchmarks

`make bench` measures all of it; `make bench BENCH_ARGS="NAME --write"` measures a part and keeps it
here, with the machine that it was measured on. Figures of one part come from one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; `beside` is what the figure is compared with."""

    case: str
    measured: str
    beside: str = ""
    ratio: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What lies behind some figures; cells are shown as they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one benchmark found, and how it was found."""

    name: str
    rows: Sequence[Row]
    method: str
    tables: Sequence[Table] = field(default=())


def page_with(sections: Sequence[Section], page: str = "") -> str:
    """The page with these sections in the place of its own of the same names."""
    parts = dict(_parts_of(page))
    parts |= {section.name: _part(section) for section in sections}
    return "\n\n".join([_INTRODUCTION, *parts.values()]) + "\n"


def _parts_of(page: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        yield part.partition("\n")[0], f"## {part.strip()}"


def _part(section: Section) -> str:
    rows = [[row.case, row.measured, row.beside, row.ratio, row.target] for row in section.rows]
    parts = [f"## {section.name}", markdown_table(HEADER, rows), section.method]
    for table in section.tables:
        parts += [f"### {table.title}", markdown_table(table.header, table.rows)]
        parts += [table.note] if table.note else []
    return "\n\n".join([*parts, f"Measured on {'; '.join(machine())}."])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded, so that the text is a table before it is rendered as well."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    ruler = ["-" * width for width in widths]
    return "\n".join(_line(cells, widths) for cells in (header, ruler, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"


def machine() -> list[str]:
    """What a figure must be read beside."""
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory",
        f"{_system()}, Python {platform.python_version()}",
        packages,
        _server_versions(),
    ]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _server_versions() -> str:
    commands = (postgres_binary("postgres"), redis_binary(), temporal_binary())
    return "; ".join(_first_line([command, "--version"]) for command in commands)


def _first_line(command: Sequence[str]) -> str:
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0].split(" sha=")[0]
