"""Text of users without what cannot be seen, or would make other text unreadable."""

import unicodedata

NAMELESS = "(nothing legible)"

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_MOST_MARKS = 2


def legible(text: str) -> str:
    """Return one line without controls, overriding directions, and heaps of combining marks.

    Letters and their marks are composed. What is left of nothing says so.
    """
    kept = ""
    marks = 0
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if category in {"Cc", "Zl", "Zp", "Zs"}:
            kept += " "
        elif marks <= _MOST_MARKS and (category[0] != "C" or character in _JOINERS):
            kept += character
    return " ".join(kept.split()) or NAMELESS
