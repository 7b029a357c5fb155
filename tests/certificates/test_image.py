"""The picture has the size that cards want, keeps its margins, and leads to the page."""

from dataclasses import replace
from io import BytesIO

import pytest
import zxingcpp
from PIL import Image, ImageChops

from certificates.face import CertificateFace
from certificates.image import draw_image
from certificates.palette import PAPER, SEALS
from certificates.qr_code import draw_qr_code
from tests.certificates.faces import EMPTY, ENDLESS, ENORMOUS, FACE
from tests.certificates.names import NAMES

MARGIN = 60


def picture_of(face: CertificateFace) -> Image.Image:
    return Image.open(BytesIO(draw_image(face)))


@pytest.mark.parametrize("face", [FACE, ENDLESS, ENORMOUS], ids=range(3))
def test_it_is_a_card_with_free_margins(face: CertificateFace):
    picture = picture_of(face)

    assert (picture.format, picture.size, picture.mode) == ("PNG", (1600, 900), "RGB")
    blank = Image.new("RGB", picture.size, PAPER)
    left, _, right, bottom = ImageChops.difference(picture, blank).crop(
        (0, 20, 1600, 900)
    ).getbbox() or (0, 0, 0, 0)
    assert left >= MARGIN
    assert right <= 1600 - MARGIN
    assert bottom <= 900 - 20 - 30


def test_its_qr_code_leads_to_the_page_even_where_it_is_shown_small():
    for size in ((1600, 900), (800, 450)):
        [code] = zxingcpp.read_barcodes(picture_of(FACE).resize(size))
        assert code.text == FACE.share_url


def test_the_qr_code_alone_leads_to_the_page():
    picture = Image.open(BytesIO(draw_qr_code(FACE.share_url)))

    [code] = zxingcpp.read_barcodes(picture.convert("L"))

    assert picture.format == "PNG"
    assert code.text == FACE.share_url


def test_each_seal_has_its_own_colour():
    edges = {
        seal: picture_of(replace(FACE, seal=seal, equity=())).getpixel((800, 4)) for seal in SEALS
    }

    assert {seal: "#{:02x}{:02x}{:02x}".format(*edge) for seal, edge in edges.items()} == SEALS  # type: ignore[misc]


def test_any_text_is_drawn():
    told = replace(
        EMPTY,
        agent_name=NAMES["arabic"] + NAMES["lone surrogate"],
        model=NAMES["joined emoji"] + NAMES["controls"],
        asset=NAMES["long in chinese"],
    )

    assert draw_image(told) == draw_image(replace(told))
