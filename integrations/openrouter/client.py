"""OpenRouter over one shared connection pool: chat completions, a key's status, the catalogue."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
import orjson

from integrations.errors import RequestRejected, TemporarilyUnavailable
from integrations.openrouter.catalogue import Catalogue
from integrations.openrouter.formats import ResponseFormats, is_about_format
from integrations.openrouter.reply_stream import ReplyBuilder
from integrations.openrouter.schemas import (
    ChatReply,
    ChatRequest,
    KeyStatus,
    ModelInfo,
    ResponseFormat,
    key_status_from,
)
from integrations.openrouter.sse import EventDecoder, LineTooLong
from integrations.openrouter.transport import Transport, read_at_most

ModelSource = Literal["openrouter", "simulated"]
OnText = Callable[[str], Awaitable[None]]

# Whatever answers elsewhere may be a simulation, and proves nothing of any model.
_HOST: Final = "openrouter.ai"
MAX_REPLY_BYTES: Final = 1024 * 1024
# JSON writes some characters as six bytes; beyond that, a line is no reply within the limit.
_MAX_WIRE_BYTES: Final = 6 * MAX_REPLY_BYTES
_DRAIN_SECONDS: Final = 0.5


class OpenRouterClient:
    """Retries nothing: whoever calls owns the retries, and knows what a second try may cost.

    The one exception costs nothing: a request refused because of its response format goes out
    again with a weaker one. `http` is shared, and closed by whoever made it. Keys are per call
    and appear in no error, log or repr.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        *,
        referer: str = "",
        title: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source: ModelSource = (
            "openrouter" if urlsplit(base_url).hostname == _HOST else "simulated"
        )
        self._transport = Transport(http, base_url, headers=_attribution(referer, title))
        self._monotonic = monotonic
        self._formats = ResponseFormats()
        self._catalogue = Catalogue(self._transport, monotonic)

    async def stream_chat(
        self,
        request: ChatRequest,
        *,
        api_key: str,
        on_text: OnText | None = None,
        timeout: float = 30.0,
    ) -> ChatReply:
        """Ask for a completion and read it as it is written.

        `on_text` gets each new piece of the reply's text; it should be quick, since its time
        counts towards `timeout` (seconds, for one whole try). Raises `ReplyTooLarge` beyond
        1 MiB of text, and `TemporarilyUnavailable` for half a stream.
        """
        response_format = await self._choose_format(request)
        while True:
            try:
                return await self._attempt(request, response_format, api_key, on_text, timeout)
            except RequestRejected as error:
                negotiable = request.response_format == "auto" and is_about_format(error)
                if response_format is None or not negotiable:
                    raise
                response_format = self._formats.weaken(request.model, response_format)

    async def key_status(self, api_key: str, *, timeout: float = 10.0) -> KeyStatus:
        """What OpenRouter says of a key; raises `AuthenticationFailed` for one it does not know."""
        payload = await self._transport.get_json("/key", api_key=api_key, timeout=timeout)
        data = payload.get("data")
        if not isinstance(data, dict):
            raise TemporarilyUnavailable("OpenRouter gave no status for the key")
        return key_status_from(data)

    async def models(self) -> list[ModelInfo]:
        """The catalogue; one older than an hour is served once more while it is renewed."""
        return list((await self._catalogue.models()).values())

    async def find_model(self, model_id: str) -> ModelInfo | None:
        """A model of the catalogue; None where it, or the whole catalogue, is not to be had."""
        return await self._catalogue.find(model_id)

    async def _choose_format(self, request: ChatRequest) -> ResponseFormat | None:
        if request.response_format != "auto":
            return request.response_format
        return self._formats.choose(request, await self._catalogue.find(request.model))

    async def _attempt(
        self,
        request: ChatRequest,
        response_format: ResponseFormat | None,
        api_key: str,
        on_text: OnText | None,
        timeout: float,
    ) -> ChatReply:
        started = self._monotonic()
        builder = ReplyBuilder(max_bytes=MAX_REPLY_BYTES, api_key=api_key)
        body = orjson.dumps(_body(request, response_format))
        async with self._transport.exchange(
            "POST", "/chat/completions", api_key=api_key, timeout=timeout, body=body
        ) as response:
            builder.generation_id = response.headers.get("x-generation-id")
            await _read_reply(response, builder, on_text)
        if not builder.is_finished:
            raise TemporarilyUnavailable("OpenRouter's reply broke off before its end")
        return ChatReply(
            text=builder.text,
            reasoning=builder.reasoning,
            model=builder.model or request.model,
            usage=builder.usage,
            generation_id=builder.generation_id,
            finish_reason=builder.finish_reason,
            latency_ms=(self._monotonic() - started) * 1000,
            response_format=response_format,
        )


def _attribution(referer: str, title: str) -> dict[str, str]:
    # A header is ASCII: a title in another script must not break every request.
    values = {"HTTP-Referer": referer, "X-Title": title}
    return {
        name: value.encode("ascii", "replace").decode() for name, value in values.items() if value
    }


def _body(request: ChatRequest, response_format: ResponseFormat | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "stream": True,
        # OpenRouter always sends usage and cost; compatible servers want to be asked.
        "stream_options": {"include_usage": True},
    }
    if request.user is not None:
        body["user"] = request.user
    if response_format == "json_schema":
        schema = {"name": request.schema_name, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body


async def _read_reply(
    response: httpx.Response, builder: ReplyBuilder, on_text: OnText | None
) -> None:
    if "application/json" in response.headers.get("content-type", ""):
        await _read_whole(response, builder, on_text)
        return
    try:
        await _read_events(response, builder, on_text)
    except LineTooLong:
        raise builder.too_large() from None
    except httpx.TransportError:
        # The text is complete; only the accounts, or the farewell, went missing.
        if not builder.is_finished:
            raise


async def _read_whole(
    response: httpx.Response, builder: ReplyBuilder, on_text: OnText | None
) -> None:
    """A server that does not stream answers a streaming request with one JSON object."""
    payload = await read_at_most(response, _MAX_WIRE_BYTES)
    if len(payload) > _MAX_WIRE_BYTES:
        raise builder.too_large()
    await _show(builder.add_whole(payload), on_text)


async def _read_events(
    response: httpx.Response, builder: ReplyBuilder, on_text: OnText | None
) -> None:
    decoder = EventDecoder(_MAX_WIRE_BYTES)
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        await _show("".join(builder.add(data) for data in decoder.feed(chunk)), on_text)
        if builder.is_done:
            await _drain(chunks)
            return


async def _show(text: str, on_text: OnText | None) -> None:
    if text and on_text is not None:
        await on_text(text)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read the last bytes, so that the connection can be used again."""
    with suppress(TimeoutError, httpx.TransportError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in chunks:
                pass
