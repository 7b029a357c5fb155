"""The public page of a certificate: the verdict, the facts, and how to verify them oneself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from api.pages.stylesheet import STYLESHEET_HREF
from certificates import wording
from certificates.curve import Point, fit_curve
from certificates.face import CertificateFace
from certificates.legible import legible
from certificates.rosette import rosette
from certificates.wording import Fact

Verdict = Literal[
    "genuine",
    "tampered",
    "unknown_key",
    "not_reproduced",
    "not_recomputable",
    "revoked",
    "unknown",
]

# Nothing runs and nothing is fetched from elsewhere, whatever users call their agents.
PAGE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
)

_CURVE_WIDTH, _CURVE_HEIGHT = 720, 160
_SEAL_RADIUS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationProof:
    """What a stranger checks the certificate with, in hexadecimal or base64 as it is stored."""

    canonical_sha256: str
    signature: str
    public_key: str
    trace_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationView:
    """What is known of a code. `reason` says why a verdict is not `genuine`.

    Addresses are absolute or paths of this server; `image_url` must be absolute for cards.
    """

    verdict: Verdict
    code: str
    face: CertificateFace | None = None
    reason: str | None = None
    view_count: int = 0
    image_url: str | None = None
    pdf_url: str | None = None
    bundle_url: str | None = None
    proof: VerificationProof | None = None
    recomputed_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """How a verdict is said: in a word, in a sentence, and how it is coloured."""

    word: str
    sentence: str
    tone: Literal["good", "doubtful", "bad"]
    shows_face: bool = True
    is_shared: bool = False


_JUDGEMENTS: Mapping[Verdict, _Judgement] = MappingProxyType(
    {
        "genuine": _Judgement(
            word="Genuine",
            sentence=(
                "Signed by AlphaLab, and recomputed from its stored candles and decisions with "
                "the same outcome."
            ),
            tone="good",
            is_shared=True,
        ),
        "not_recomputable": _Judgement(
            word="Signed, but not recomputed",
            sentence=(
                "Signed by AlphaLab and unaltered, but what it was computed from is not at hand "
                "to compute it again."
            ),
            tone="doubtful",
            is_shared=True,
        ),
        "not_reproduced": _Judgement(
            word="Not reproduced",
            sentence=(
                "Signed by AlphaLab, but recomputed from its stored candles and decisions it "
                "came out differently. Do not rely on its figures."
            ),
            tone="bad",
        ),
        "revoked": _Judgement(
            word="Revoked",
            sentence="AlphaLab has withdrawn this certificate. Do not rely on its figures.",
            tone="bad",
        ),
        "tampered": _Judgement(
            word="Tampered with",
            sentence=(
                "What is stored under this code is not what AlphaLab signed. Its figures are not "
                "shown, for nobody vouches for them."
            ),
            tone="bad",
            shows_face=False,
        ),
        "unknown_key": _Judgement(
            word="Signed with an unknown key",
            sentence=(
                "It names a key that this service does not have, so nobody here can say whether "
                "AlphaLab signed it. Its figures are not shown."
            ),
            tone="bad",
            shows_face=False,
        ),
        "unknown": _Judgement(
            word="Unknown",
            sentence=(
                "AlphaLab has issued no certificate with this code. Compare it with the original, "
                "letter by letter; if it is the same, the certificate is not ours."
            ),
            tone="bad",
            shows_face=False,
        ),
    }
)


def verification_page(view: VerificationView) -> str:
    """Return the page as HTML; it is to be sent with PAGE_HEADERS."""
    judgement = _JUDGEMENTS[view.verdict]
    face = view.face if judgement.shows_face else None
    return _TEMPLATE.render(
        view=view,
        judgement=judgement,
        face=face,
        title=_title(view, judgement, face),
        stylesheet=STYLESHEET_HREF,
        image_url=view.image_url if judgement.is_shared and face else None,
        wording=wording,
        sections=_sections(face) if face else (),
        curve=_curve(face) if face else None,
        seal_strands=_strands(face) if face else (),
    )


def _finalized(value: Any) -> Any:
    """Whatever users wrote is shown as one line of legible text."""
    return legible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("api.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalized,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATE = _ENVIRONMENT.get_template("verification.html")


def _title(view: VerificationView, judgement: _Judgement, face: CertificateFace | None) -> str:
    subject = f"{face.agent_name}, {wording.signed_percent(face.pnl_pct)}" if face else view.code
    doubt = "" if face is None or face.seal == "full" else f" ({wording.seal(face).value.lower()})"
    return f"{judgement.word}: {subject}{doubt}"


def _sections(face: CertificateFace) -> tuple[tuple[str, tuple[Fact, ...]], ...]:
    return (
        ("What was tested", wording.tested(face)),
        ("Under which rules", wording.rules(face)),
    )


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Coordinates as attributes of SVG take them."""

    width: int
    height: int
    line: str
    area: str
    start_y: str
    summary: str


def _curve(face: CertificateFace) -> _Drawing:
    curve = fit_curve(face, width=_CURVE_WIDTH, height=_CURVE_HEIGHT)
    line = _coordinates(curve.points)
    start = f"{curve.start_y:.1f}"
    ends = f"{curve.points[-1][0]:.1f},{start} {curve.points[0][0]:.1f},{start}"
    return _Drawing(
        _CURVE_WIDTH, _CURVE_HEIGHT, line, f"{line} {ends}", start, wording.curve_summary(face)
    )


def _strands(face: CertificateFace) -> list[str]:
    return [
        _coordinates([(x * _SEAL_RADIUS, y * _SEAL_RADIUS) for x, y in strand])
        for strand in rosette(face.canonical_sha256)
    ]


def _coordinates(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
