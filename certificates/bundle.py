"""A certificate with all that it was made of, as one archive that anybody can verify.

It is written piece by piece: of candles, decisions and trades only a page is text at a time.
"""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from certificates.canonical import (
    STRICT,
    Document,
    Head,
    NotCanonical,
    TraceFacts,
    canonical_json,
    explained,
    sha256_hex,
)
from certificates.chain import CANDLE_HEADER, Chain, candle_lines, record_line
from certificates.records import (
    DecisionRecord,
    Record,
    SightingRecord,
    StoredDecision,
    TradeRecord,
    sighting_records,
    trade_records,
)
from certificates.signing import SigningKey
from trading.candles import CandleSeries
from trading.parity import Recording

README: Final = "README.txt"
CERTIFICATE: Final = "certificate.json"
CANDLES: Final = "candles.csv"
DECISIONS: Final = "decisions.jsonl"
SIGHTINGS: Final = "sightings.jsonl"
TRADES: Final = "trades.jsonl"
REASONING: Final = "reasoning.jsonl"

_CANDLES_PER_PIECE = 1_000
_RECORDS_PER_PIECE = 100
_LEVEL = 6

# The archive of a certificate has the same bytes whenever it is written.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BEFORE_DOCUMENT = b'{"canonical":'
_AFTER_DOCUMENT = b',"canonical_sha256":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """The content of `certificate.json`; `text` are the bytes that were signed."""

    text: bytes
    canonical_sha256: str
    public_key_id: str
    signature: str

    @classmethod
    def sign(cls, document: Document, key: SigningKey) -> Self:
        text = document.to_bytes()
        return cls(
            text=text,
            canonical_sha256=sha256_hex(text),
            public_key_id=key.public_key.id,
            signature=key.sign(text),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises `NotCanonical` for anything else."""
        begin, end = len(_BEFORE_DOCUMENT), content.rfind(_AFTER_DOCUMENT)
        if not content.startswith(_BEFORE_DOCUMENT) or end < begin:
            raise NotCanonical("It does not begin with the canonical document.")
        try:
            seal = _SEAL.validate_json(b"{" + content[end + 1 :])
        except ValidationError as e:
            raise NotCanonical(explained(e)) from None
        found = cls(
            text=content[begin:end],
            canonical_sha256=seal.canonical_sha256,
            public_key_id=seal.public_key_id,
            signature=seal.signature,
        )
        if found.to_bytes() != content:
            raise NotCanonical("It is not in canonical form.")
        return found

    def to_bytes(self) -> bytes:
        seal = canonical_json(
            {
                "canonical_sha256": self.canonical_sha256,
                "public_key_id": self.public_key_id,
                "signature": self.signature,
            }
        )
        return _BEFORE_DOCUMENT + self.text + b"," + seal[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seal:
    __pydantic_config__ = STRICT

    canonical_sha256: str
    public_key_id: str
    signature: str


_SEAL = TypeAdapter(_Seal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision and the words that it carries the hash of."""

    record: DecisionRecord
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What the files are written from; `decisions` begins to read them, page by page, anew."""

    window: CandleSeries
    decisions: Callable[[], AsyncIterator[Sequence[Decided]]]
    sightings: Sequence[SightingRecord]
    trades: Sequence[TradeRecord]


def material_of(
    recording: Recording, pages: Callable[[], AsyncIterator[Sequence[StoredDecision]]]
) -> Material:
    """What is written of a recording; `pages` begins to read its decisions anew."""

    async def decisions() -> AsyncIterator[Sequence[Decided]]:
        async for page in pages():
            yield [
                Decided(record=DecisionRecord.of(each), reasoning=each.reasoning) for each in page
            ]

    return Material(
        window=recording.window,
        decisions=decisions,
        sightings=sighting_records(recording),
        trades=trade_records(recording),
    )


class TraceChanged(RuntimeError):
    """The files are not those of the document: what they are written from has changed since."""


@dataclass(slots=True)
class Traced:
    """The heads of the chain, and what is counted of the decisions on its way."""

    heads: dict[str, Head] = field(default_factory=dict)
    late_decisions: int = 0
    invalid_replies: int = 0

    @property
    def facts(self) -> TraceFacts:
        return TraceFacts(
            candles=self.heads[CANDLES],
            decisions=self.heads[DECISIONS],
            sightings=self.heads[SIGHTINGS],
            trades=self.heads[TRADES],
        )


async def trace_of(material: Material) -> Traced:
    """Go through all that would be written, of which only a page is in memory."""
    traced = Traced()
    async for _ in _chained_files(material, traced):
        pass
    return traced


async def bundle(signed: SignedDocument, material: Material) -> AsyncIterator[bytes]:
    """The archive, piece by piece. Raises `TraceChanged` at its end, or is whole."""
    document, traced = Document.from_bytes(signed.text), Traced()
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr(_member(README), README_TEXT)
        archive.writestr(_member(CERTIFICATE), signed.to_bytes())
        async for piece in _compressed(archive, written, _chained_files(material, traced)):
            yield piece
        if document.includes_reasoning:
            async for piece in _compressed(archive, written, _reasoning(material)):
                yield piece
    if traced.facts != document.trace:
        raise TraceChanged("What the certificate was made of has changed since it was composed.")
    yield written.taken()


# Pieces of files, in order: the name of the file, and some of its bytes.
_Pieces = AsyncIterator[tuple[str, bytes]]


async def _chained_files(material: Material, traced: Traced) -> _Pieces:
    chain = Chain()
    yield CANDLES, CANDLE_HEADER.encode() + b"\n"
    lines = candle_lines(chain, material.window)
    # Beside the event loop, here as below: a long test is tens of thousands of hashes.
    while piece := await asyncio.to_thread(_joined, islice(lines, _CANDLES_PER_PIECE)):
        yield CANDLES, piece
    traced.heads[CANDLES] = chain.head()
    yield DECISIONS, b""
    async for page in material.decisions():
        traced.late_decisions += sum(each.record.late for each in page)
        traced.invalid_replies += sum(each.record.invalid_reply for each in page)
        decided = [each.record for each in page]
        yield DECISIONS, await asyncio.to_thread(_record_lines, chain, decided)
    traced.heads[DECISIONS] = chain.head()
    files: tuple[tuple[str, Sequence[Record]], ...] = (
        (SIGHTINGS, material.sightings),
        (TRADES, material.trades),
    )
    for name, records in files:
        yield name, b""
        for begin in range(0, len(records), _RECORDS_PER_PIECE):
            batch = records[begin : begin + _RECORDS_PER_PIECE]
            yield name, await asyncio.to_thread(_record_lines, chain, batch)
        traced.heads[name] = chain.head()


async def _reasoning(material: Material) -> _Pieces:
    yield REASONING, b""
    async for page in material.decisions():
        lines = [
            canonical_json({"candle": each.record.candle, "reasoning": each.reasoning})
            for each in page
        ]
        yield REASONING, b"".join(line + b"\n" for line in lines)


async def _compressed(
    archive: zipfile.ZipFile, written: "_Written", pieces: _Pieces
) -> AsyncIterator[bytes]:
    """What the archive has to say after each piece."""
    with ExitStack() as stack:
        current, member = None, None
        async for name, piece in pieces:
            if name != current or member is None:
                stack.close()
                current = name
                member = stack.enter_context(archive.open(_member(name), "w", force_zip64=False))
            member.write(piece)
            yield written.taken()


def _record_lines(chain: Chain, records: Sequence[Record]) -> bytes:
    return b"".join(record_line(chain, each) for each in records)


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(lines)


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


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


README_TEXT = """\
A certificate of AlphaLab, with everything that it was made of.

  certificate.json   what is certified, its SHA-256, and an Ed25519 signature over it
  candles.csv        the market, candle by candle
  decisions.jsonl    what the agent decided at the close of which candle
  sightings.jsonl    what a live test saw of candles before they closed
  trades.jsonl       what became of it
  reasoning.jsonl    the agent's own words, where its owner publishes them

To verify all of it, without a network:

  alphalab verify THIS_FILE --public-key KEY

where KEY is the public key of the service that issued it, as /.well-known/alphalab-certificate-key
tells it there. A bundle names its key, but does not contain it: whose it is, you have to know.
Whether a certificate was withdrawn since it was issued, only the service's page /verify/CODE tells.

By hand:

 1. certificate.json is {"canonical":DOCUMENT,"canonical_sha256":"...","public_key_id":"...",
    "signature":"..."} in one line. Take the bytes of DOCUMENT as they stand there. Their SHA-256
    is canonical_sha256, and signature is the base64 of an Ed25519 signature over them.
 2. The chain begins with link = SHA-256("alphalab-certificate/1 trace" and a line feed). For each
    line of candles.csv (after its header), decisions.jsonl, sightings.jsonl and trades.jsonl, in
    this order and from file to file: link = SHA-256(link, as 32 bytes, followed by the record).
    The record of a CSV line is what stands before its last comma; of a line
    {"link":"...","record":RECORD} it is the bytes of RECORD. Each link stands in its line, and the
    last one of each file in DOCUMENT under "trace".
 3. The SHA-256 of each reasoning, as UTF-8, is reasoning_sha256 of the decision of that candle.
 4. Trades, equity and figures follow from candles, decisions and DOCUMENT's rules, as the trading
    rules in the service's documentation say.

This text is the same in every bundle of format 1: one with another text is no bundle of ours.
"""
