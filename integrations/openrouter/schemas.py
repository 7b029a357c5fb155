"""What goes to OpenRouter and what comes back, as values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Nobody pays for more; two calls of it still fit an INTEGER.
_MOST_TOKENS = 1_000_000_000

ResponseFormat = Literal["json_schema", "json_object"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat completion.

    `response_format` "auto" takes the strictest format that the model is known to support; with
    no `schema` that is at most "json_object". `user` is an opaque id of whoever caused the call.
    """

    model: str
    messages: Sequence[Mapping[str, str]]
    temperature: float = 0.3
    max_tokens: int = 1000
    response_format: ResponseFormat | Literal["auto"] | None = "auto"
    schema: Mapping[str, Any] | None = None
    schema_name: str = "decision"
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A finished completion: `model` is the one that answered, `reasoning` its thinking aloud."""

    text: str
    reasoning: str
    model: str
    usage: Usage
    generation_id: str | None
    finish_reason: str | None
    latency_ms: float
    response_format: ResponseFormat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """What a key may still spend, in credits (US dollars); a `limit` of None means no limit."""

    label: str
    usage: float
    limit: float | None
    limit_remaining: float | None
    is_free_tier: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model of the catalogue; prices are US dollars per token, None where they vary."""

    id: str
    name: str
    description: str
    context_length: int | None
    supported_parameters: frozenset[str]
    input_modalities: frozenset[str]
    prompt_price: float | None
    completion_price: float | None

    @property
    def is_free(self) -> bool:
        return self.prompt_price == 0 and self.completion_price == 0


def usage_from(payload: object) -> Usage:
    if not isinstance(payload, Mapping):
        return Usage()
    return Usage(
        prompt_tokens=_count(payload.get("prompt_tokens")),
        completion_tokens=_count(payload.get("completion_tokens")),
        cost_usd=_amount(payload.get("cost")),
    )


def key_status_from(payload: Mapping[str, Any]) -> KeyStatus:
    return KeyStatus(
        label=text_of(payload.get("label")),
        usage=_amount(payload.get("usage")) or 0.0,
        limit=_amount(payload.get("limit")),
        limit_remaining=_amount(payload.get("limit_remaining")),
        is_free_tier=payload.get("is_free_tier") is True,
    )


def model_info_from(payload: object) -> ModelInfo | None:
    """One entry of the catalogue, or None when it has no id."""
    if not isinstance(payload, Mapping) or not text_of(payload.get("id")):
        return None
    pricing = payload.get("pricing")
    prices = pricing if isinstance(pricing, Mapping) else {}
    architecture = payload.get("architecture")
    traits = architecture if isinstance(architecture, Mapping) else {}
    return ModelInfo(
        id=payload["id"],
        name=text_of(payload.get("name")) or payload["id"],
        description=text_of(payload.get("description")),
        context_length=_count(payload.get("context_length")) or None,
        supported_parameters=_words(payload.get("supported_parameters")),
        input_modalities=_words(traits.get("input_modalities")),
        prompt_price=_amount(prices.get("prompt")),
        completion_price=_amount(prices.get("completion")),
    )


def _words(value: object) -> frozenset[str]:
    items = value if isinstance(value, list) else ()
    return frozenset(item for item in items if text_of(item))


def text_of(value: object) -> str:
    # PostgreSQL holds no NUL: a paid reply must not be lost over one.
    return value.replace("\0", "") if isinstance(value, str) else ""


def _count(value: object) -> int:
    amount = _amount(value)
    return 0 if amount is None else int(min(amount, _MOST_TOKENS))


def _amount(value: object) -> float | None:
    """A non-negative number; the catalogue writes prices as strings and -1 for "it varies"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None
