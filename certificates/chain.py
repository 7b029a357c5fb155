"""The hash chain through everything a test read and did: a link binds all the lines before it.

The first link's predecessor is the SHA-256 of a name, and each link is
`SHA-256(predecessor || record)`: 32 raw bytes and then the record's bytes as they stand in the
file. The chain goes through candles, decisions, sightings and trades, in this order.
"""

import hashlib
import hmac
from collections.abc import Iterator

from certificates.canonical import Head, canonical_json
from certificates.records import Record
from trading.candles import CandleSeries

DOMAIN = b"alphalab-certificate/1 trace\n"
CANDLE_HEADER = "open_time,open,high,low,close,volume,link"
LINK_LENGTH = 64
# A line of JSON is canonical as a whole, so its record stands between these.
BEFORE_LINK = b'{"link":"'
BEFORE_RECORD = b'","record":'
AFTER_RECORD = b"}"
RECORD_AT = len(BEFORE_LINK) + LINK_LENGTH + len(BEFORE_RECORD)
_LINK_AT = slice(len(BEFORE_LINK), len(BEFORE_LINK) + LINK_LENGTH)


class Chain:
    """Where the chain stands; `lines` counts those since the last `head`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(DOMAIN).digest()
        self._lines = 0

    def add(self, record: bytes) -> str:
        """Go on by a record, and return its link."""
        self._digest = hashlib.sha256(self._digest + record).digest()
        self._lines += 1
        return self._digest.hex()

    def follow(self, record: bytes, link: str) -> bool:
        """Go on as a file says it does; whether its link is the record's own."""
        is_right = hmac.compare_digest(self.add(record).encode(), link.encode())
        if not is_right:
            self._digest = bytes.fromhex(link)
        return is_right

    def head(self) -> Head:
        """End a file: its lines, and the last link. The chain goes on from there."""
        head = Head(lines=self._lines, sha256=self._digest.hex())
        self._lines = 0
        return head

    def rejoin(self, head: Head) -> None:
        """Go on from where a document says that a file ended."""
        self._digest = bytes.fromhex(head.sha256)
        self._lines = 0


def candle_lines(chain: Chain, series: CandleSeries) -> Iterator[bytes]:
    """Each candle as a line of CSV, its numbers as short as they are exact."""
    for row in series.rows():
        text = ",".join(map(repr, row))
        yield f"{text},{chain.add(text.encode())}\n".encode()


def record_line(chain: Chain, record: Record) -> bytes:
    """A record as a line of canonical JSON."""
    content = canonical_json(record.to_json())
    link = chain.add(content).encode()
    return BEFORE_LINK + link + BEFORE_RECORD + content + AFTER_RECORD + b"\n"


def split_line(line: bytes) -> tuple[str, bytes] | None:
    """Link and record of a line of JSON without its end; None where it has not that form."""
    link, record = line[_LINK_AT], line[RECORD_AT:-1]
    is_one = line == BEFORE_LINK + link + BEFORE_RECORD + record + AFTER_RECORD
    return (link.decode(), record) if is_one and is_link(link) else None


def is_link(text: bytes) -> bool:
    return len(text) == LINK_LENGTH and not text.translate(None, b"0123456789abcdef")
