"""The committed AsyncAPI document is the one that the code describes, and the code sends it."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest.mock import Mock
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft7Validator

from activities.failures import PAUSE_REASONS
from api.asyncapi import CHANNELS, document, render
from api.event_schemas import camel
from api.realtime.commands import SESSION_ACTIONS, SessionActions
from api.wire import encode_frame
from events.shapes import SHAPES
from events.types import Event
from local.services import PROJECT_ROOT
from workflows.policies import Speed

COMMITTED = PROJECT_ROOT / "docs" / "asyncapi.json"
NAMED = re.compile(r'"event": "(\w+)"|own_(?:message|event)\(\s*"(\w+)"|event="(\w+)"')
AT = "2025-01-01T00:00:00.000001Z"


def test_the_committed_document_is_up_to_date() -> None:
    assert COMMITTED.read_bytes() == render(), "run: python -m api.asyncapi docs/asyncapi.json"


def test_every_event_that_is_sent_is_described_and_the_other_way_round() -> None:
    sources = "".join(
        path.read_text()
        for folder in ("activities", "api/realtime", "events")
        for path in (PROJECT_ROOT / folder).glob("*.py")
    )
    # Steps have their candle and their stats without naming them as rows do.
    sent = {"candle", "stats_update"} | {
        name for names in NAMED.findall(sources) for name in names if name
    }

    assert sent == set(SHAPES)


def test_every_action_that_is_served_is_described() -> None:
    served = SessionActions(Mock(), user_id=UUID(int=0), session_id=UUID(int=0)).by_name

    assert set(served) == set(SESSION_ACTIONS)


def test_the_pace_is_spoken_of_on_sockets_of_backtests_alone() -> None:
    paced = {
        channel.name
        for channel in CHANNELS
        if "speed_changed" in channel.events or "change_speed" in channel.actions
    }

    assert paced == {"backtest"}


def test_close_codes_may_be_asked_for_in_the_query_and_by_a_header() -> None:
    for channel in document()["channels"].values():
        binding = channel["bindings"]["ws"]
        assert "close_codes" in binding["query"]["properties"]
        assert "close_codes" in binding["headers"]["properties"]


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ("SessionPausedData", "reason", {"user", *PAUSE_REASONS.values()}),
        ("SpeedChangedData", "speed", {*get_args(Speed)}),
        ("SessionInitializedData", "playback_speed", {*get_args(Speed)}),
        ("CommandAckData", "speed", {*get_args(Speed)}),
    ],
)
def test_fields_of_few_words_list_those_that_the_code_knows(
    data: str, field: str, words: set[str]
) -> None:
    described = document()["components"]["schemas"][data]["properties"][field]

    assert set(described["enum"]) == words


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    for reference in references(whole):
        found: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            assert part in found, reference
            found = found[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def test_every_socket_has_its_channel() -> None:
    routes = (PROJECT_ROOT / "api" / "routes" / "sockets.py").read_text()
    served = re.findall(r'websocket\("([^"]+)"\)', routes)

    assert {channel.address for channel in CHANNELS} == {
        path.replace(":path}", "}") for path in served
    }


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_sent_of_a_shape_is_what_the_document_says(name: str) -> None:
    """Twins, derived and hidden fields included, and nothing beside them."""
    frame = orjson.loads(
        encode_frame(Event(seq=None, event=name, data=sample(SHAPES[name]), timestamp=AT))
    )

    schemas = document()["components"]["schemas"]
    data = f"{camel(name)}Data"
    schemas[data] |= {"additionalProperties": False}
    for wanted in (f"{camel(name)}Event", data):
        root = {"$ref": f"#/components/schemas/{wanted}", "components": {"schemas": schemas}}
        value = frame if wanted.endswith("Event") else frame["data"]
        assert [error.message for error in Draft7Validator(root).iter_errors(value)] == []


def sample(shape: Any) -> Any:
    """A value of a type as shapes are written; of several types the first."""
    origin, args = get_origin(shape), get_args(shape)
    if origin is Annotated:
        allowed = (args[1].json_schema_extra or {}).get("enum")
        return allowed[0] if allowed else sample(args[0])
    if origin in {Union, UnionType, Literal}:
        return args[0] if origin is Literal else sample(args[0])
    if origin is list:
        return [sample(args[0])]
    if origin is not None:
        return {"rsi_14": sample(args[1])}
    if hasattr(shape, "__required_keys__"):
        hints = get_type_hints(shape, include_extras=True)
        return {field: sample(hint) for field, hint in hints.items()}
    return {str: "text", int: 1, float: 1.5, bool: True}[shape]
