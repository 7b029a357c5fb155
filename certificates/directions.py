"""The order in which a line of several directions is seen: the Unicode algorithm, in short.

Short by what names do without: explicit embeddings and overrides, which are removed before, and
the finer rules about separators within numbers.
"""

import unicodedata
from itertools import accumulate

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_NUMBERS = frozenset({"EN", "AN"})
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")


def in_visual_order(line: str) -> str:
    """Return the characters from left to right; the first letter tells which way the line runs."""
    classes = [unicodedata.bidirectional(character) for character in line]
    if not _RIGHT_TO_LEFT.intersection(classes):
        return line
    levels = _levels(classes)
    characters = [
        character.translate(_MIRRORED) if level % 2 else character
        for character, level in zip(line, levels, strict=True)
    ]
    order = list(range(len(line)))
    for lowest in range(max(levels), 0, -1):
        order = _turned(order, levels, lowest)
    return "".join(characters[place] for place in order)


def _levels(classes: list[str]) -> list[int]:
    """Even for what runs to the right, odd for what runs to the left."""
    strong = [kind for kind in classes if kind == "L" or kind in _RIGHT_TO_LEFT]
    base = 0 if strong[0] == "L" else 1
    base_kind = "R" if base else "L"
    resolved = _resolved_numbers(classes, base_kind)
    before = list(accumulate(resolved, lambda last, kind: kind or last, initial=base_kind))[:-1]
    after = list(
        accumulate(reversed(resolved), lambda last, kind: kind or last, initial=base_kind)
    )[:-1][::-1]
    return [
        _level(kind or _between(left, right, base_kind), base)
        for kind, left, right in zip(resolved, before, after, strict=True)
    ]


def _resolved_numbers(classes: list[str], base_kind: str) -> list[str]:
    """`L`, `R`, `N` for numbers within right-to-left text, and nothing for what is neutral."""
    resolved = []
    last = base_kind
    for kind in classes:
        if kind == "L" or kind in _RIGHT_TO_LEFT:
            last = "L" if kind == "L" else "R"
            resolved.append(last)
        elif kind in _NUMBERS:
            resolved.append("L" if last == "L" else "N")
        else:
            resolved.append("")
    return resolved


def _between(left: str, right: str, base_kind: str) -> str:
    sides = {"R" if side == "N" else side for side in (left, right)}
    return sides.pop() if len(sides) == 1 else base_kind


def _level(kind: str, base: int) -> int:
    if kind == "R":
        return 1
    return 2 if kind == "N" or base else 0


def _turned(order: list[int], levels: list[int], lowest: int) -> list[int]:
    """Reverse each stretch of what is at least so deep."""
    turned: list[int] = []
    stretch: list[int] = []
    for place in order:
        if levels[place] >= lowest:
            stretch.append(place)
            continue
        turned += [*reversed(stretch), place]
        stretch = []
    return turned + stretch[::-1]
