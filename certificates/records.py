"""What is chained besides candles: decisions, sightings and trades, to the last bit."""

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Protocol, Self

from pydantic import TypeAdapter

from certificates.canonical import STRICT, sha256_hex
from trading.candles import Candle
from trading.decisions import Action, Decision, OrderTerms
from trading.orders import ExitType, Position, Side, Trade
from trading.parity import Recording
from trading.simulation import Replay, Sighting


class Record(Protocol):
    """A line of a file; `number` is what it is the record of, ascending within the file."""

    @property
    def number(self) -> int: ...
    def to_json(self) -> dict[str, Any]: ...


class StoredDecision(Protocol):
    """A decision as a database has it; `order_data` holds the agent's own terms."""

    @property
    def candle_number(self) -> int: ...
    @property
    def decision(self) -> str: ...
    @property
    def order_data(self) -> dict[str, Any] | None: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def prompt_hash(self) -> str: ...
    @property
    def model_used(self) -> str | None: ...
    @property
    def live_price(self) -> float | None: ...
    @property
    def late(self) -> bool: ...
    @property
    def invalid_reply(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What was decided at the close of a candle; a late decision filled nothing.

    `order` has fractions and prices. The hash of the reasoning stands for it.
    """

    __pydantic_config__ = STRICT

    candle: int
    action: Action
    order: OrderTerms | None
    confidence_pct: float | None
    reasoning_sha256: str
    prompt_sha256: str
    model: str | None
    live_price: float | None
    late: bool
    invalid_reply: bool

    @classmethod
    def of(cls, stored: StoredDecision) -> Self:
        terms = (stored.order_data or {}).get("terms")
        return cls(
            candle=stored.candle_number,
            action=Action(stored.decision),
            order=OrderTerms(**terms) if terms else None,
            confidence_pct=stored.confidence,
            reasoning_sha256=reasoning_hash(stored.reasoning),
            prompt_sha256=stored.prompt_hash,
            model=stored.model_used,
            live_price=stored.live_price,
            late=stored.late,
            invalid_reply=stored.invalid_reply,
        )

    @property
    def number(self) -> int:
        return self.candle

    @property
    def decision(self) -> Decision:
        return Decision(action=self.action, order=self.order)

    def to_json(self) -> dict[str, Any]:
        terms = None if self.order is None else _plain(self.order)
        return _plain(self) | {"order": terms}


def reasoning_hash(reasoning: str) -> str:
    return sha256_hex(reasoning.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class SightingRecord:
    """What a live test saw of a candle before it closed."""

    __pydantic_config__ = STRICT

    candle: int
    opened_at: int
    opening: float | None
    minute: Candle | None

    @classmethod
    def of(cls, candle: int, sighting: Sighting) -> Self:
        return cls(
            candle=candle,
            opened_at=sighting.opened_at,
            opening=sighting.opening,
            minute=sighting.minute,
        )

    @property
    def number(self) -> int:
        return self.candle

    @property
    def sighting(self) -> Sighting:
        return Sighting(opened_at=self.opened_at, opening=self.opening, minute=self.minute)

    def to_json(self) -> dict[str, Any]:
        minute = None if self.minute is None else _plain(self.minute)
        return _plain(self) | {"minute": minute}


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeRecord:
    """A trade; one that was left open has no exit, and its liquidation price is told."""

    __pydantic_config__ = STRICT

    trade_number: int
    side: Side
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    exit_price: float | None
    exit_time: int | None
    exit_candle: int | None
    exit_type: ExitType | None
    exit_decided_candle: int | None
    size: float
    leverage: float
    margin: float
    fees: float
    slippage_cost: float
    gross_pnl: float | None
    pnl_amount: float | None
    stop_price: float | None
    target_price: float | None
    liquidation_price: float | None
    ambiguous: bool

    @classmethod
    def of(cls, holding: Trade | Position) -> Self:
        """A position is a trade whose exit is not there yet."""
        renamed = _OF_POSITION if isinstance(holding, Position) else {}
        values: dict[str, Any] = dict.fromkeys(cls.names()) | {"ambiguous": False}
        for name in cls.names():
            if hasattr(holding, own := renamed.get(name, name)):
                values[name] = getattr(holding, own)
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    @property
    def number(self) -> int:
        return self.trade_number

    def to_json(self) -> dict[str, Any]:
        return _plain(self)


# What a position calls them.
_OF_POSITION = MappingProxyType({"fees": "entry_fee", "slippage_cost": "entry_slippage"})

DECISION = TypeAdapter(DecisionRecord)
SIGHTING = TypeAdapter(SightingRecord)
TRADE = TypeAdapter(TradeRecord)


def sighting_records(recording: Recording) -> list[SightingRecord]:
    return [SightingRecord.of(*each) for each in sorted(recording.sightings.items())]


def trade_records(told: Recording | Replay) -> list[TradeRecord]:
    """Closed trades and then what was left open, in the order of their numbers."""
    held: list[Trade | Position] = [*told.trades]
    if isinstance(told, Recording):
        held += told.left_open
    elif told.state.position is not None:
        held.append(told.state.position)
    return [TradeRecord.of(each) for each in held]


def _plain(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
