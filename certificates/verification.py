"""Verifies a bundle from itself and public keys alone: what is signed, and whether it is so.

Everything that does not hold is a `Problem` with its place. A file that is no bundle at all is
refused with `certificates.bundle_reading.BundleRefused`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from certificates.bundle import CANDLES, CERTIFICATE, README, README_TEXT, SignedDocument
from certificates.bundle_reading import Bundle, open_bundle
from certificates.canonical import Document, NotCanonical, sha256_hex
from certificates.comparison import Counted, compare_figures, compare_trades
from certificates.contents import Contents, UnreadableFile, read_contents
from certificates.figures import Course, figures_of
from certificates.problems import (
    UNKNOWN_KEY_FIELD,
    Findings,
    Outcome,
    Part,
    Problem,
    outcome_of,
)
from certificates.records import trade_records
from certificates.signing import PublicKey
from trading.candles import Timeframe
from trading.errors import InvalidCandles, TradingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of it; `looked_at` are the parts that could be verified, well or not."""

    document: Document | None
    public_key_id: str | None
    problems: tuple[Problem, ...]
    looked_at: frozenset[Part]

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.problems)

    @property
    def is_genuine(self) -> bool:
        return not self.problems

    @property
    def is_signed(self) -> bool:
        """Whether the document is what one of the keys has signed, whatever else is wrong."""
        wrong = {each.part for each in self.problems}
        return self.document is not None and "signature" not in wrong


def verify_bundle(file: BinaryIO, keys: Sequence[PublicKey]) -> Verification:
    """Verify a bundle against any of the keys. Raises `BundleRefused` for what is none."""
    findings = Findings()
    with open_bundle(file) as bundle:
        _check_readme(bundle, findings)
        signed = _signed(bundle, findings)
        document = None if signed is None else check_signed(signed, keys, findings)
        if document is not None:
            _verify_contents(bundle, document, findings)
    return Verification(
        document=document,
        public_key_id=None if signed is None else signed.public_key_id,
        problems=findings.summed_up(),
        looked_at=frozenset(findings.looked_at),
    )


def check_signed(
    signed: SignedDocument, keys: Sequence[PublicKey], findings: Findings
) -> Document | None:
    """Whether the document is canonical and signed; None where it cannot be read."""
    findings.look("signature")
    if sha256_hex(signed.text) != signed.canonical_sha256:
        _note(findings, "canonical_sha256", "It is not the SHA-256 of the document.")
    key = next((each for each in keys if each.id == signed.public_key_id), None)
    if key is None:
        known = ", ".join(each.id for each in keys) or "none"
        message = f"It is signed with another key than those known: {known}."
        _note(findings, UNKNOWN_KEY_FIELD, message)
    elif not key.verifies(signed.signature, signed.text):
        _note(findings, "signature", "The document is not what was signed with this key.")
    findings.look("document")
    try:
        return Document.from_bytes(signed.text)
    except NotCanonical as e:
        findings.add(Problem(part="document", file=CERTIFICATE, field="canonical", message=str(e)))
        return None


def _check_readme(bundle: Bundle, findings: Findings) -> None:
    """That the steps by hand are ours: whoever follows them has nothing else to go by."""
    if bundle.readme() != README_TEXT.encode():
        message = "It is not the text that every bundle of this format has."
        findings.add(Problem(part="document", file=README, message=message))


def _signed(bundle: Bundle, findings: Findings) -> SignedDocument | None:
    findings.look("document")
    try:
        return SignedDocument.from_bytes(bundle.certificate())
    except NotCanonical as e:
        findings.add(Problem(part="document", file=CERTIFICATE, message=str(e)))
        return None


def _verify_contents(bundle: Bundle, document: Document, findings: Findings) -> None:
    try:
        contents = read_contents(bundle, document, findings)
        timeframe = Timeframe.parse(document.test.timeframe)
    except UnreadableFile:
        return
    except TradingError as e:
        findings.add(_wrong("test.timeframe", str(e)))
        return
    findings.look("candles")
    if timeframe.milliseconds != document.rules.timeframe_ms:
        findings.add(_wrong("rules.timeframe_ms", "It is not the length of the timeframe."))
    elif not 0 < document.data.stepped_candles <= len(contents.window):
        findings.add(_wrong("data.stepped_candles", "There are not so many candles."))
    elif _candles_are_valid(contents, timeframe, findings):
        _fold(contents, document, timeframe, findings)


def _candles_are_valid(contents: Contents, timeframe: Timeframe, findings: Findings) -> bool:
    try:
        contents.window.validate(timeframe)
    except InvalidCandles as e:
        line = None if e.line is None else e.line + 2  # a header, and lines count from 1
        findings.add(Problem(part="candles", file=CANDLES, line=line, message=str(e)))
        return False
    return True


def _fold(contents: Contents, document: Document, timeframe: Timeframe, findings: Findings) -> None:
    """Play the test again, and hold what comes of it beside what is certified."""
    stepped = contents.window.slice(0, document.data.stepped_candles)
    course = Course(
        candles=stepped,
        decisions=contents.decisions.in_time,
        sightings=contents.sightings,
        rules=document.rules,
        ending=document.test.ending,
    )
    findings.look("trades")
    try:
        told = course.fold()
        figures = figures_of(course, told)
    except (ArithmeticError, LookupError, TypeError, ValueError) as e:
        message = f"These candles and decisions cannot be folded ({type(e).__name__})."
        findings.add(Problem(part="trades", message=message))
        return
    findings.extend(compare_trades(contents.trades, trade_records(told)))
    findings.look("figures")
    counted = Counted.of(
        contents.window,
        stepped.slice(0, told.equity.size),
        timeframe,
        decisions=contents.decisions.count,
        late_decisions=contents.decisions.late,
        invalid_replies=contents.decisions.invalid,
    )
    findings.extend(compare_figures(document, figures, counted))


def _wrong(name: str, message: str) -> Problem:
    return Problem(part="candles", file=CERTIFICATE, field=name, message=message)


def _note(findings: Findings, name: str, message: str) -> None:
    findings.add(Problem(part="signature", file=CERTIFICATE, field=name, message=message))
