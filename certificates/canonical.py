"""The canonical document: all that a certificate states, as bytes that are the same everywhere.

It is JSON in the form of RFC 8785. Every number of it that comes out of a computation is rounded to
8 decimals, for numpy's last bits may differ between machines; the rules are as the fold reads them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trading.metrics import Metrics
from trading.orders import ExitType
from trading.rules import Mode, Rules

FORMAT: Literal["alphalab-certificate"] = "alphalab-certificate"
FORMAT_VERSION: Literal[1] = 1
DECIMALS = 8

# Beyond this JSON's numbers are no longer exact, and canonical JSON has them as floats.
_EXACT = 2**53

# Of these the last part of the place is a name that somebody else chose.
_FIELD_TOO_MANY = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_MESSAGE_LENGTH = 200

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NotCanonical(ValueError):
    """Bytes that are no canonical document; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """Whose decisions they are. Of prompt and formulas only the version's hash is told."""

    __pydantic_config__ = STRICT

    name: str
    version: int
    content_hash: str
    model: str
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What was tested. `ending` closed the position at the end, where nothing else had."""

    __pydantic_config__ = STRICT

    type: Literal["backtest", "forward"]
    asset: str
    timeframe: str
    period_start: str
    period_end: str
    blind: bool
    decision_mode: str
    decision_interval_candles: int
    first_decision_candle: int
    end_reason: str
    ending: ExitType | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The candles. `fingerprint` is of the whole window; `stepped_candles` of them were stepped."""

    __pydantic_config__ = STRICT

    source: str
    fingerprint: str
    window_candles: int
    stepped_candles: int
    gaps: int
    missed_candles: int
    paused_candles: int
    ambiguous_candles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Where the decisions came from: `simulated`, or the provider's host."""

    __pydantic_config__ = STRICT

    source: str
    decisions: int
    late_decisions: int
    invalid_replies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How many lines a file has, and the link of the last one (or of the file before it)."""

    __pydantic_config__ = STRICT

    lines: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFacts:
    """Where the chain stands after each file; it goes through all four."""

    __pydantic_config__ = STRICT

    candles: Head
    decisions: Head
    sightings: Head
    trades: Head

    @property
    def sha256(self) -> str:
        return self.trades.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFacts:
    """What it came to; amounts in quote units, returns as fractions.

    `other_intrabar_return` is the outcome had ambiguous candles been read the other way.
    `equity_sha256` is over a line of time and equity for each candle, to the last bit.
    """

    __pydantic_config__ = STRICT

    starting_capital: float
    ending_capital: float
    total_pnl: float
    trades: int
    winning_trades: int
    losing_trades: int
    gross_pnl: float
    fees: float
    slippage: float
    open_position_at_end: bool
    other_intrabar_return: float | None
    equity_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a certificate states. `trials` counts the tests of which this may be the best."""

    __pydantic_config__ = STRICT

    format: Literal["alphalab-certificate"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    code: str
    issued_at: str
    engine_version: str
    agent: AgentFacts
    test: RunFacts
    rules: Rules
    data: DataFacts
    model: ModelFacts
    trials: int
    includes_reasoning: bool
    trace: TraceFacts
    metrics: Metrics
    result: ResultFacts

    @classmethod
    def from_bytes(cls, text: bytes) -> "Document":
        """Read what `to_bytes` wrote. Raises `NotCanonical` for anything else."""
        try:
            document = _DOCUMENT.validate_json(text)
        except ValidationError as e:
            raise NotCanonical(explained(e)) from None
        if document.to_bytes() != text:
            raise NotCanonical("It is not in canonical form.")
        return document

    def to_bytes(self) -> bytes:
        """The bytes that are signed. Raises `NotCanonical` where something has no such form."""
        return canonical_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = _DOCUMENT.dump_python(self, mode="json")
        return found


_DOCUMENT = TypeAdapter(Document)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """RFC 8785. Raises `NotCanonical` for what it has no form for, such as NaN."""
    try:
        return rfc8785.dumps(_exact(value))
    except (rfc8785.CanonicalizationError, RecursionError, OverflowError, UnicodeError) as e:
        raise NotCanonical(f"It has no canonical form: {e}.") from None


def sha256_hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rounded(value: float) -> float:
    """To 8 decimals, as everything that is computed stands in the document."""
    return round(float(value), DECIMALS)


def explained(error: ValidationError) -> str:
    """Where JSON went wrong, in a sentence that repeats nothing of it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where, message = list(first["loc"]), first["msg"][:_MESSAGE_LENGTH]
    if first["type"] in _FIELD_TOO_MANY:
        where, message = where[:-1], "There is a field that does not belong here"
    place = ".".join(str(part) for part in where)
    return f"{place}: {message}." if place else f"{message}."


def _exact(value: Any) -> Any:
    """A database may give back a large float as an integer."""
    if isinstance(value, Mapping):
        return {key: _exact(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    if isinstance(value, int) and abs(value) >= _EXACT:
        return float(value)
    return value
