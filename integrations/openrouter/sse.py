"""Server-sent events out of bytes, however the network cut them."""

from collections.abc import Iterator

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineTooLong(ValueError):
    """A single line outgrew the decoder's buffer."""


class EventDecoder:
    """Feed it chunks, get the `data` of each finished event.

    Works on bytes and ends lines at CR, LF and CRLF only: models do write U+2028 and U+0085, and
    splitting text "at lines" would tear the JSON apart there. Comments (`: OPENROUTER PROCESSING`)
    and other fields than `data` are skipped; an event cut off before its blank line is dropped.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        self._buffer += chunk
        for line in self._lines():
            if line.startswith(b"data"):
                self._take_field(line)
            elif not line and self._data:
                yield b"\n".join(self._data).decode("utf-8", "replace")
                self._data.clear()

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            if sum(map(len, self._data)) > self._max_line_bytes:
                raise LineTooLong

    def _lines(self) -> Iterator[bytes]:
        while (end := self._line_end()) is not None:
            line = bytes(self._buffer[:end])
            self._after_cr = self._buffer[end] == ord("\r")
            del self._buffer[: end + 1]
            self._scanned = 0
            yield self._without_mark(line)
        if len(self._buffer) > self._max_line_bytes:
            raise LineTooLong

    def _line_end(self) -> int | None:
        # The LF of a CRLF may come in the next chunk: it ends no line of its own.
        if self._after_cr and self._buffer:
            self._after_cr = False
            if self._buffer[0] == ord("\n"):
                del self._buffer[0]
        ends = [
            position
            for mark in (b"\n", b"\r")
            if (position := self._buffer.find(mark, self._scanned)) >= 0
        ]
        self._scanned = len(self._buffer)
        return min(ends, default=None)

    def _without_mark(self, line: bytes) -> bytes:
        if self._at_start:
            self._at_start = False
            return line.removeprefix(_BYTE_ORDER_MARK)
        return line
