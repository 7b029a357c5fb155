"""What the files of a bundle hold, line by line, and whether each follows from those before it."""

from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from certificates.bundle import CANDLES, DECISIONS, REASONING, SIGHTINGS, TRADES
from certificates.bundle_reading import Bundle
from certificates.canonical import (
    STRICT,
    Document,
    Head,
    NotCanonical,
    canonical_json,
    explained,
)
from certificates.chain import CANDLE_HEADER, Chain, is_link, split_line
from certificates.problems import Findings, Problem
from certificates.records import (
    DECISION,
    SIGHTING,
    TRADE,
    DecisionRecord,
    Record,
    SightingRecord,
    TradeRecord,
    reasoning_hash,
)
from trading.candles import CandleSeries
from trading.decisions import Decision
from trading.simulation import Sighting

_LATEST = 2**53  # of a time in milliseconds: what JSON keeps exactly
_PRICES = 5
_Line = TypeVar("_Line", bound=Record)


class UnreadableFile(ValueError):
    """A line is none, so that nothing can be folded; it has been noted."""


@dataclass(slots=True)
class Decisions:
    """What a fold needs of the decisions, and what else is counted of them."""

    in_time: dict[int, Decision] = field(default_factory=dict)
    reasoning: dict[int, str] = field(default_factory=dict)
    count: int = 0
    late: int = 0
    invalid: int = 0

    def add(self, record: DecisionRecord) -> None:
        self.count += 1
        self.late += record.late
        self.invalid += record.invalid_reply
        if not record.late:
            self.in_time[record.candle] = record.decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    window: CandleSeries
    decisions: Decisions
    sightings: dict[int, Sighting]
    trades: list[TradeRecord]


def read_contents(bundle: Bundle, document: Document, findings: Findings) -> Contents:
    """Read every file but the certificate's. Raises `UnreadableFile` at a line that is none."""
    findings.look("chain")
    reader = _Reader(bundle, findings)
    window = reader.candles(document.trace.candles)
    decisions = Decisions()
    for each in reader.records(DECISIONS, DECISION, document.trace.decisions):
        decisions.add(each)
        if document.includes_reasoning:
            decisions.reasoning[each.candle] = each.reasoning_sha256
    sightings: Iterator[SightingRecord] = reader.records(
        SIGHTINGS, SIGHTING, document.trace.sightings
    )
    seen = {each.candle: each.sighting for each in sightings}
    trades = list(reader.records(TRADES, TRADE, document.trace.trades))
    _check_reasoning(bundle, document, decisions, findings)
    return Contents(window=window, decisions=decisions, sightings=seen, trades=trades)


class _Reader:
    """Follows the chain from file to file; of each file the first broken link is noted."""

    def __init__(self, bundle: Bundle, findings: Findings) -> None:
        self._bundle = bundle
        self._findings = findings
        self._chain = Chain()

    def candles(self, head: Head) -> CandleSeries:
        lines = self._bundle.lines(CANDLES)
        if next(lines, b"") != CANDLE_HEADER.encode():
            raise self._unreadable(CANDLES, 1, f"The header is not {CANDLE_HEADER}.")
        times, values = array("q"), array("d")
        for number, line in enumerate(lines, start=2):
            record, _, link = line.rpartition(b",")
            row = _row(record) if is_link(link) else None
            if row is None:
                raise self._unreadable(CANDLES, number, "It is no candle with its link.")
            times.append(row[0])
            values.extend(row[1])
            self._follow(CANDLES, number, record, link.decode())
        self._end(CANDLES, head)
        columns = np.array(values, dtype=np.float64).reshape(-1, _PRICES).T
        return CandleSeries(
            open_time=np.array(times, dtype=np.int64),
            open=columns[0],
            high=columns[1],
            low=columns[2],
            close=columns[3],
            volume=columns[4],
        )

    def records(self, name: str, adapter: TypeAdapter[_Line], head: Head) -> Iterator[_Line]:
        before = -1
        for number, line in enumerate(self._bundle.lines(name), start=1):
            parts = split_line(line)
            if parts is None:
                raise self._unreadable(name, number, "It is no record with its link.")
            link, content = parts
            record = self._parsed(name, number, adapter, content)
            if record.number <= before:
                raise self._unreadable(name, number, "It is out of order.")
            before = record.number
            self._follow(name, number, content, link)
            yield record
        self._end(name, head)

    def _parsed(self, name: str, number: int, adapter: TypeAdapter[_Line], content: bytes) -> _Line:
        try:
            record = adapter.validate_json(content)
            is_canonical = canonical_json(record.to_json()) == content
        except ValidationError as e:
            raise self._unreadable(name, number, explained(e)) from None
        except NotCanonical as e:
            raise self._unreadable(name, number, str(e)) from None
        if not is_canonical:
            raise self._unreadable(name, number, "It is not in canonical form.")
        return record

    def _follow(self, name: str, number: int, record: bytes, link: str) -> None:
        if not self._chain.follow(record, link):
            self._broken(name, number, "The link does not follow from the line and those before.")

    def _end(self, name: str, head: Head) -> None:
        found = self._chain.head()
        if found.lines != head.lines:
            self._broken(name, None, f"There are {found.lines:,} lines of {head.lines:,}.")
        elif found.sha256 != head.sha256:
            self._broken(name, found.lines, "The last link is not the one that was certified.")
        self._chain.rejoin(head)

    def _broken(self, name: str, line: int | None, message: str) -> None:
        noted = any(each.file == name for each in self._findings.problems)
        if not noted:
            problem = Problem(part="chain", file=name, line=line, field="link", message=message)
            self._findings.add(problem)

    def _unreadable(self, name: str, line: int, message: str) -> UnreadableFile:
        self._findings.add(Problem(part="chain", file=name, line=line, message=message))
        return UnreadableFile(f"{name} line {line}: {message}")


def _row(record: bytes) -> tuple[int, list[float]] | None:
    """A candle's numbers, where each is written as shortly as it is exact."""
    time, *prices = record.split(b",")
    if len(prices) != _PRICES:
        return None
    try:
        row = int(time), [float(price) for price in prices]
    except ValueError:
        return None
    text = ",".join([repr(row[0]), *map(repr, row[1])])
    return row if text.encode() == record and 0 <= row[0] < _LATEST else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    __pydantic_config__ = STRICT

    candle: int
    reasoning: str


_WORDS = TypeAdapter(_Words)


def _check_reasoning(
    bundle: Bundle, document: Document, decisions: Decisions, findings: Findings
) -> None:
    """That the words are those of which the decisions have the hashes, and all of them."""
    if (REASONING in bundle.names) != document.includes_reasoning:
        message = "It is there and should not be, or the other way round."
        findings.add(Problem(part="reasoning", file=REASONING, message=message))
    if not document.includes_reasoning or REASONING not in bundle.names:
        return
    findings.look("reasoning")
    expected = decisions.reasoning
    for number, line in enumerate(bundle.lines(REASONING), start=1):
        fault = _fault(line, expected)
        if fault is not None:
            problem = Problem(
                part="reasoning", file=REASONING, line=number, field="reasoning", message=fault
            )
            findings.add(problem)
            return
    if expected:
        message = f"There are no words for candle {min(expected)}."
        findings.add(Problem(part="reasoning", file=REASONING, message=message))


def _fault(line: bytes, expected: dict[int, str]) -> str | None:
    try:
        words = _WORDS.validate_json(line)
        is_canonical = canonical_json(asdict(words)) == line
    except ValidationError as e:
        return explained(e)
    except NotCanonical as e:
        return str(e)
    if not is_canonical:
        return "It is not in canonical form."
    # Decisions are in order of their candles, and what had its words is no more among them.
    if words.candle != next(iter(expected), None):
        return f"The words of candle {words.candle} are not the next that were certified."
    is_same = reasoning_hash(words.reasoning) == expected.pop(words.candle)
    return None if is_same else f"It is not what was thought at candle {words.candle}."
