"""What does not hold of a certificate, and where."""

from dataclasses import dataclass, field
from typing import Literal

# What is verified, in this order.
Part = Literal["document", "signature", "candles", "chain", "reasoning", "trades", "figures"]
PARTS: tuple[Part, ...] = (
    "document",
    "signature",
    "candles",
    "chain",
    "reasoning",
    "trades",
    "figures",
)
# Of these a wrong one means that something was changed after it was signed.
_SEALED: frozenset[Part] = frozenset(("document", "signature", "candles", "chain", "reasoning"))
_MAX_PROBLEMS = 100

Outcome = Literal["genuine", "tampered", "not_reproduced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that does not hold: in which file, on which line of it, and which field."""

    part: Part
    message: str
    file: str | None = None
    line: int | None = None
    field: str | None = None

    @property
    def place(self) -> str:
        words = [self.file or "", "" if self.line is None else f"line {self.line}"]
        return " ".join([*words, self.field or ""]).strip().replace("  ", " ")


@dataclass(slots=True)
class Findings:
    """Problems as they are found: the first hundred; and the parts that were looked at."""

    problems: list[Problem] = field(default_factory=list)
    looked_at: set[Part] = field(default_factory=set)

    def look(self, part: Part) -> None:
        self.looked_at.add(part)

    def add(self, *problems: Problem) -> None:
        room = _MAX_PROBLEMS - len(self.problems)
        self.problems += problems[:room]


def outcome_of(problems: tuple[Problem, ...]) -> Outcome:
    """`not_reproduced` where all that is wrong is what a second fold came to."""
    parts = {each.part for each in problems}
    if not parts:
        return "genuine"
    return "tampered" if parts & _SEALED else "not_reproduced"
