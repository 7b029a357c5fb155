"""Every name can be drawn by the fonts that lie in the repository."""

import unicodedata
from functools import cache, lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from certificates.legible import NAMELESS, legible
from certificates.lettering import (
    FONTS,
    Style,
    fitted,
    font_file,
    runs_of,
    shortened,
    width_of,
    wrapped,
)
from tests.certificates.names import NAMES

MISSING = "\U0010ffff"  # never a character, so in no font
STYLES: tuple[Style, ...] = ("regular", "strong", "display", "code")


def drawn(text: str, style: Style = "display") -> str:
    return "".join(run.text for run in runs_of(text, style))


@lru_cache
def opened(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(font), 24, layout_engine=ImageFont.Layout.BASIC)


@cache
def pixels(font: str, character: str) -> bytes:
    picture = Image.new("L", (64, 64))
    ImageDraw.Draw(picture).text((8, 8), character, 255, opened(font))
    return picture.tobytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_character_of_a_name_is_drawn_as_a_missing_one(name: str, style: Style):
    for run in runs_of(name, style):
        for character in run.text:
            assert pixels(run.font, character) != pixels(run.font, MISSING), (run, character)


@given(st.text(max_size=40))
def test_anything_gives_a_line_with_something_in_it(text: str):
    line = drawn(text)

    assert line.strip()
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cf", "Cs", "Mn"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("α-prime", "α-prime"),
        ("中文交易员", "中文交易员"),
        ("한국 거래자", "한국 거래자"),
        ("🚀 to the 🌙", "🚀 to the 🌙"),
        ("👩🏽‍💻", "👩💻"),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "Café"),
        ("Z\u0338\u0321\u0322a\u0336", "Za"),
        ("𝔸𝕝𝕡𝕙𝕒", "Alpha"),
        ("नमस्ते", "nmste"),
        ("a\x00b\r\nc", "a b c"),
        ("abc\u202edef", "abcdef"),
        (" \u200b ", NAMELESS),
        ("\ue000", NAMELESS),
        ("half \ud83d of it", "half of it"),
    ],
)
def test_names_are_kept_or_written_in_letters_that_exist(name: str, line: str):
    assert drawn(name) == line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("שלום", "םולש"),
        ("שלום 123 עולם", "םלוע 123 םולש"),
        ("שלום (v2)", "(v2) םולש"),
        ("agent שלום 12 x", "agent 12 םולש x"),
        ("שלום [עולם]", "[םלוע] םולש"),
    ],
)
def test_right_to_left_names_are_drawn_in_the_order_they_are_read_in(name: str, line: str):
    assert drawn(name) == line


def test_arabic_letters_are_joined():
    line = drawn("متداول v2")

    assert line.startswith("v2 ")
    assert unicodedata.normalize("NFKC", line[3:][::-1]) == "متداول"
    assert unicodedata.name(line[-1]) == "ARABIC LETTER MEEM INITIAL FORM"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_name_fits_where_it_has_to(name: str):
    line, size = fitted(name, "display", size=32.0, least=19.0, width=300.0)
    assert 19.0 <= size <= 32.0
    assert width_of(line, "display", size) <= 300.0 + 1e-6

    lines = wrapped(name, "display", 19.0, 300.0, most=2)
    assert 1 <= len(lines) <= 2
    assert all(width_of(part, "display", 19.0) <= 300.0 for part in lines)


def test_what_is_too_long_ends_in_an_ellipsis_and_keeps_as_much_as_fits():
    line = shortened("W" * 200, "regular", 10.0, 100.0)

    assert line.endswith("…")
    assert width_of(line, "regular", 10.0) <= 100.0 < width_of(f"W{line}", "regular", 10.0)


def test_wrapped_text_loses_nothing():
    text = "Of many tries the best one looks good by chance alone"

    lines = wrapped(text, "regular", 9.0, 100.0)

    assert len(lines) > 1
    assert " ".join(lines) == text


def test_marks_that_belong_to_a_letter_stay_where_pages_show_them():
    assert legible("नमस्ते") == "नमस्ते"
    assert legible("👨‍👩‍👧") == "👨‍👩‍👧"
    assert legible("a" + "\N{COMBINING RING BELOW}" * 50) == "ḁ" + "\N{COMBINING RING BELOW}" * 2


def test_each_font_lies_beside_a_licence_that_is_named_after_it():
    licences = {"IBMPlex": "OFL", "NotoEmoji": "OFL", "NotoSans": "OFL", "Droid": "Apache-2.0"}

    for font in FONTS.glob("*.ttf"):
        family = next(name for name in licences if font.name.startswith(name))
        text = (FONTS / f"{family}-{licences[family]}.txt").read_text()
        assert ("SIL OPEN FONT LICENSE" in text) or ("Apache License" in text)
