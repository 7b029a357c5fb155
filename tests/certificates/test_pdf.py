"""The PDF says what the certificate says, on one page, whatever the figures are."""

from dataclasses import replace
from io import BytesIO
from itertools import combinations

import pypdfium2
import pytest
import zxingcpp
from pypdf import PdfReader
from pypdf.generic import DictionaryObject

from certificates.face import CertificateFace
from certificates.pdf import draw_pdf
from tests.certificates.faces import ENDLESS, ENORMOUS, FACE, HARD, RUINED
from tests.certificates.names import NAMES


def text_of(face: CertificateFace) -> str:
    [page] = PdfReader(BytesIO(draw_pdf(face))).pages
    return page.extract_text()


def test_its_text_has_the_figures():
    text = text_of(FACE)

    for said in (
        "Certificate of a backtest\nMomentum Prime",
        "Version 3 · omni mode · anthropic/claude-sonnet-4.5",
        "BTC/USDT · 1h candles · 1 Oct 2025 – 1 Nov 2025\nFull seal",
        "Return\n+12.35%\nBuy and hold\n−3.87%",
        "dashed: starting capital, 10,000 USDT",
        "Max drawdown\n6.42%\nSharpe ratio\n2.14\nlow sample\nWin rate\n58.3%\nTrades\n37\n",
        "Profit factor\n1.92\nEnding capital\n11,235\nUSDT",
        "Candles 744\nDecisions 745\nMissed candles 5\nAmbiguous candles 2\n",
        "Data source Binance, BTC/USDT spot",
        "Fees 10 bps of each fill\nSlippage 2.5 bps of each market fill",
        "Orders fill at the next candle’s open\nStop and target in one candle stop first",
        "Leverage up to 3×",
        "Safety mode on: a stop within 2%\nBlind yes: asset, dates and price level hidden",
        "Trials: 3\nOne of 3 tests",
        "https://alphalab.example/verify/ALX-2025-1127-A3F8K",
        "Code ALX-2025-1127-A3F8K · issued 27 Nov 2025, 14:03 UTC · engine 1.4.0",
        f"SHA-256 {FACE.canonical_sha256}",
        "does not promise",
    ):
        assert said in text


def test_it_says_what_the_figures_rest_on():
    real, own, simulated = (
        text_of(replace(FACE, seal=seal, is_model_simulated=seal == "simulated"))
        for seal in ("full", "own_data", "simulated")
    )

    assert "Return\n" in real
    assert "Return (own data)" in own
    assert "nobody vouches" in own
    assert "Return (simulated)" in simulated
    assert "Not a real test" in simulated
    assert "omni mode · simulated anthropic" in simulated


def test_extreme_figures_are_written_out():
    enormous = text_of(ENORMOUS)

    assert "−99.99%" in text_of(RUINED)
    assert all(figure in enormous for figure in ("+1,000,000,000%", "12,345,678", "1,234,567"))


@pytest.mark.parametrize("face", [FACE, *HARD.values()], ids=["ordinary", *HARD])
def test_nothing_overlaps_and_nothing_leaves_the_margins(face: CertificateFace):
    width, height, boxes = boxes_of(face)

    for left, bottom, right, top in boxes:
        assert left >= 49
        assert right <= width - 49
        assert bottom >= 30
        assert top <= height - 30
    assert [pair for pair in combinations(boxes, 2) if overlap(*pair)] == []


def test_no_name_runs_into_the_seal():
    width, height, boxes = boxes_of(replace(ENDLESS, agent_name="W" * 200))

    beside = [box for box in boxes if height - 166 < (box[1] + box[3]) / 2 < height - 78]
    assert len(beside) >= 4
    assert all(right < width - 50 - 88 for _, _, right, _ in beside)


Box = tuple[float, float, float, float]


def boxes_of(face: CertificateFace) -> tuple[float, float, list[Box]]:
    """Width and height of the page, and where its lines are: left, bottom, right, top."""
    [page] = pypdfium2.PdfDocument(draw_pdf(face))
    text = page.get_textpage()
    boxes: list[Box] = [text.get_rect(number) for number in range(text.count_rects())]
    return *page.get_size(), boxes


def overlap(one: Box, other: Box, tolerance: float = 0.5) -> bool:
    """Letters keep to their boxes; accents of one line may touch those of the one above."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > tolerance and high > tolerance


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_is_drawn(name: str):
    assert "ALX-2025-1127-A3F8K" in text_of(replace(FACE, agent_name=name, equity=()))


@pytest.mark.parametrize("name", ["α-prime", "中文交易员", "한국 거래자", "🚀 to the 🌙"])
def test_names_can_be_copied_out_of_it(name: str):
    assert name in text_of(replace(FACE, agent_name=name, equity=()))


def test_the_same_face_gives_the_same_bytes():
    assert draw_pdf(ENDLESS) == draw_pdf(replace(ENDLESS))


def test_it_tells_programs_what_it_is():
    reader = PdfReader(BytesIO(draw_pdf(FACE)))

    assert reader.metadata is not None
    assert reader.metadata.title == (
        "Certificate of a backtest: Momentum Prime, ALX-2025-1127-A3F8K"
    )
    assert reader.metadata.author == "AlphaLab"
    assert str(reader.root_object["/Lang"]) == "en"
    [page] = reader.pages
    assert [round(side) for side in page.mediabox[2:]] == [595, 842]


def test_all_its_fonts_are_embedded_and_nothing_in_it_is_a_picture():
    [page] = PdfReader(BytesIO(draw_pdf(ENDLESS))).pages
    fonts = page["/Resources"]["/Font"].values()  # type: ignore[index]

    assert len(fonts) >= 5
    for font in map(resolved, fonts):
        assert "/FontFile2" in resolved(font["/FontDescriptor"]), font
    assert list(page.images) == []


def resolved(value: object) -> DictionaryObject:
    found = value.get_object()  # type: ignore[attr-defined]
    assert isinstance(found, DictionaryObject)
    return found


def test_its_qr_code_leads_to_the_page():
    [page] = pypdfium2.PdfDocument(draw_pdf(FACE))

    [code] = zxingcpp.read_barcodes(page.render(scale=2).to_pil())

    assert code.text == FACE.share_url
