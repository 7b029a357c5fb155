"""Lines of text in the fonts at hand: whatever people call their agents can be read."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Literal

from anyascii import anyascii
from arabic_reshaper import reshape
from reportlab.pdfbase.ttfonts import TTFont

from certificates.copying import CopyableFont
from certificates.directions import in_visual_order
from certificates.legible import legible

Style = Literal["regular", "strong", "display", "code"]

FONTS = Path(__file__).parent / "fonts"
_STYLES: dict[Style, str] = {
    "regular": "IBMPlexSans-Regular",
    "strong": "IBMPlexSans-SemiBold",
    "display": "IBMPlexSerif-Medium",
    "code": "IBMPlexMono-Regular",
}
_FALLBACKS = (
    "NotoSans-Subset",
    "NotoSansHebrew-Subset",
    "NotoSansArabic-Subset",
    "DroidSansFallback-Subset",
    "NotoEmoji-Subset",
)
# Joiners and skin tones only alter what stands before them.
_UNDRAWN = "\u200c\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_ELLIPSIS = "…"
_UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Run:
    """Characters to set from left to right in one font, which has all of them."""

    font: str
    text: str


def font_of(style: Style) -> str:
    return _STYLES[style]


def font_file(font: str) -> Path:
    return FONTS / f"{font}.ttf"


@lru_cache
def font_metrics(font: str) -> TTFont:
    """Return the font as PDFs embed it, read once."""
    return CopyableFont(font, str(font_file(font)))


def runs_of(text: str, style: Style) -> list[Run]:
    """Return the text as a line to be drawn from left to right, each character by a font with it.

    Right-to-left scripts are put into the order they are seen in. What would need more of a
    layout than that is written in Latin letters, and so is what no font has.
    """
    line = in_visual_order(_written(_joined(_written(legible(text), style)), style))
    return [
        Run(font, "".join(characters))
        for font, characters in groupby(line, key=lambda c: _font_with(c, style) or _STYLES[style])
    ]


def width_of(text: str, style: Style, size: float) -> float:
    """Return how wide the line is, in the unit of `size`."""
    return sum(font_metrics(run.font).stringWidth(run.text, size) for run in runs_of(text, style))


def shortened(text: str, style: Style, size: float, width: float) -> str:
    """Return the text, or as much of its beginning as fits, with an ellipsis."""
    text = legible(text)
    if width_of(text, style, size) <= width:
        return text
    fitting = 0
    beyond = len(text)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if width_of(text[:middle].rstrip() + _ELLIPSIS, style, size) <= width:
            fitting = middle
        else:
            beyond = middle
    return text[:fitting].rstrip() + _ELLIPSIS


def fitted(
    text: str, style: Style, *, size: float, least: float, width: float
) -> tuple[str, float]:
    """Return the line and its size: smaller where it is too wide, shortened below `least`."""
    needed = width_of(text, style, size)
    smaller = size if needed <= width else max(least, size * width / needed)
    return shortened(text, style, smaller, width), smaller


def wrapped(
    text: str, style: Style, size: float, width: float, most: int | None = None
) -> list[str]:
    """Return lines that fit, `most` of them at most; the last may end in an ellipsis."""
    lines = [""]
    for word in _breakable(legible(text), style, size, width):
        longer = lines[-1] + word
        if width_of(longer.rstrip(), style, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:most]
    if len(kept) < len(lines):
        kept[-1] = shortened("".join(lines[len(kept) - 1 :]), style, size, width)
    return [line.rstrip() for line in kept]


def _breakable(text: str, style: Style, size: float, width: float) -> Iterator[str]:
    """Yield what lines may be broken between: words, or the letters of one that is too long."""
    for word in text.split(" "):
        if width_of(word, style, size) <= width:
            yield f"{word} "
        else:
            yield from word
            yield " "


def _written(text: str, style: Style) -> str:
    """Return the text in characters that can be drawn one by one, in logical order.

    A mark is only kept as a letter, after one that was written in Latin letters itself.
    """
    written = ""
    is_latinised = False
    for character in text:
        if unicodedata.category(character).startswith("M"):
            written += anyascii(character) if is_latinised else ""
        elif character not in _UNDRAWN:
            is_latinised = _font_with(character, style) is None
            written += (anyascii(character) or _UNKNOWN) if is_latinised else character
    return written


def _joined(text: str) -> str:
    """Return Arabic letters in the forms that they take beside each other."""
    is_arabic = any(unicodedata.name(letter, "").startswith("ARABIC") for letter in text)
    return str(reshape(text)) if is_arabic else text


@lru_cache(maxsize=4096)
def _font_with(character: str, style: Style) -> str | None:
    fonts = (_STYLES[style], *_FALLBACKS)
    return next((font for font in fonts if _has(font, character)), None)


def _has(font: str, character: str) -> bool:
    return bool(font_metrics(font).face.charToGlyph.get(ord(character)))
