"""People on phones and at desks, by day and by night, can read the public page."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from api.pages.verification import PAGE_HEADERS, VerificationView, verification_page
from api.routes import stylesheet
from tests.browser.chromium import Tab, chromium_path, open_tab
from tests.certificates.faces import ENDLESS, ENORMOUS, FACE
from tests.certificates.views import GENUINE, PROOF
from tests.loopback import serve_app

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
BARRIERS = """
axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) =>
  nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`)))
"""
BROADEST = """
[...document.querySelectorAll("body *")].reduce(
  (most, element) => Math.max(most, element.getBoundingClientRect().right), 0)
"""
VIEWS: dict[str, VerificationView] = {
    "genuine": GENUINE,
    "endless": replace(
        GENUINE,
        verdict="revoked",
        face=replace(ENDLESS, pnl_pct=1e12, seal="own_data"),
        reason="because " * 40,
        proof=replace(PROOF, signature="A" * 88),
    ),
    "enormous": replace(
        GENUINE, verdict="not_recomputable", face=replace(ENORMOUS, seal="simulated")
    ),
    "unknown": VerificationView(verdict="unknown", code="ALX-2025-1127-WRONG"),
}
Scheme = Literal["light", "dark"]
SCREENS: list[tuple[int, Scheme]] = list(product((360, 1280), ("light", "dark")))


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    app = FastAPI()
    app.include_router(stylesheet.router)

    @app.get("/verify/{name}")
    def page(name: str) -> HTMLResponse:
        return HTMLResponse(verification_page(VIEWS[name]), headers=dict(PAGE_HEADERS))

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    with serve_app(app) as address:
        yield f"{address}/verify"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    chromium = chromium_path()
    if chromium is None:
        pytest.skip("no chromium: the public page is NOT looked at in a browser")
    if not AXE.is_file():
        pytest.skip("no axe-core: the public page is NOT looked at; run `make browser`")
    with open_tab(chromium) as tab:
        yield tab


def test_the_public_page_has_no_barriers_and_fits_every_screen(tab: Tab, pages: str):
    axe = AXE.read_text()
    for name in VIEWS:
        for width, scheme in SCREENS if name == "genuine" else SCREENS[::3]:
            tab.show(f"{pages}/{name}", width=width, scheme=scheme)
            where = f"{name} at {width} px, {scheme}"

            assert tab.evaluate("getComputedStyle(document.body).marginTop") == "0px", where
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, where
            assert tab.evaluate(BROADEST) <= width, where
            tab.evaluate(f"{axe}; 0")
            assert tab.evaluate(BARRIERS) == [], where
    assert tab.complaints == []


def test_it_is_dark_at_night_and_says_what_the_certificate_is_of(tab: Tab, pages: str):
    colours = set()
    for scheme in ("light", "dark"):
        tab.show(f"{pages}/genuine", width=360, scheme=scheme)
        colours.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert len(colours) == 2
    assert tab.evaluate("document.querySelector('h2').innerText") == FACE.agent_name


def test_the_lock_file_names_no_registry():
    packages = json.loads((AXE.parents[2] / "package-lock.json").read_text())["packages"]

    assert len(packages) > 1
    assert [name for name, package in packages.items() if "resolved" in package] == []
