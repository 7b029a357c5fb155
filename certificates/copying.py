"""Fonts in PDFs whose every character can be copied out and searched for."""

import re
from typing import Any

from reportlab.pdfbase.ttfonts import TTFont
from typing_extensions import override

_MAPS = "toUnicodeCMap:"
_BEYOND_FOUR_DIGITS = re.compile(r"<([0-9A-F]{5,6})>$", re.MULTILINE)


class CopyableFont(TTFont):
    """Writes what glyphs stand for as PDF wants it, in UTF-16.

    Reportlab writes code points, which is the same up to U+FFFF, and no emoji are there.
    """

    @override
    def addObjects(self, doc: Any) -> None:  # reportlab's name
        before = set(doc.idToObject)
        super().addObjects(doc)
        for name in set(doc.idToObject) - before:
            if name.startswith(_MAPS):
                stream = doc.idToObject[name]
                stream.content = _BEYOND_FOUR_DIGITS.sub(_in_utf16, stream.content)


def _in_utf16(found: re.Match[str]) -> str:
    return f"<{chr(int(found[1], 16)).encode('utf-16-be').hex().upper()}>"
