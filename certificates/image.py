"""A certificate as a picture of 1600 by 900 pixels, for the cards that social networks show."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from certificates import wording
from certificates.curve import Point, fit_curve
from certificates.face import CertificateFace
from certificates.lettering import Style, fitted, font_file, runs_of, width_of
from certificates.palette import INK, LINE, PAPER, PETROL, QUIET, SEALS, TINTS
from certificates.qr_code import QUIET_ZONE, qr_matrix, qr_picture
from certificates.rosette import rosette

WIDTH, HEIGHT = 1600, 900

_FINENESS = 2  # Pillow draws hard edges: twice the size, scaled down, softens them
_LEFT, _RIGHT = 72.0, 1528.0
_QR_SIZE = 224
_SEAL_RADIUS = 92.0


def draw_image(face: CertificateFace) -> bytes:
    """Return the certificate as a PNG; the same face gives the same bytes."""
    sheet = _Sheet.blank()
    _draw_head(sheet, face)
    _draw_seal(sheet, face)
    _draw_headline(sheet, face)
    _draw_figures(sheet, face)
    _draw_curve(sheet, face)
    _draw_foot(sheet, face)
    picture = sheet.finished()
    _paste_qr_code(picture, face.share_url)
    written = BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A picture measured in pixels of its final size."""

    picture: Image.Image
    pen: ImageDraw.ImageDraw

    @classmethod
    def blank(cls) -> "_Sheet":
        picture = Image.new("RGB", (WIDTH * _FINENESS, HEIGHT * _FINENESS), PAPER)
        return cls(picture, ImageDraw.Draw(picture))

    def finished(self) -> Image.Image:
        return self.picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        style: Style = "regular",
        size: float = 30.0,
        colour: str = INK,
        align: float = 0.0,
    ) -> None:
        """Set a line on the base line `y`; `align` is the share of its width left of `x`."""
        x -= align * width_of(text, style, size)
        for run in runs_of(text, style):
            font = _font(run.font, round(size * _FINENESS))
            self.pen.text((x * _FINENESS, y * _FINENESS), run.text, colour, font, anchor="ls")
            x += font.getlength(run.text) / _FINENESS

    def line(self, points: Sequence[Point], *, colour: str, width: float) -> None:
        fine = [(x * _FINENESS, y * _FINENESS) for x, y in points]
        self.pen.line(fine, fill=colour, width=round(width * _FINENESS), joint="curve")

    def area(self, points: Sequence[Point], colour: str) -> None:
        self.pen.polygon([(x * _FINENESS, y * _FINENESS) for x, y in points], fill=colour)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(name), size, layout_engine=ImageFont.Layout.BASIC)


def _draw_head(sheet: _Sheet, face: CertificateFace) -> None:
    sheet.area([(0, 0), (WIDTH, 0), (WIDTH, 16), (0, 16)], SEALS[face.seal])
    sheet.text(_LEFT, 92, "AlphaLab", style="strong", size=36, colour=PETROL)
    title = wording.title_of(face)
    sheet.text(_LEFT + 178, 92, title, size=30, colour=QUIET)
    room = _RIGHT - _LEFT - 2 * _SEAL_RADIUS - 60
    name, size = fitted(face.agent_name, "display", size=84, least=46, width=room)
    sheet.text(_LEFT, 190, name, style="display", size=size)
    for y, text, colour in (
        (244, wording.byline_of(face), INK),
        (288, wording.market_of(face), QUIET),
    ):
        line, size = fitted(text, "regular", size=30, least=24, width=room)
        sheet.text(_LEFT, y, line, size=size, colour=colour)


def _draw_seal(sheet: _Sheet, face: CertificateFace) -> None:
    x, y = _RIGHT - _SEAL_RADIUS, 156.0
    for strand in rosette(face.canonical_sha256):
        points = [(x + px * _SEAL_RADIUS, y + py * _SEAL_RADIUS) for px, py in strand]
        sheet.line(points, colour=SEALS[face.seal], width=1.0)
    seal = wording.seal(face).value
    sheet.text(x, 288, seal, style="strong", size=30, colour=SEALS[face.seal], align=0.5)


def _draw_headline(sheet: _Sheet, face: CertificateFace) -> None:
    gained, held = wording.headline(face)
    for x, fact, colour, size, room in (
        (_LEFT, gained, INK, 108.0, 660.0),
        (_LEFT + 728, held, QUIET, 64.0, 728.0),
    ):
        sheet.text(x, 366, fact.label, size=30, colour=QUIET)
        line, smaller = fitted(fact.value, "strong", size=size, least=30, width=room)
        sheet.text(x, 466, line, style="strong", size=smaller, colour=colour)


def _draw_figures(sheet: _Sheet, face: CertificateFace) -> None:
    facts = wording.figures(face)[:4]
    column = (_RIGHT - _LEFT) / len(facts)
    sheet.line([(_LEFT, 502), (_RIGHT, 502)], colour=LINE, width=1.5)
    for number, fact in enumerate(facts):
        x = _LEFT + number * column
        sheet.text(x, 542, fact.label, size=27, colour=QUIET)
        line, size = fitted(fact.value, "strong", size=42, least=20, width=column - 20)
        sheet.text(x, 590, line, style="strong", size=size)
        if fact.note:
            beside = x + width_of(line, "strong", size) + 14
            sheet.text(beside, 590, fact.note, size=26, colour=QUIET)
    sheet.line([(_LEFT, 614), (_RIGHT, 614)], colour=LINE, width=1.5)


def _draw_curve(sheet: _Sheet, face: CertificateFace) -> None:
    top, width = 640.0, _RIGHT - _LEFT - _QR_SIZE - 56
    curve = fit_curve(face, width=width, height=160)
    points = [(_LEFT + x, top + y) for x, y in curve.points]
    base = top + curve.start_y
    sheet.area([(points[0][0], base), *points, (points[-1][0], base)], TINTS[face.seal])
    for dash in range(0, round(width), 16):
        sheet.line([(_LEFT + dash, base), (_LEFT + dash + 7, base)], colour=QUIET, width=1.5)
    sheet.line(points, colour=SEALS[face.seal], width=3.5)


def _draw_foot(sheet: _Sheet, face: CertificateFace) -> None:
    room = _RIGHT - _LEFT - _QR_SIZE - 56
    tried = "1 trial" if face.trials == 1 else f"{face.trials:,} trials"
    sheet.text(_LEFT, 846, face.verification_code, style="code", size=30)
    said = f"{tried} · past result, no advice"
    sheet.text(_LEFT + room, 846, said, size=28, colour=QUIET, align=1)


def _paste_qr_code(picture: Image.Image, url: str) -> None:
    """Put it there unscaled, with whole pixels for its modules."""
    code = qr_picture(url, _QR_SIZE // (len(qr_matrix(url)) + 2 * QUIET_ZONE))
    picture.paste(code, (round(_RIGHT) - code.width, 640 + (_QR_SIZE - code.height) // 2))
