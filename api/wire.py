"""Turns events with clean names into what clients read: both vocabularies, one envelope.

The only place that knows the second names. `index` and `candle_number` beside `candle_index`
are the front end's, as are `type` beside `event` and the other twins below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import orjson
from typing_extensions import TypedDict

from events.payloads import iso_of_ms
from events.shapes import Time, one_of
from events.types import Event
from trading.decisions import Action

Payload = dict[str, Any]

# A first name, and the names under which the same value is sent again.
Twins = Mapping[str, tuple[str, ...]]

_CANDLE_NUMBER: Twins = MappingProxyType({"candle_index": ("candle_number",)})

TWINS: Mapping[str, Twins] = MappingProxyType(
    {
        "candle": {"candle_index": ("index", "candle_number"), "total_candles": ("total",)},
        "candle_closed": {"candle_index": ("index", "candle_number"), "total_candles": ("total",)},
        "ai_thinking": _CANDLE_NUMBER,
        "ai_decision": _CANDLE_NUMBER,
        "position_opened": {"type": ("action",)},
        "position_closed": {
            "trade_id": ("id",),
            "type": ("action",),
            "exit_type": ("reason",),
            "pnl_amount": ("pnl",),
        },
        "stats_update": {
            "equity": ("current_equity",),
            "pnl_pct": ("equity_change_pct", "current_pnl_pct"),
            "trades_total": ("total_trades",),
        },
        "countdown_update": {"next_candle_at": ("next_candle_time",)},
    }
)


def encode_frame(event: Event) -> str:
    """Return the frame of `event` as JSON text; NaN and infinity become null."""
    envelope: Payload = {
        "event": event.event,
        "type": event.event,
        "data": public_data(event.event, event.data),
        "timestamp": event.timestamp,
    }
    if event.seq is not None:
        envelope = {"seq": event.seq, **envelope}
    return orjson.dumps(envelope).decode()


def public_data(name: str, data: Mapping[str, Any]) -> Payload:
    """Return the event's data under both vocabularies, derived fields included."""
    payload = dict(data)
    if (completion := COMPLETIONS.get(name)) is not None:
        payload |= completion.fields_of(data)
        for hidden in completion.hidden:
            del payload[hidden]
    for first, others in TWINS.get(name, {}).items():
        if first in payload:
            for other in others:
                payload[other] = payload[first]
    return payload


def progress_pct(done: int, total: int) -> float:
    return done / total * 100 if total else 0.0


class CandleNumbers(TypedDict):
    """A candle as charts take it; `time` is its open in epoch ms."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class CandleFields(TypedDict):
    """What clients read of a candle's time and of the test's progress."""

    timestamp: Time
    progress_pct: float
    candle: CandleNumbers


class ThinkingFields(TypedDict):
    """Whether the model is done, in a word."""

    status: Annotated[str, one_of(("analyzing", "complete"))]


class DecisionFields(TypedDict):
    """The action in capitals, and the order's fields once more at the root."""

    action: Annotated[str, one_of(action.upper() for action in Action)]
    estimated: Literal[True]
    entry_price: float | None
    size: float | None
    leverage: float | None
    stop_loss_price: float | None
    take_profit_price: float | None


class StatsFields(TypedDict):
    """The share of the candles that is done."""

    progress_pct: float


def _candle(data: Mapping[str, Any]) -> CandleFields:
    open_time = data["open_time"]
    return {
        "timestamp": iso_of_ms(open_time),
        "progress_pct": progress_pct(data["candle_index"] + 1, data["total_candles"]),
        "candle": {
            "time": open_time,
            "open": data["open"],
            "high": data["high"],
            "low": data["low"],
            "close": data["close"],
            "volume": data["volume"],
        },
    }


def _thinking(data: Mapping[str, Any]) -> ThinkingFields:
    return {"status": "complete" if data["is_complete"] else "analyzing"}


def _decision(data: Mapping[str, Any]) -> DecisionFields:
    order = data["order"] or {}
    return {
        "action": data["action"].upper(),
        "estimated": True,
        "entry_price": order.get("entry_price"),
        "size": order.get("size"),
        "leverage": order.get("leverage"),
        "stop_loss_price": order.get("stop_loss"),
        "take_profit_price": order.get("take_profit"),
    }


def _stats(data: Mapping[str, Any]) -> StatsFields:
    return {"progress_pct": progress_pct(data["current_candle"], data["total_candles"])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What clients read beside an event's clean fields, or instead of them.

    `shape` is the TypedDict that `fields_of` returns; `hidden` names what is left out.
    """

    shape: type
    fields_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    hidden: tuple[str, ...] = ()


_CANDLE = Completion(shape=CandleFields, fields_of=_candle, hidden=("open_time",))

COMPLETIONS: Mapping[str, Completion] = MappingProxyType(
    {
        "candle": _CANDLE,
        "candle_closed": _CANDLE,
        "ai_thinking": Completion(shape=ThinkingFields, fields_of=_thinking),
        "ai_decision": Completion(shape=DecisionFields, fields_of=_decision),
        "stats_update": Completion(shape=StatsFields, fields_of=_stats),
    }
)
