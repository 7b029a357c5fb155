"""What the files of a certificate are called in the object storage."""

from collections.abc import Mapping
from types import MappingProxyType

# By the columns in which a row names them.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "pdf_key": "certificate.pdf",
        "image_key": "certificate.png",
        "qr_key": "qr.png",
        "bundle_key": "bundle.zip",
    }
)


def folder_of(result_id: str, code: str) -> str:
    return f"certificates/{result_id}/{code}"
