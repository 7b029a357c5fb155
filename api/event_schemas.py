"""JSON Schemas of what sockets send and take, composed as `api/wire.py` composes the messages."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import override

from api.realtime.commands import SESSION_ACTIONS, SOCKET_ACTIONS
from api.wire import COMPLETIONS, TWINS
from events.shapes import DURABLE, SHAPES

Schema = dict[str, Any]

_TIME: Schema = {"type": "string", "format": "date-time"}
_REF_PREFIX = "#/components/schemas/"


class _WithoutTitles(GenerateJsonSchema):
    """A field's title only repeats its name."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def ref(name: str) -> Schema:
    return {"$ref": f"{_REF_PREFIX}{name}"}


def camel(name: str) -> str:
    """Return `position_opened` as `PositionOpened`."""
    return "".join(part.capitalize() for part in name.split("_"))


def component_schemas() -> dict[str, Schema]:
    """Return the schemas by name: of each event `…Event` and `…Data`, of each action `…Action`."""
    parts = _parts()
    found = dict(parts)
    for shape in {*SHAPES.values(), *(each.shape for each in COMPLETIONS.values())}:
        found.pop(shape.__name__, None)  # only what other schemas refer to stays
    for name, shape in SHAPES.items():
        found[f"{camel(name)}Data"] = _data(name, parts[shape.__name__], parts)
        found[f"{camel(name)}Event"] = _event(name)
    for name, taken in {**SOCKET_ACTIONS, **SESSION_ACTIONS}.items():
        found[f"{camel(name)}Action"] = _action(name, taken)
    return found


def one_of_events(names: Iterable[str]) -> Schema:
    return {"oneOf": [ref(f"{camel(name)}Event") for name in names]}


def one_of_actions(names: Iterable[str]) -> Schema:
    return {"oneOf": [ref(f"{camel(name)}Action") for name in names]}


def _parts() -> dict[str, Schema]:
    """The schema of every TypedDict, the nested ones included."""
    shapes = {
        *SHAPES.values(),
        *(each.shape for each in COMPLETIONS.values()),
        *(taken for taken in SESSION_ACTIONS.values() if taken is not None),
    }
    adapters: list[Any] = [
        (shape.__name__, "serialization", TypeAdapter(shape)) for shape in shapes
    ]
    _, schema = TypeAdapter.json_schemas(
        adapters,
        ref_template=_REF_PREFIX + "{model}",
        schema_generator=_WithoutTitles,
    )
    parts: dict[str, Schema] = schema["$defs"]
    return {name: _untitled(part) for name, part in sorted(parts.items())}


def _untitled(part: Mapping[str, Any]) -> Schema:
    return {name: value for name, value in part.items() if name != "title"}


def _data(name: str, clean: Schema, parts: Mapping[str, Schema]) -> Schema:
    """The event's data under both vocabularies, as `public_data` makes it."""
    properties, required = dict(clean["properties"]), set(clean.get("required", ()))
    if (completion := COMPLETIONS.get(name)) is not None:
        added = parts[completion.shape.__name__]
        properties |= added["properties"]
        required |= set(added["required"])
        for hidden in completion.hidden:
            del properties[hidden]
            required.discard(hidden)
    for first, others in TWINS.get(name, {}).items():
        properties |= dict.fromkeys(others, properties[first])
        required |= set(others)
    return {**clean, "properties": properties, "required": sorted(required)}


def _event(name: str) -> Schema:
    properties: Schema = {
        "event": {"type": "string", "const": name},
        "type": {"type": "string", "const": name},
        "data": ref(f"{camel(name)}Data"),
        "timestamp": _TIME,
    }
    required = [*properties]
    if name in DURABLE:  # a repeat of it has no number, so that it is no second delivery
        properties["seq"] = {"type": "integer", "minimum": 1}
    return {"type": "object", "properties": properties, "required": required}


def _action(name: str, taken: type | None) -> Schema:
    properties: Schema = {"action": {"type": "string", "const": name}}
    required = ["action"]
    if taken is not None:
        properties["data"] = ref(taken.__name__)
        if taken.__required_keys__:  # type: ignore[attr-defined]
            required.append("data")
    return {"type": "object", "properties": properties, "required": required}
