"""A certificate on paper: one page of A4."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from certificates import wording
from certificates.curve import Point, fit_curve
from certificates.face import CertificateFace
from certificates.legible import legible
from certificates.lettering import Style, fitted, font_metrics, font_of, runs_of, width_of, wrapped
from certificates.palette import INK, LINE, PAPER, PETROL, QUIET, SEALS, TINTS
from certificates.qr_code import QUIET_ZONE, dark_stretches, qr_matrix
from certificates.rosette import rosette
from certificates.wording import Fact

_WIDTH, _HEIGHT = A4
_LEFT, _RIGHT = 50.0, _WIDTH - 50.0
_GAP = 24.0
_SEAL_RADIUS = 44.0
_QR_SIZE = 84.0


def draw_pdf(face: CertificateFace) -> bytes:
    """Return the certificate as a PDF; the same face gives the same bytes."""
    written = BytesIO()
    canvas = Canvas(
        written,
        pagesize=A4,
        invariant=True,
        lang="en",
        pageCompression=1,
        initialFontName=_registered(font_of("regular")),  # type: ignore[arg-type]  # the stub errs
    )
    _describe(canvas, face)
    sheet = _Sheet(canvas)
    _draw_ground(sheet, face)
    _draw_head(sheet, face)
    _draw_headline(sheet, face)
    _draw_curve(sheet, face)
    _draw_figures(sheet, face)
    _draw_details(sheet, face)
    _draw_doubts(sheet, face)
    _draw_proof(sheet, face)
    canvas.showPage()
    canvas.save()
    return written.getvalue()


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A page measured from its top left, on which text is set in runs of fonts."""

    canvas: Canvas

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        style: Style = "regular",
        size: float = 9.0,
        colour: str = INK,
        align: float = 0.0,
    ) -> None:
        """Set a line on the base line `y`; `align` is the share of its width left of `x`."""
        x -= align * width_of(text, style, size)
        line = self.canvas.beginText(x, _HEIGHT - y)
        line.setFillColor(HexColor(colour))
        for run in runs_of(text, style):
            line.setFont(_registered(run.font), size)
            line.textOut(run.text)
        self.canvas.drawText(line)

    def rule(self, y: float, *, colour: str = LINE, width: float = 0.6) -> None:
        self.line([(_LEFT, y), (_RIGHT, y)], colour=colour, width=width)

    def line(
        self,
        points: Sequence[Point],
        *,
        colour: str,
        width: float,
        dashes: Sequence[float] = (),
    ) -> None:
        self.canvas.setStrokeColor(HexColor(colour))
        self.canvas.setLineWidth(width)
        self.canvas.setLineJoin(1)
        self.canvas.setDash(list(dashes))
        path = self.canvas.beginPath()
        path.moveTo(points[0][0], _HEIGHT - points[0][1])
        for x, y in points[1:]:
            path.lineTo(x, _HEIGHT - y)
        self.canvas.drawPath(path)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle whose upper left corner is at (x, y)."""
        self.canvas.setFillColor(HexColor(colour))
        self.canvas.rect(x, _HEIGHT - y - height, width, height, stroke=0, fill=1)


def _registered(font: str) -> str:
    if font not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(font_metrics(font))
    return font


def _describe(canvas: Canvas, face: CertificateFace) -> None:
    name = legible(face.agent_name)
    canvas.setTitle(f"{wording.title_of(face)}: {name}, {face.verification_code}")
    canvas.setAuthor("AlphaLab")
    canvas.setSubject(f"{legible(wording.market_of(face))}. {wording.SEAL_NAMES[face.seal]}.")
    canvas.setKeywords(f"{face.verification_code}, {face.canonical_sha256}")
    canvas.setCreator(f"AlphaLab {face.engine_version}")
    canvas.setViewerPreference("DisplayDocTitle", "true")


def _draw_ground(sheet: _Sheet, face: CertificateFace) -> None:
    sheet.box(0, 0, _WIDTH, _HEIGHT, PAPER)
    sheet.box(0, 0, _WIDTH, 7, SEALS[face.seal])


def _draw_head(sheet: _Sheet, face: CertificateFace) -> None:
    sheet.text(_LEFT, 52, "AlphaLab", style="strong", size=12, colour=PETROL)
    sheet.text(_RIGHT, 52, face.verification_code, style="code", size=10, align=1)
    sheet.rule(64)
    room = _RIGHT - _LEFT - 2 * _SEAL_RADIUS - 36
    sheet.text(_LEFT, 96, wording.title_of(face), size=11, colour=QUIET)
    y = _draw_name(sheet, face.agent_name, room)
    for text, colour in ((wording.byline_of(face), INK), (wording.market_of(face), QUIET)):
        line, size = fitted(text, "regular", size=10.5, least=8.5, width=room)
        sheet.text(_LEFT, y, line, size=size, colour=colour)
        y += 16
    _draw_seal(sheet, face)


def _draw_name(sheet: _Sheet, name: str, room: float) -> float:
    """Set the name on one line or, where it is very long, on two; return the next base line."""
    line, size = fitted(name, "display", size=32, least=19, width=room)
    if not line.endswith("…"):
        sheet.text(_LEFT, 131, line, style="display", size=size)
        return 156.0
    for number, part in enumerate(wrapped(name, "display", 19, room, most=2)):
        sheet.text(_LEFT, 120 + 23 * number, part, style="display", size=19)
    return 164.0


def _draw_seal(sheet: _Sheet, face: CertificateFace) -> None:
    colour = SEALS[face.seal]
    x, y = _RIGHT - _SEAL_RADIUS, 122.0
    for strand in rosette(face.canonical_sha256):
        points = [(x + px * _SEAL_RADIUS, y + py * _SEAL_RADIUS) for px, py in strand]
        sheet.line(points, colour=colour, width=0.45)
    name = wording.SEAL_NAMES[face.seal]
    sheet.text(x, y + _SEAL_RADIUS + 15, name, style="strong", size=10.5, colour=colour, align=0.5)


def _draw_headline(sheet: _Sheet, face: CertificateFace) -> None:
    gained, held = wording.headline(face)
    middle = _LEFT + 270
    for x, fact, colour, room in (
        (_LEFT, gained, INK, 250.0),
        (middle, held, QUIET, _RIGHT - middle),
    ):
        sheet.text(x, 222, fact.label, size=9.5, colour=QUIET)
        line, size = fitted(fact.value, "strong", size=38, least=10, width=room)
        sheet.text(x, 258, line, style="strong", size=size, colour=colour)


def _draw_curve(sheet: _Sheet, face: CertificateFace) -> None:
    top, height = 282.0, 92.0
    curve = fit_curve(face, width=_RIGHT - _LEFT, height=height)
    points = [(_LEFT + x, top + y) for x, y in curve.points]
    base = top + curve.start_y
    _fill_under(sheet, points, base, TINTS[face.seal])
    sheet.line([(_LEFT, base), (_RIGHT, base)], colour=QUIET, width=0.6, dashes=(2, 2.5))
    sheet.line(points, colour=SEALS[face.seal], width=1.3)
    caption = f"Equity · dashed: starting capital, {wording.start_of(face)}"
    for x, align, text in (
        (_LEFT, 0.0, wording.day(face.period_start)),
        ((_LEFT + _RIGHT) / 2, 0.5, caption),
        (_RIGHT, 1.0, wording.day(face.period_end)),
    ):
        sheet.text(x, top + height + 14, text, size=8, colour=QUIET, align=align)


def _fill_under(sheet: _Sheet, points: Sequence[Point], base: float, colour: str) -> None:
    path = sheet.canvas.beginPath()
    path.moveTo(points[0][0], _HEIGHT - base)
    for x, y in points:
        path.lineTo(x, _HEIGHT - y)
    path.lineTo(points[-1][0], _HEIGHT - base)
    path.close()
    sheet.canvas.setFillColor(HexColor(colour))
    sheet.canvas.drawPath(path, stroke=0, fill=1)


def _draw_figures(sheet: _Sheet, face: CertificateFace) -> None:
    facts = wording.figures(face)
    column = (_RIGHT - _LEFT) / len(facts)
    sheet.rule(404)
    for number, fact in enumerate(facts):
        x = _LEFT + number * column
        sheet.text(x, 421, fact.label, size=8, colour=QUIET)
        line, size = fitted(fact.value, "strong", size=14, least=6, width=column - 8)
        sheet.text(x, 440, line, style="strong", size=size)
        line, size = fitted(fact.note, "regular", size=7, least=5, width=column - 6)
        if fact.note:
            sheet.text(x, 452, line, size=size, colour=QUIET)
    sheet.rule(461)


def _draw_details(sheet: _Sheet, face: CertificateFace) -> None:
    column = (_RIGHT - _LEFT - _GAP) / 2
    _draw_facts(sheet, _LEFT, column, "What was tested", wording.tested(face))
    _draw_facts(sheet, _LEFT + column + _GAP, column, "Under which rules", wording.rules(face))


def _draw_facts(sheet: _Sheet, x: float, width: float, heading: str, facts: Sequence[Fact]) -> None:
    sheet.text(x, 483, heading, style="strong", size=10)
    for number, fact in enumerate(facts):
        y = 500 + number * 14.5
        sheet.text(x, y, fact.label, size=8.5, colour=QUIET)
        room = width - width_of(fact.label, "regular", 8.5) - 10
        line, size = fitted(fact.value, "regular", size=8.5, least=6.5, width=room)
        sheet.text(x + width, y, line, size=size, align=1)
        sheet.line([(x, y + 4.2), (x + width, y + 4.2)], colour=LINE, width=0.4)


def _draw_doubts(sheet: _Sheet, face: CertificateFace) -> None:
    """What keeps the figures from meaning more than they do."""
    seal, tried = wording.seal(face), wording.trials(face)
    column = (_RIGHT - _LEFT - _GAP) / 2
    for x, heading, colour, text in (
        (_LEFT, seal.value, SEALS[face.seal], seal.note),
        (_LEFT + column + _GAP, f"Trials: {tried.value}", INK, tried.note),
    ):
        sheet.text(x, 660, heading, style="strong", size=10, colour=colour)
        for number, line in enumerate(wrapped(text, "regular", 8.5, column)):
            sheet.text(x, 674 + 11.5 * number, line, size=8.5, colour=QUIET)


def _draw_proof(sheet: _Sheet, face: CertificateFace) -> None:
    top = 728.0
    sheet.rule(top - 10)
    _draw_qr_code(sheet, face.share_url, _RIGHT - _QR_SIZE, top)
    room = _RIGHT - _LEFT - _QR_SIZE - 24
    sheet.text(_LEFT, top + 10, "Verify it", style="strong", size=10)
    line, size = fitted(face.share_url, "regular", size=9.5, least=6, width=room)
    sheet.text(_LEFT, top + 25, line, size=size, colour=PETROL)
    issued = f"{wording.minute(face.issued_at)} UTC"
    facts = f"Code {face.verification_code} · issued {issued} · engine {face.engine_version}"
    line, size = fitted(facts, "regular", size=8.5, least=6, width=room)
    sheet.text(_LEFT, top + 40, line, size=size)
    line, size = fitted(f"SHA-256 {face.canonical_sha256}", "code", size=8, least=5, width=room)
    sheet.text(_LEFT, top + 54, line, style="code", size=size, colour=QUIET)
    for number, sentence in enumerate(wrapped(wording.NO_ADVICE, "regular", 8, room)):
        sheet.text(_LEFT, top + 72 + 11 * number, sentence, size=8, colour=QUIET)


def _draw_qr_code(sheet: _Sheet, url: str, x: float, y: float) -> None:
    module = _QR_SIZE / (len(qr_matrix(url)) + 2 * QUIET_ZONE)
    sheet.box(x, y, _QR_SIZE, _QR_SIZE, "#ffffff")
    for row, column, length in dark_stretches(url):
        left = x + (column + QUIET_ZONE) * module
        sheet.box(left, y + (row + QUIET_ZONE) * module, length * module, module, "#000000")
