"""A reply put together from the chunks of a stream, or from one whole JSON answer."""

from collections.abc import Mapping
from typing import Any

import orjson

from integrations.errors import IntegrationError, ReplyTooLarge, TemporarilyUnavailable
from integrations.openrouter.failures import failure_from_error
from integrations.openrouter.schemas import Usage, text_of, usage_from

DONE = "[DONE]"
_BEGINNING = 4_000


class ReplyBuilder:
    """Takes chunk after chunk; `add` returns the new text of each, for whoever watches."""

    def __init__(self, *, max_bytes: int, api_key: str | None) -> None:
        self._max_bytes = max_bytes
        self._api_key = api_key
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._bytes = 0
        self._done = False
        self.model = ""
        self.generation_id: str | None = None
        self.finish_reason: str | None = None
        self.usage = Usage()

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def is_finished(self) -> bool:
        return self._done or self.finish_reason is not None

    @property
    def is_done(self) -> bool:
        return self._done

    def add(self, data: str) -> str:
        """Take the data of one event; raise what the event says went wrong."""
        if data.strip() == DONE:
            self._done = True
            return ""
        chunk = _json_object(data)
        self._take_envelope(chunk)
        choice = _first_choice(chunk)
        text = self._take_message(_part(choice, "delta") or _part(choice, "message"))
        self._take_finish(choice)
        return text

    def add_whole(self, payload: bytes) -> str:
        """Take an answer that came in one piece; it is complete by being readable."""
        text = self.add(payload.decode("utf-8", "replace"))
        self._done = True
        return text

    def too_large(self) -> ReplyTooLarge:
        return ReplyTooLarge(
            f"the model's reply is larger than {self._max_bytes} bytes",
            beginning=self.text[:_BEGINNING],
        )

    def _take_envelope(self, chunk: Mapping[str, Any]) -> None:
        error = chunk.get("error")
        if isinstance(error, Mapping):
            raise failure_from_error(error, api_key=self._api_key)
        self.model = text_of(chunk.get("model")) or self.model
        self.generation_id = text_of(chunk.get("id")) or self.generation_id
        if isinstance(chunk.get("usage"), Mapping):
            self.usage = usage_from(chunk["usage"])

    def _take_message(self, message: Mapping[str, Any]) -> str:
        text = text_of(message.get("content"))
        reasoning = text_of(message.get("reasoning")) or text_of(message.get("reasoning_content"))
        self._bytes += len(text.encode("utf-8", "replace"))
        self._bytes += len(reasoning.encode("utf-8", "replace"))
        if self._bytes > self._max_bytes:
            raise self.too_large()
        self._text.append(text)
        self._reasoning.append(reasoning)
        return text

    def _take_finish(self, choice: Mapping[str, Any]) -> None:
        error = choice.get("error")
        if isinstance(error, Mapping):
            raise failure_from_error(error, api_key=self._api_key)
        reason = text_of(choice.get("finish_reason"))
        if reason == "error":
            raise TemporarilyUnavailable("OpenRouter ended the reply with an error")
        self.finish_reason = reason or self.finish_reason


def _json_object(data: str) -> Mapping[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _unreadable() from None
    if not isinstance(chunk, dict):
        raise _unreadable()
    return chunk


def _unreadable() -> IntegrationError:
    return TemporarilyUnavailable("OpenRouter sent something that is not a completion")


def _first_choice(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _part(choice: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = choice.get(name)
    return part if isinstance(part, dict) else {}
