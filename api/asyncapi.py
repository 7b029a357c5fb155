"""Writes the AsyncAPI document that is committed as `docs/asyncapi.json`.

python -m api.asyncapi docs/asyncapi.json
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from api.event_schemas import (
    Schema,
    camel,
    component_schemas,
    one_of_actions,
    one_of_events,
    ref,
)
from api.realtime.commands import SESSION_ACTIONS, SOCKET_ACTIONS
from events.shapes import SHAPES

_DESCRIPTION = """\
What sockets send and take. `event` and `type` of a message are always equal, and where the data \
has two names for one thing, it carries both. `seq` counts the durable events of a session from 1 \
without a gap; what is only worth seeing live, and what is repeated to a client that counts, has \
none. `timestamp` is when it happened, in microseconds, unique within a session and the same on \
every replay."""

_CLOSES = """\
Refused at the handshake: 401 bad token, 403 deactivated user, 404 nothing there under this name, \
422 bad `last_seq`, 429 too many sockets, 503 a service does not answer. Closed with: 1000 the \
session is over and its last event was sent, 1012 the server restarts, 1013 the client accepted \
nothing for 30 seconds, 4001 the user was deactivated, 4010 too many messages, 4500 a failure of \
ours. With `close_codes=spec` a refusal accepts first, then closes with 4001 (401), 4003 (403), \
4004 (404), 4005 (429) or 4500."""

_ACTIONS = """\
At most 10 messages a second are served, more are answered with `error` `RATE_LIMITED`; at 50 the \
socket closes with 4010. A message has at most 16 KiB. What stands in `data` may stand at the root \
as well."""

_FORWARD_ONLY = frozenset(
    {
        *("session_started", "candle_closed", "session_stopped", "auto_stopped"),
        *("price_update", "price_status", "position_update", "countdown_update"),
    }
)
_PRICES = ("price", "price_status", "heartbeat", "command_ack", "error")
# The market sets the pace of a forward test.
_BACKTEST_ONLY = frozenset({"speed_changed", "change_speed"})
_FORWARD = tuple(name for name in SHAPES if name not in {"price", *_BACKTEST_ONLY})
_BACKTEST = tuple(name for name in SHAPES if name not in {"price", *_FORWARD_ONLY})
_ACTION_NAMES = (*SOCKET_ACTIONS, *SESSION_ACTIONS)
_FORWARD_ACTIONS = tuple(name for name in _ACTION_NAMES if name not in _BACKTEST_ONLY)

_TOKEN: Schema = {
    "type": "string",
    "description": "The session token; better sent as the subprotocol pair `alphalab, <token>`.",
}
_LAST_SEQ: Schema = {
    "type": "integer",
    "minimum": 0,
    "description": "The number of the last event the client has; 0 for everything.",
}
_CLOSE_CODES: Schema = {
    "type": "string",
    "const": "spec",
    "description": "Tell of refusals by close codes: as a header or in the query.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """One kind of socket."""

    name: str
    address: str
    description: str
    parameter: Mapping[str, Any]
    query: Mapping[str, Schema]
    events: Sequence[str]
    actions: Sequence[str]

    @property
    def is_private(self) -> bool:
        return "token" in self.query


def _session_channel(
    type: str, test: str, events: Sequence[str], actions: Sequence[str]
) -> _Channel:
    return _Channel(
        name=type,
        address=f"/ws/{type}/{{session_id}}",
        description=f"The events of a {test}, for its owner.",
        parameter={"session_id": {"description": "The id of the session."}},
        query={"token": _TOKEN, "last_seq": _LAST_SEQ, "close_codes": _CLOSE_CODES},
        events=events,
        actions=actions,
    )


CHANNELS = (
    _session_channel("backtest", "backtest", _BACKTEST, _ACTION_NAMES),
    _session_channel("forward", "forward test", _FORWARD, _FORWARD_ACTIONS),
    _Channel(
        name="prices",
        address="/ws/prices/{asset}",
        description="The prices of an asset, for everybody: the latest one, then each.",
        parameter={"asset": {"description": "The id of the asset.", "examples": ["btc-usdt"]}},
        query={"close_codes": _CLOSE_CODES},
        events=_PRICES,
        actions=tuple(SOCKET_ACTIONS),
    ),
)


def document() -> dict[str, Any]:
    """Return the document; it depends on nothing but the code."""
    schemas = component_schemas()
    for channel in CHANNELS:
        schemas[f"{camel(channel.name)}SocketEvent"] = one_of_events(channel.events)
        schemas[f"{camel(channel.name)}SocketAction"] = one_of_actions(channel.actions)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "AlphaLab sockets", "version": "1", "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "localhost:5000", "protocol": "ws"}},
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                **_messages(SHAPES, "Event", schemas),
                **_messages(_ACTION_NAMES, "Action"),
            },
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "httpApiKey", "in": "query", "name": "token"},
            },
        },
    }


def render() -> bytes:
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _message_name(name: str, kind: str) -> str:
    return f"{camel(name)}{kind}"


def _messages(
    names: Iterable[str], kind: str, schemas: Mapping[str, Schema] | None = None
) -> Schema:
    """Messages are named as their schemas are; an event's summary is that of its data."""
    found = {}
    for name in names:
        message: Schema = {"name": name, "payload": ref(_message_name(name, kind))}
        if schemas is not None:
            message["summary"] = schemas[f"{camel(name)}Data"]["description"]
        found[_message_name(name, kind)] = message
    return found


def _channel(channel: _Channel) -> Schema:
    names = [
        *(_message_name(name, "Event") for name in channel.events),
        *(_message_name(name, "Action") for name in channel.actions),
    ]
    return {
        "address": channel.address,
        "description": f"{channel.description}\n\n{_CLOSES}",
        "parameters": channel.parameter,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "ws": {
                "bindingVersion": "0.1.0",
                "headers": {"type": "object", "properties": {"close_codes": _CLOSE_CODES}},
                "query": {"type": "object", "properties": channel.query},
            }
        },
    }


def _operations() -> Iterable[tuple[str, Schema]]:
    for channel in CHANNELS:
        title = camel(channel.name)
        yield f"send{title}Events", _operation(channel, "send", channel.events, "Event")
        received = _operation(channel, "receive", channel.actions, "Action")
        yield f"receive{title}Actions", received | {"description": _ACTIONS}


def _operation(channel: _Channel, action: str, names: Sequence[str], kind: str) -> Schema:
    prefix = f"#/channels/{channel.name}"
    operation: Schema = {
        "action": action,
        "channel": {"$ref": prefix},
        "messages": [{"$ref": f"{prefix}/messages/{_message_name(n, kind)}"} for n in names],
    }
    if channel.is_private:
        operation["security"] = [{"$ref": "#/components/securitySchemes/token"}]
    return operation


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(render())
