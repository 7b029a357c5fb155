"""A model's reply read as a decision: lenient about wrapping, strict about values."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from trading.decisions import Action, Decision, OrderTerms
from trading.errors import InvalidDecision

MAX_REPLY_LENGTH: Final = 1024 * 1024
MAX_REASONING_LENGTH: Final = 8_000
_MAX_REPLY_SHOWN = 2_000
_MAX_VALUE_SHOWN = 40
# Each try reads at most the whole reply once, so this bounds the work on a hostile one.
_MAX_OBJECTS_TRIED = 50

_NULLABLE_NUMBER = {"type": ["number", "null"]}
_ORDER_FIELDS = (
    "leverage",
    "size_pct",
    "stop_loss_pct",
    "take_profit_pct",
    "stop_loss",
    "take_profit",
)

# In the strict dialect, every field is required and what is optional may be null. The reasoning
# comes first: a model that writes its action first has nothing left to reason about.
DECISION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "description": "Why, in a few sentences."},
        "action": {"type": "string", "enum": [action.value for action in Action]},
        "confidence": {"type": ["number", "null"], "description": "0 to 100."},
        "order": {
            "anyOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "properties": dict.fromkeys(_ORDER_FIELDS, _NULLABLE_NUMBER),
                    "required": list(_ORDER_FIELDS),
                    "additionalProperties": False,
                },
            ]
        },
    },
    "required": ["reasoning", "action", "confidence", "order"],
    "additionalProperties": False,
}


class InvalidReply(ValueError):
    """The reply holds no valid decision; the message says why, in one sentence."""


def parse_reply(text: str, *, price_factor: float = 1.0) -> Decision:
    """The decision in a reply: the first JSON object with an `action`, wherever it stands.

    Percentages become fractions; absolute prices are divided by `price_factor` (blind mode).
    A confidence up to 1 is taken for a fraction, above that for a percentage. Null or zero stops
    and targets mean none. Fields beside `order` count as its own when there is no `order`; other
    unknown fields are ignored. Stops on the wrong side are the engine's to reject, at the fill.
    """
    fields = _find_object(text)
    action = _action(fields.get("action"))
    order = None
    try:
        if action in {Action.LONG, Action.SHORT}:
            order = _order_terms(_order_fields(fields), price_factor)
        return Decision(
            action=action,
            reasoning=_reasoning(fields.get("reasoning")),
            confidence=_confidence(fields.get("confidence")),
            order=order,
        )
    except InvalidDecision as error:
        raise InvalidReply(str(error).rstrip(".")) from None


def partial_reasoning(text: str) -> str:
    """As much of the reasoning as a half-streamed reply already holds."""
    match = _PARTIAL_REASONING.search(text)
    if match is None:
        return ""
    try:
        value = json.loads(f'"{match[1]}"', strict=False)
    except ValueError:
        return ""
    return _clean_reasoning(value)


def repair_message(error: InvalidReply) -> dict[str, str]:
    """The message that shows the error and asks for the decision once more."""
    return {
        "role": "user",
        "content": f"That reply cannot be used: {error}. Decide again, for the same candle. Reply "
        'with one JSON object: {"reasoning": "…", "action": "long|short|hold|close", '
        '"confidence": 0-100, "order": null or {"leverage": 1, "size_pct": 25, '
        '"stop_loss_pct": 1.5, "take_profit_pct": 3.0}}',
    }


def repair_messages(
    messages: Sequence[Mapping[str, str]], reply: str, error: InvalidReply
) -> list[dict[str, str]]:
    """The whole conversation for the second try, with the beginning of the reply that failed."""
    conversation = [dict(message) for message in messages]
    if shown := storable(reply[:_MAX_REPLY_SHOWN]).strip():  # empty messages are refused
        conversation.append({"role": "assistant", "content": shown})
    return [*conversation, repair_message(error)]


def storable(text: str) -> str:
    """Text without NUL and lone surrogates, which neither PostgreSQL nor UTF-8 can hold."""
    return _UNSTORABLE.sub("", text)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_THINKING_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_OBJECT_START = re.compile(r'\{(?=\s*")')
# Complete escapes only, so that a piece that ends inside one can still be decoded.
_PARTIAL_REASONING = re.compile(
    r'"reasoning"\s*:\s*"((?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)', re.IGNORECASE
)
_NUMBER = re.compile(r"\s*([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?)\s*")


def _find_object(text: str) -> Mapping[str, Any]:
    if len(text) > MAX_REPLY_LENGTH:
        raise InvalidReply(f"the reply is too long: {len(text):,} characters")
    for part in _parts(text):
        for candidate in _objects(part):
            if "action" in candidate:
                return candidate
    raise InvalidReply('the reply holds no JSON object with an "action"')


def _parts(text: str) -> Iterator[str]:
    """What follows the model's thinking aloud first: drafts in there are no decisions."""
    ends = list(_THINKING_END.finditer(text))
    if ends:
        yield text[ends[-1].end() :]
    yield text


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    for tried, start in enumerate(_OBJECT_START.finditer(text)):
        if tried >= _MAX_OBJECTS_TRIED:
            return
        try:
            candidate, _ = _DECODER.raw_decode(text, start.start())
        except InvalidReply:
            raise
        except (ValueError, RecursionError):  # not JSON, or a bomb of digits or depth
            continue
        yield candidate


def _fields(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Names in lower case; a field given twice must say the same twice."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        key = name.strip().lower()
        if key in fields and fields[key] != value:
            raise InvalidReply(f"the field {_short(key)} is given twice with different values")
        fields[key] = value
    return fields


# strict=False: models put raw line breaks into strings.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_fields)


def _action(value: object) -> Action:
    if isinstance(value, str):
        try:
            return Action(value.strip().lower())
        except ValueError:
            pass
    known = ", ".join(action.value for action in Action)
    raise InvalidReply(f"the action {_short(value)} is not one of {known}")


def _reasoning(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidReply(f"the reasoning is not text but {_kind(value)}")
    return _clean_reasoning(value)


def _clean_reasoning(value: str) -> str:
    return storable(value).strip()[:MAX_REASONING_LENGTH]


def _confidence(value: object) -> float | None:
    number = _number("confidence", value, unit="%")
    if number is None:
        return None
    is_fraction = number < 1 and not (isinstance(value, str) and "%" in value)
    if isinstance(value, float) and value == 1:
        is_fraction = True  # 1.0 is a whole confidence, 1 is one percent
    confidence = number if is_fraction else number / 100
    if not 0 <= confidence <= 1:
        raise InvalidReply(f"the confidence {_short(value)} is not between 0 and 100")
    return confidence


def _order_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    order = fields.get("order")
    if order is None:
        return fields
    if not isinstance(order, dict):
        raise InvalidReply(f"the order is not an object but {_kind(order)}")
    return order


def _order_terms(fields: Mapping[str, Any], price_factor: float) -> OrderTerms:
    return OrderTerms(
        leverage=_number("leverage", fields.get("leverage"), unit="x"),
        size=_fraction("size_pct", fields),
        stop_loss_distance=_fraction("stop_loss_pct", fields) or None,
        take_profit_distance=_fraction("take_profit_pct", fields) or None,
        stop_loss_price=_price("stop_loss", fields, price_factor),
        take_profit_price=_price("take_profit", fields, price_factor),
    )


def _fraction(name: str, fields: Mapping[str, Any]) -> float | None:
    percent = _number(name, fields.get(name), unit="%")
    return None if percent is None else percent / 100


def _price(name: str, fields: Mapping[str, Any], price_factor: float) -> float | None:
    price = _number(name, fields.get(name), unit="")
    return price / price_factor if price else None


def _number(name: str, value: object, *, unit: str) -> float | None:
    """A finite number, also when written as text with its unit."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _written_number(value, unit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidReply(f"{name} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidReply(f"{name} is not a finite number")
    return number


def _written_number(text: str, unit: str) -> float | None:
    match = _NUMBER.match(text)
    rest = text[match.end() :].strip().lower() if match else None
    return float(match[1]) if match and rest in {"", unit} else None


def _short(value: object) -> str:
    text = json.dumps(value, default=str) if isinstance(value, str) else _kind(value)
    return text if len(text) <= _MAX_VALUE_SHOWN else f"{text[:_MAX_VALUE_SHOWN]}…"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "nothing" if value is None else kinds.get(type(value), "a number")
