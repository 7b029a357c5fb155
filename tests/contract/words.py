"""The words that the contract's schemas are written in; nothing here knows the server's models."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {}
OBJECT: Schema = {"type": "object"}
ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
TIME: Schema = {
    "type": "string",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$",
}
# A candle's open in epoch milliseconds: seconds would be shorter, microseconds longer.
EPOCH_MS: Schema = {"type": "integer", "minimum": 10**11, "maximum": 10**14}

_NUMERAL = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|NaN|[+-]?Infinity|nan|[+-]?inf")


def obj(*twins: tuple[str, ...], **fields: Schema) -> Schema:
    """An object with at least these fields; `twins` are names of which all have one value."""
    return {"type": "object", "properties": fields, "required": [*fields], "twins": list(twins)}


def also(schema: Schema, *twins: tuple[str, ...], **fields: Schema) -> Schema:
    """The same object with more fields."""
    more = obj(*twins, **fields)
    return {
        "type": "object",
        "properties": {**schema["properties"], **more["properties"]},
        "required": [*schema["required"], *more["required"]],
        "twins": [*schema["twins"], *more["twins"]],
    }


def without(schema: Schema, *names: str) -> Schema:
    return {**schema, "required": [name for name in schema["required"] if name not in names]}


def maybe(schema: Schema) -> Schema:
    """The value, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def a_list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def a_map(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def at_most(count: int, schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "maxItems": count}


def ascending(schema: Schema, key: str) -> Schema:
    """A list of objects whose `key` rises strictly."""
    return {"type": "array", "items": schema, "ascending": key}


def _check_twins(
    validator: Any, twins: list[tuple[str, ...]], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, Mapping):
        return
    for names in twins:
        values = [instance.get(name, "absent") for name in names]
        if any(value != values[0] for value in values):
            yield ValidationError(f"not the same: {dict(zip(names, values, strict=True))}")


def _check_ascending(
    validator: Any, key: str, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    values = [each[key] for each in instance]
    if any(later <= earlier for earlier, later in pairwise(values)):
        yield ValidationError(f"{key} does not rise strictly")


_Validator = extend(Draft202012Validator, {"twins": _check_twins, "ascending": _check_ascending})


def problems_of(schema: Schema, instance: Any, what: str) -> list[str]:
    """Return everything that does not fit, numbers written as text included."""
    problems = [
        f"{what} {error.json_path}: {error.message[:300]}"
        for error in _Validator(schema, format_checker=FormatChecker()).iter_errors(instance)
    ]
    return problems + [
        f"{what} {path}: a number as text: {text!r}" for path, text in numerals(instance)
    ]


def check(schema: Schema, instance: Any, what: str) -> None:
    """Raise AssertionError with everything that does not fit."""
    problems = problems_of(schema, instance, what)
    assert not problems, "\n".join(problems)


def numerals(value: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """Every text that is a number in disguise, and where it stands."""
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from numerals(each, f"{path}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from numerals(each, f"{path}[{index}]")


def decode(text: str | bytes) -> Any:
    """JSON as the standard has it: NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
