"""Files that are made while they are read: JSON, CSV, and archives of either, page by page."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from integrations.spreadsheets import csv_text

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows with the same columns, page by page."""

    name: str
    columns: Sequence[str]
    pages: AsyncIterator[Sequence[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of an archive."""

    name: str
    content: AsyncIterator[bytes]


async def csv_of(table: Table) -> AsyncIterator[bytes]:
    """A table as CSV, no cell of which is a formula; ids and times are to be texts."""
    yield csv_text([table.columns]).encode()
    async for rows in table.pages:
        lines = [[row[name] for name in table.columns] for row in rows]
        yield (await asyncio.to_thread(csv_text, lines)).encode()


async def json_of(pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    """Rows as an array of JSON; ids and times may be objects, times become UTC."""
    yield b"["
    separator = b""
    async for rows in pages:
        if rows:
            text = await asyncio.to_thread(orjson.dumps, rows, option=orjson.OPT_UTC_Z)
            yield separator + text[1:-1]
            separator = b","
    yield b"]"


async def zip_of(members: Iterable[Member], *, in_thread: bool = False) -> AsyncIterator[bytes]:
    """An archive of files, one after another.

    It is deflated `in_thread` only for a reader that is cancelled once at most: it then waits for
    the thread. A request may be cancelled again and again, and its thread would go on alone.
    """
    written = _Written()
    # Whoever waits for a page to be deflated had better get a larger file than wait for long.
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member in members:
            with archive.open(member.name, "w", force_zip64=True) as file:
                async for piece in member.content:
                    if in_thread:
                        await _in_thread(file.write, piece)
                    else:
                        file.write(piece)
                    yield written.taken()
    yield written.taken()


async def _in_thread(write: Callable[[bytes], int], piece: bytes) -> None:
    """Write, and leave no thread behind that still writes."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, piece))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])


class _Written:
    """What an archive has written since it was last asked; it cannot seek, so nothing is kept."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes, /) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing waits here to be flushed."""

    def close(self) -> None:
        """Nothing here has to be closed."""

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
