"""Where files are kept, as a setting names it: a folder of this machine, or a bucket of S3."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that all processes see."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket, or what is under a prefix of it."""

    name: str
    prefix: str | None


def location_of(text: str) -> Folder | Bucket:
    """Read `/a/folder`, `file:///a/folder` or `s3://bucket/prefix`. Raises ValueError.

    No folder is relative: API and worker may run in different ones, and `s3:/bucket` is a slip.
    """
    if text.startswith("/"):
        return Folder(path=Path(text))
    parts = urlsplit(text if "://" in text else "")
    match parts.scheme, parts.netloc, parts.path:
        case "file", "" | "localhost", path if path.strip("/"):
            return Folder(path=Path(unquote(path)))
        case "s3", name, path if name and "@" not in name and not parts.query:
            return Bucket(name=name, prefix=path.strip("/") or None)
    raise ValueError("must be /a/folder, file:///a/folder or s3://bucket/prefix")
