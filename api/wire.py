"""Turns events with clean names into what clients read: both vocabularies, one envelope.

The only place that knows the second names. `index` and `candle_number` beside `candle_index`
are the front end's, as are `type` beside `event` and the other twins below.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from events.payloads import iso_of_ms
from events.types import Event

Payload = dict[str, Any]

# A first name, and the names under which the same value is sent again.
Twins = Mapping[str, tuple[str, ...]]

_CANDLE_NUMBER: Twins = MappingProxyType({"candle_index": ("candle_number",)})

_TWINS: Mapping[str, Twins] = MappingProxyType(
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

_ORDER_FIELDS = {
    "entry_price": "entry_price",
    "size": "size",
    "leverage": "leverage",
    "stop_loss": "stop_loss_price",
    "take_profit": "take_profit_price",
}


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
    complete = _COMPLETIONS.get(name)
    payload = dict(data) if complete is None else complete(data)
    for first, others in _TWINS.get(name, {}).items():
        if first in payload:
            for other in others:
                payload[other] = payload[first]
    return payload


def progress_pct(done: int, total: int) -> float:
    return done / total * 100 if total else 0.0


def _candle(data: Mapping[str, Any]) -> Payload:
    payload = dict(data)
    open_time = payload.pop("open_time")
    payload["timestamp"] = iso_of_ms(open_time)
    payload["progress_pct"] = progress_pct(data["candle_index"] + 1, data["total_candles"])
    payload["candle"] = {
        "time": open_time,
        **{name: data[name] for name in ("open", "high", "low", "close", "volume")},
    }
    return payload


def _thinking(data: Mapping[str, Any]) -> Payload:
    return {**data, "status": "complete" if data["is_complete"] else "analyzing"}


def _decision(data: Mapping[str, Any]) -> Payload:
    order = data["order"] or {}
    return {
        **data,
        **{public: order.get(name) for name, public in _ORDER_FIELDS.items()},
        "action": data["action"].upper(),
        "estimated": True,
    }


def _stats(data: Mapping[str, Any]) -> Payload:
    done = progress_pct(data["current_candle"], data["total_candles"])
    return {**data, "progress_pct": done}


_COMPLETIONS: Mapping[str, Callable[[Mapping[str, Any]], Payload]] = MappingProxyType(
    {
        "candle": _candle,
        "candle_closed": _candle,
        "ai_thinking": _thinking,
        "ai_decision": _decision,
        "stats_update": _stats,
    }
)
