"""The QR code of a certificate's address: as modules to draw, and as a picture."""

from io import BytesIO
from itertools import groupby

from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode

QUIET_ZONE = 4  # modules, of the standard
_PICTURE_MODULE_PX = 12


def qr_matrix(url: str) -> tuple[tuple[bool, ...], ...]:
    """Return the rows of modules, dark where true, without the quiet zone.

    Raises:
        ValueError: no QR code is large enough for the address.
    """
    code = QRCode(error_correction=ERROR_CORRECT_M, border=0)
    code.add_data(url, optimize=0)
    code.make(fit=True)
    return tuple(tuple(bool(module) for module in row) for row in code.get_matrix())


def dark_stretches(url: str) -> list[tuple[int, int, int]]:
    """Return (row, column, length) of all that is dark, in whole stretches of a row."""
    stretches = []
    for number, row in enumerate(qr_matrix(url)):
        column = 0
        for is_dark, modules in groupby(row):
            length = len(list(modules))
            if is_dark:
                stretches.append((number, column, length))
            column += length
    return stretches


def qr_picture(url: str, module_px: int) -> Image.Image:
    """Return a black and white picture, quiet zone included."""
    matrix = qr_matrix(url)
    size = len(matrix) + 2 * QUIET_ZONE
    picture = Image.new("1", (size, size), 1)
    for row, modules in enumerate(matrix):
        for column, is_dark in enumerate(modules):
            if is_dark:
                picture.putpixel((column + QUIET_ZONE, row + QUIET_ZONE), 0)
    return picture.resize((size * module_px, size * module_px), Image.Resampling.NEAREST)


def draw_qr_code(url: str) -> bytes:
    """Return the QR code as a PNG."""
    written = BytesIO()
    qr_picture(url, _PICTURE_MODULE_PX).save(written, "PNG", optimize=True)
    return written.getvalue()
