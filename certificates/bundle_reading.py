"""Reads bundles that anybody may have made: what is in them is believed of nothing.

Only what is asked for is decompressed, line by line, within limits that a real bundle keeps.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from certificates.bundle import (
    CANDLES,
    CERTIFICATE,
    DECISIONS,
    README,
    README_TEXT,
    REASONING,
    SIGHTINGS,
    TRADES,
)

MAX_ARCHIVE_BYTES = 1 << 30
# Half a million candles with a decision each, and what was thought about them.
MAX_MEMBER_BYTES = 2 << 30
MAX_CERTIFICATE_BYTES = 64 * 1024
MAX_LINE_BYTES = 256 * 1024
MAX_LINES = 500_001

_REQUIRED = frozenset((README, CERTIFICATE, CANDLES, DECISIONS, SIGHTINGS, TRADES))
_KNOWN = _REQUIRED | {REASONING}
# A member begins with its signature, numbers, and the lengths of its name and of other fields.
_HEADER_BYTES = 30
# An entry of the directory has the lengths of its name, of other fields and of a comment.
_ENTRY_BYTES = 46
_LENGTHS_AT = slice(28, 34)
# Where its sizes were not known before, they follow it: signature, CRC, two sizes.
_HAS_DESCRIPTOR = 0x08
_DESCRIPTOR_BYTES = 16
# A ZIP file ends with its directory's record: signature, numbers, sizes, length of a comment.
_END = b"PK\x05\x06"
_END_BYTES = 22
_LONG_END = b"PK\x06\x07"
_LONG_END_BYTES = 20
_DIRECTORY_BYTES = 16 * 1024
_MESSAGE_LENGTH = 200
# What reading an archive raises of one that is none.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)


class BundleRefused(ValueError):
    """A file that is no bundle, in a sentence."""


class Bundle:
    """The files of a bundle."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = frozenset(archive.namelist())

    def readme(self) -> bytes:
        """The steps by hand, as far as they can be ours."""
        with self._opened(README) as member:
            return member.read(len(README_TEXT.encode()) + 1)

    def certificate(self) -> bytes:
        with self._opened(CERTIFICATE) as member:
            content = member.read(MAX_CERTIFICATE_BYTES + 1)
        if len(content) > MAX_CERTIFICATE_BYTES:
            raise BundleRefused(f"{CERTIFICATE} is longer than {MAX_CERTIFICATE_BYTES:,} bytes.")
        return content

    def lines(self, name: str) -> Iterator[bytes]:
        """Each line without its end."""
        with self._opened(name) as member:
            reader = io.BufferedReader(member, MAX_LINE_BYTES)  # type: ignore[type-var]  # it reads like a raw one
            number = 0
            while line := reader.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number > MAX_LINES:
                    raise BundleRefused(f"{name} has more than {MAX_LINES:,} lines.")
                if not line.endswith(b"\n"):
                    raise BundleRefused(f"{name} line {number}: the line is too long or cut off.")
                yield line[:-1]

    @contextmanager
    def _opened(self, name: str) -> Generator[IO[bytes]]:
        with _refusing(name), self._archive.open(name) as member:
            yield member


@contextmanager
def open_bundle(file: BinaryIO) -> Generator[Bundle]:
    """Open a bundle. Raises `BundleRefused`, now or when a file of it turns out to be broken."""
    directory_at = _check_end(file)
    with _refusing("The file"):
        archive = zipfile.ZipFile(file)
    with archive:
        _check_members(archive.infolist())
        with _refusing("The file"):
            _check_no_gaps(file, archive, directory_at)
        yield Bundle(archive)


def _check_end(file: BinaryIO) -> int:
    """That the archive's directory is as small as a bundle's is; where it begins."""
    size = file.seek(0, io.SEEK_END)
    if size > MAX_ARCHIVE_BYTES:
        raise BundleRefused(f"The file is larger than {MAX_ARCHIVE_BYTES:,} bytes.")
    file.seek(max(0, size - _END_BYTES - _LONG_END_BYTES))
    tail = file.read()
    end, before = tail[-_END_BYTES:], tail[:-_END_BYTES]
    if len(end) < _END_BYTES or not end.startswith(_END):
        raise BundleRefused("The file is no bundle: it does not end as a ZIP archive.")
    directory = int.from_bytes(end[12:16], "little")
    if before.startswith(_LONG_END) or directory > _DIRECTORY_BYTES:
        raise BundleRefused("The archive has more files than a bundle.")
    if end[-2:] != b"\0\0":
        raise BundleRefused("The archive has a comment, and no bundle has.")
    return size - _END_BYTES - directory


def _check_no_gaps(file: BinaryIO, archive: zipfile.ZipFile, directory_at: int) -> None:
    """That nothing stands before, between or behind the files: no text that another reader sees."""
    at = 0
    for member in sorted(archive.infolist(), key=lambda each: each.header_offset):
        if member.header_offset != at or member.extra or member.comment:
            raise BundleRefused("The archive has more in it than its files.")
        file.seek(at)
        name_length, extra_length = struct.unpack("<HH", file.read(_HEADER_BYTES)[-4:])
        if extra_length or name_length != len(member.filename):
            raise BundleRefused("The archive has more in it than its files.")
        at += _HEADER_BYTES + name_length + member.compress_size
        at += _DESCRIPTOR_BYTES if member.flag_bits & _HAS_DESCRIPTOR else 0
    if at != directory_at or archive.start_dir != at:
        raise BundleRefused("The archive has more in it than its files.")
    file.seek(directory_at)
    for member in archive.infolist():
        lengths = struct.unpack("<HHH", file.read(_ENTRY_BYTES)[_LENGTHS_AT])
        name = file.read(len(member.filename))
        if lengths != (len(name), 0, 0):
            raise BundleRefused("The archive has more in it than its files.")


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        if name not in _KNOWN:
            raise BundleRefused(f"The archive has a file that no bundle has: {name[:60]!r}.")
        if names.count(name) > 1:
            raise BundleRefused(f"The archive has two files called {name}.")
        if member.file_size > MAX_MEMBER_BYTES:
            raise BundleRefused(f"{name} is larger than {MAX_MEMBER_BYTES:,} bytes.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleRefused(f"{name} is compressed in a way that no bundle is.")
    if missing := _REQUIRED.difference(names):
        raise BundleRefused(f"The archive has no {min(missing)}.")


@contextmanager
def _refusing(what: str) -> Generator[None]:
    try:
        yield
    except BundleRefused:
        raise
    except _BROKEN as e:
        raise BundleRefused(f"{what} is broken: {str(e)[:_MESSAGE_LENGTH]}.") from None
