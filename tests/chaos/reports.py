"""What a kill run claims and saw, and how it is shown."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tests.chaos.checks import Line, Standstill


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that was claimed and seen, by part."""

    parts: dict[str, list[Line]] = field(default_factory=dict)
    standstills: list[Standstill] = field(default_factory=list)

    def add(self, part: str, lines: list[Line]) -> None:
        self.parts.setdefault(part, []).extend(lines)

    @property
    def failures(self) -> list[str]:
        return [
            f"{part}: {line.claim} ({line.seen})"
            for part, lines in self.parts.items()
            for line in lines
            if not line.holds
        ]


def show(report: Report, output: Console) -> None:
    claims = Table("", "claim", "seen", title="What must hold", title_justify="left")
    for part, lines in report.parts.items():
        claims.add_section()
        claims.add_row("", f"[bold]{part}[/bold]", "")
        for line in lines:
            claims.add_row("ok" if line.holds else "[red]NO[/red]", line.claim, line.seen)
    output.print(claims)
    kills = Table("killed", "at candle", "session stood still", "client heard nothing")
    for each in report.standstills:
        kills.add_row(
            each.kill.victim,
            str(each.kill.candle),
            f"{each.session_seconds:.1f} s",
            f"{each.client_seconds:.1f} s",
        )
    output.print(kills)
