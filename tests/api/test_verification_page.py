"""The page of a certificate says its verdict plainly, and runs nothing that users wrote."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from typing import get_args

import httpx
import pytest
from typing_extensions import override

from api.app import bare_app
from api.pages.stylesheet import STYLESHEET, STYLESHEET_HREF, STYLESHEET_PATH
from api.pages.verification import (
    PAGE_HEADERS,
    Verdict,
    VerificationProof,
    VerificationView,
    verification_page,
)
from tests.certificates.faces import FACE, HARD
from tests.certificates.names import NAMES
from tests.certificates.views import GENUINE, PROOF

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
EVIL = """<script>alert(1)</script>" onload='x' style="x">&amp;{{ 7*7 }}"""
VOID = {"meta", "link", "line", "polyline", "polygon", "br", "img"}
Attributes = dict[str, str]


@dataclass
class Parsed(HTMLParser):
    """A page's elements in order, and its text; fails where tags do not match."""

    tags: list[tuple[str, Attributes]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @override
    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.opened.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag
        self.texts.append(" " if tag in {"dt", "dd", "li"} else "")

    @override
    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, name: str) -> list[Attributes]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def meta(self) -> Attributes:
        return {
            found.get("property", found.get("name", "")): found.get("content", "")
            for found in self.all("meta")
        }


def parsed(view: VerificationView) -> Parsed:
    page = Parsed()
    page.feed(verification_page(view))
    page.close()
    assert page.opened == []
    return page


def of_verdict(verdict: Verdict) -> VerificationView:
    if verdict == "unknown":
        return VerificationView(verdict=verdict, code="ALX-2025-1127-WRONG")
    return replace(GENUINE, verdict=verdict)


@pytest.mark.parametrize(
    ("verdict", "heading", "sentence"),
    [
        (
            "genuine",
            "Genuine",
            "Signed by AlphaLab, and recomputed from its stored candles and decisions with the "
            "same outcome.",
        ),
        ("not_recomputable", "Signed, but not recomputed", "is not at hand"),
        ("not_reproduced", "Not reproduced", "it came out differently"),
        ("revoked", "Revoked", "AlphaLab has withdrawn this certificate"),
        ("tampered", "Tampered with", "is not what AlphaLab signed"),
        ("unknown_key", "Signed with an unknown key", "a key that this service does not have"),
        ("unknown", "Unknown", "AlphaLab has issued no certificate with this code"),
    ],
)
def test_the_verdict_comes_first(verdict: Verdict, heading: str, sentence: str):
    page = parsed(of_verdict(verdict))

    code = of_verdict(verdict).code
    before, _, after = page.text.partition(f"AlphaLab {code} ")
    assert before.startswith(heading)  # the title of the window
    assert after.startswith(heading)
    assert sentence in after[:300]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_verdict_needs_style_or_script_within_the_page(verdict: Verdict):
    page = parsed(of_verdict(verdict))

    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "style" not in names
    assert not {"script", "style", "iframe", "object", "base", "form"} & {n for n, _ in page.tags}
    loaded = [link["href"] for link in page.all("link") if link["rel"] == "stylesheet"]
    assert loaded == [STYLESHEET_HREF]
    assert [image for image in page.all("img") if not image["src"].startswith("/")] == []


def test_browsers_are_told_to_load_nothing_else():
    directives = dict(
        part.strip().split(" ", 1) for part in PAGE_HEADERS["Content-Security-Policy"].split(";")
    )

    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == directives["style-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_headings_are_in_order(verdict: Verdict):
    page = parsed(of_verdict(verdict))

    levels = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == 1


def test_it_shows_what_the_certificate_shows():
    text = parsed(GENUINE).text

    for said in (
        "Momentum Prime Version 3 · omni mode · anthropic/claude-sonnet-4.5",
        "Return +12.35% Buy and hold −3.87%",
        "Max drawdown 6.42% Sharpe ratio 2.14 low sample Win rate 58.3% Trades 37",
        "Candles 744 Decisions 745 Missed candles 5 Ambiguous candles 2",
        "Slippage 2.5 bps of each market fill",
        "What this proves, and what it does not",
        "One of 3 tests",
        "no advice",
        "Candles of an exchange, decided on by a real model.",
        "Last recomputed 28 Nov 2025, 09:30 UTC",
        "alphalab verify FILE",
        PROOF.canonical_sha256,
        PROOF.signature,
        PROOF.public_key,
        "Looked at 1,234 times",
    ):
        assert said in text


def test_a_simulated_test_says_so_beside_its_verdict():
    simulated = replace(FACE, seal="simulated", is_model_simulated=True)

    page = parsed(replace(GENUINE, face=simulated))

    first = page.text.partition("Certificate of a")[0]
    assert "Not a real test: a simulation decided in place of a language model." in first
    assert page.meta()["og:title"] == "Genuine: Momentum Prime, +12.35% (simulated)"


def test_a_revoked_one_says_when_and_why():
    view = replace(
        GENUINE,
        verdict="revoked",
        reason="its candles were wrong",
        revoked_at=datetime(2025, 12, 1, 23, 0, tzinfo=UTC),
    )

    assert "Revoked on 1 Dec 2025. Reason: its candles were wrong" in parsed(view).text


def test_figures_that_nobody_vouches_for_are_not_shown():
    text = verification_page(of_verdict("tampered"))

    assert "12.35" not in text
    assert "Momentum Prime" not in text
    assert FACE.verification_code in text


def test_social_cards_get_the_picture():
    meta = parsed(GENUINE).meta()

    assert meta["og:title"] == meta["twitter:title"] == "Genuine: Momentum Prime, +12.35%"
    assert meta["og:image"] == meta["twitter:image"] == GENUINE.image_url
    assert (meta["og:image:width"], meta["og:image:height"]) == ("1600", "900")
    assert meta["og:url"] == FACE.share_url
    assert meta["twitter:card"] == "summary_large_image"
    assert meta["og:description"].startswith("Signed by AlphaLab")


@pytest.mark.parametrize("verdict", ["tampered", "not_reproduced", "revoked", "unknown"])
def test_a_card_flatters_nothing_that_cannot_be_relied_on(verdict: Verdict):
    meta = parsed(of_verdict(verdict)).meta()

    assert "og:image" not in meta
    assert meta["twitter:card"] == "summary"
    assert meta["robots"] == "noindex"
    assert not meta["og:title"].startswith("Genuine")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_whatever_users_write_is_text(verdict: Verdict):
    face = replace(
        FACE,
        agent_name=EVIL,
        model=EVIL,
        asset=f"{EVIL}/{EVIL}",
        data_source=EVIL,
        timeframe=EVIL,
        engine_version=EVIL,
        duration_display=EVIL,
        share_url=f"https://a/{EVIL}",
        verification_code=EVIL,
    )
    plain = parsed(of_verdict(verdict))

    page = parsed(
        replace(
            of_verdict(verdict),
            code=EVIL,
            face=face,
            reason=EVIL,
            image_url=EVIL,
            pdf_url=EVIL,
            bundle_url=EVIL,
            proof=VerificationProof(
                canonical_sha256=EVIL, signature=EVIL, public_key=EVIL, trace_sha256=EVIL
            ),
        )
    )

    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"bdi"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {"onload", "style"} & names
    assert "<script>alert(1)</script>" in page.text
    assert "49" not in page.text.partition(EVIL)[0]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_name_breaks_the_page(name: str):
    html = verification_page(replace(GENUINE, face=replace(FACE, agent_name=name)))

    encoded = html.encode()
    assert b"\x00" not in encoded
    assert not any(control in html for control in "\u202e\u2066\x1b")


@pytest.mark.parametrize("face", HARD.values(), ids=HARD)
def test_extreme_figures_are_shown(face):
    page = parsed(replace(GENUINE, face=face))

    [line] = [found for found in page.all("polyline") if found["points"].count(" ") != 360]
    assert "nan" not in line["points"]
    assert "inf" not in line["points"]
    assert "None" not in page.text


async def test_the_stylesheet_is_kept_for_ever_under_its_own_address():
    transport = httpx.ASGITransport(bare_app("0"))
    async with httpx.AsyncClient(transport=transport, base_url="http://alphalab.test") as client:
        current = await client.get(STYLESHEET_HREF)
        other = await client.get(STYLESHEET_PATH, params={"v": "earlier"})

    assert current.content == other.content == STYLESHEET
    assert current.headers["Content-Type"].startswith("text/css")
    assert "immutable" in current.headers["Cache-Control"]
    assert other.headers["Cache-Control"] == "no-cache"


def test_the_stylesheet_fetches_nothing():
    assert b"url(" not in STYLESHEET
    assert b"@import" not in STYLESHEET
