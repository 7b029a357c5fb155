"""What does not hold of a certificate, and where."""

from collections import Counter
from collections.abc import Iterable, Sequence
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
_MAX_OF_A_PART = 50

# `unknown_key` is no proof of a change: somebody else may have signed it, or we with another key.
Outcome = Literal["genuine", "tampered", "unknown_key", "not_reproduced"]
UNKNOWN_KEY_FIELD = "public_key_id"


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
    """Problems as they are found: the first fifty of each part; and the parts looked at."""

    problems: list[Problem] = field(default_factory=list)
    looked_at: set[Part] = field(default_factory=set)
    _counts: Counter[Part] = field(default_factory=Counter)

    def look(self, part: Part) -> None:
        self.looked_at.add(part)

    def add(self, *problems: Problem) -> None:
        self.extend(problems)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note problems one by one, however many there are."""
        for each in problems:
            self._counts[each.part] += 1
            if self._counts[each.part] <= _MAX_OF_A_PART:
                self.problems.append(each)

    def summed_up(self) -> tuple[Problem, ...]:
        """What was noted, and of each part how many more there are."""
        others = (
            Problem(part=part, message=f"… and {self._counts[part] - _MAX_OF_A_PART:,} more.")
            for part in PARTS
            if self._counts[part] > _MAX_OF_A_PART
        )
        return (*self.problems, *others)


def outcome_of(problems: Sequence[Problem]) -> Outcome:
    """`not_reproduced` where all that is wrong is what a second fold came to."""
    if not problems:
        return "genuine"
    sealed = [each for each in problems if each.part in _SEALED]
    if not sealed:
        return "not_reproduced"
    is_unknown = all(
        each.part == "signature" and each.field == UNKNOWN_KEY_FIELD for each in sealed
    )
    return "unknown_key" if is_unknown else "tampered"
