"""A simulated OpenRouter: the chat-completions protocol in front of rule-based traders.

Models: `simulated/momentum`, `simulated/mean-reversion`, `simulated/trend`, `simulated/hold`,
`simulated/always-long`, `simulated/flip` (local/simulators/traders.py). What goes wrong is told
by suffixes of the name, such as `simulated/momentum:429` or `simulated/flip:half-stream:slow`;
local/simulators/faults.py lists them, and so does `GET /models`. Any key is accepted that does
not start with `sk-invalid`; a key that starts with `sk-broke` has no credits.

Routes, to be mounted at `/api/v1`: `POST /chat/completions` (JSON, or events with `stream: true`),
`GET /models`, `GET /key`, and for tests `GET /debug/requests` and `DELETE /debug/requests`:
requests counted by a hash of their body, those begun and those answered to the end apart, so that
a test can see that nothing was paid for twice.

A prompt that shows the figures of a finished test is answered with a summary of them
(local/simulators/summaries.py).

Everything that it serves is labelled simulated, and the same body always gets the same reply.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from local.simulators.faults import HTTP_ERRORS, LASTING, REPEATABLE, Faults, parse_faults
from local.simulators.summaries import sum_up
from local.simulators.traders import TRADERS, decide, describe, read_chart

PREFIX: Final = "simulated/"
PROMPT_PRICE: Final = 0.15e-6
COMPLETION_PRICE: Final = 0.60e-6
_CONTEXT_LENGTH = 128_000
_PIECES = 8
_HUGE_BYTES = 5_000_000
_HUGE_PIECE = 65_536
_CHARACTERS_PER_TOKEN = 4
_MAX_BODIES = 500_000
_HANG_SECONDS = 3600.0
_GARBAGE = "The market looks undecided to me, and I would rather talk about the weather."


@dataclass(slots=True)
class _Count:
    """Requests with one and the same body."""

    model: str
    requests: int = 0
    refused: int = 0
    started: int = 0
    completed: int = 0


@dataclass(slots=True)
class Ledger:
    """Who asked what how often; the oldest bodies are forgotten beyond half a million."""

    bodies: dict[str, _Count] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    in_flight: int = 0

    def count(self, digest: str, model: str) -> _Count:
        entry = self.bodies.get(digest)
        if entry is None:
            if len(self.bodies) >= _MAX_BODIES:
                del self.bodies[next(iter(self.bodies))]
            entry = self.bodies[digest] = _Count(model)
        entry.requests += 1
        self.models.add(model)
        return entry

    def summary(self) -> dict[str, Any]:
        entries = self.bodies.values()
        return {
            "simulated": True,
            "total": sum(entry.requests for entry in entries),
            "distinct": len(self.bodies),
            "refused": sum(entry.refused for entry in entries),
            "started": sum(entry.started for entry in entries),
            "completed": sum(entry.completed for entry in entries),
            "in_flight": self.in_flight,
            "by_hash": self.bodies,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request that was understood, and what is to go wrong with it."""

    body: Mapping[str, Any]
    model: str
    trader: str
    faults: frozenset[str]
    delay: float
    digest: str
    count: _Count

    def reply(self) -> str:
        """What the model says."""
        if "garbage" in self.faults:
            return f"[simulated] {_GARBAGE}"
        if (summary := sum_up(self.body["messages"])) is not None:
            return summary
        verdict = decide(self.trader, self.body["messages"])
        if "wrong-side" in self.faults:
            verdict = _wrong_side(self.body["messages"])
        if "unknown-action" in self.faults:
            verdict["action"] = "moon"
        if "huge" in self.faults:
            verdict["reasoning"] = "so much to say " * (_HUGE_BYTES // 15)
        if "nan" in self.faults:
            verdict |= {"action": "long", "order": {"size_pct": "NAN"}}
        text = orjson.dumps(verdict).decode().replace('"NAN"', "NaN")
        return (
            f"[simulated] My decision:\n```json\n{text}\n```\n" if "fenced" in self.faults else text
        )

    def usage(self, reply: str) -> dict[str, Any]:
        prompt = sum(len(str(message.get("content", ""))) for message in self.body["messages"])
        prompt_tokens = math.ceil(prompt / _CHARACTERS_PER_TOKEN)
        completion_tokens = math.ceil(len(reply) / _CHARACTERS_PER_TOKEN)
        cost = prompt_tokens * PROMPT_PRICE + completion_tokens * COMPLETION_PRICE
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "cost": round(cost, 10),
        }

    def envelope(self, kind: str) -> dict[str, Any]:
        return {
            # The number tells a second purchase of the same body from the first.
            "id": f"gen-simulated-{self.digest[:24]}-{self.count.requests}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "provider": "Simulated",
        }


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def create_app(*, piece_delay: float = 0.0) -> Starlette:
    """The simulated OpenRouter; `piece_delay` is the pace in seconds per piece of a reply."""
    simulator = _Simulator(piece_delay)
    return Starlette(
        routes=[
            Route("/chat/completions", simulator.chat, methods=["POST"]),
            Route("/models", _models),
            Route("/key", _key),
            Route("/debug/requests", simulator.requests, methods=["GET"]),
            Route("/debug/requests", simulator.forget, methods=["DELETE"]),
        ]
    )


class _Simulator:
    def __init__(self, piece_delay: float) -> None:
        self._piece_delay = piece_delay
        self._ledger = Ledger()

    async def requests(self, _: Request) -> Response:
        return _json(self._ledger.summary())

    async def forget(self, _: Request) -> Response:
        self._ledger = Ledger()
        return _json({"simulated": True, "total": 0})

    async def chat(self, request: Request) -> Response:
        raw = await request.body()
        try:
            call = self._understand(request, raw)
        except _Refused as refusal:
            return _error(refusal.status, refusal.message)
        for status in HTTP_ERRORS:
            if str(status) in call.faults:
                call.count.refused += 1
                return _error(status, HTTP_ERRORS[status])
        call.count.started += 1
        if call.body.get("stream") is True and "whole" not in call.faults:
            return StreamingResponse(
                self._stream(call),
                media_type="text/event-stream",
                headers={"X-Generation-Id": call.envelope("")["id"]},
            )
        return await self._whole(call)

    def _understand(self, request: Request, raw: bytes) -> _Call:
        _check_key(request)
        body = _parse(raw)
        model = body["model"]
        trader, faults = _find_model(model)
        digest = hashlib.sha256(raw).hexdigest()
        active = faults.active(
            seen_body=digest in self._ledger.bodies,
            seen_model=model in self._ledger.models,
            is_second_try=any(message.get("role") == "assistant" for message in body["messages"]),
        )
        count = self._ledger.count(digest, model)
        try:
            _check_format(body, active)
        except _Refused:
            count.refused += 1
            raise
        return _Call(
            body=body,
            model=model,
            trader=trader,
            faults=active,
            delay=self._piece_delay if faults.delay is None else faults.delay,
            digest=digest,
            count=count,
        )

    async def _whole(self, call: _Call) -> Response:
        reply = call.reply()
        await asyncio.sleep(call.delay)
        call.count.completed += 1
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        envelope = call.envelope("chat.completion")
        return _json(envelope | {"choices": [choice], "usage": call.usage(reply)})

    async def _stream(self, call: _Call) -> AsyncIterator[bytes]:
        ledger = self._ledger  # the one that this request was counted in
        ledger.in_flight += 1
        try:
            yield b": OPENROUTER PROCESSING\n\n"
            if "hang" in call.faults:
                await asyncio.sleep(_HANG_SECONDS)
            if not call.delay:  # nothing to wait for between the pieces, so they leave together
                yield b"".join(_events(call))
                return
            for event in _events(call):
                await asyncio.sleep(call.delay)
                yield event
        finally:
            ledger.in_flight -= 1


def _events(call: _Call) -> Iterator[bytes]:
    reply = call.reply()
    envelope = call.envelope("chat.completion.chunk")
    if "thinking" in call.faults:
        yield _event(envelope, {"role": "assistant", "reasoning": "[simulated] Let me look. "})
        yield _event(envelope, {"role": "assistant", "reasoning": "The chart it is."})
    pieces = _pieces(reply)
    for number, piece in enumerate(pieces):
        if number == len(pieces) // 2:
            if "half-stream" in call.faults:
                return
            if "error-mid-stream" in call.faults:
                yield _failed(envelope)
                return
        yield _event(envelope, {"role": "assistant", "content": piece})
    call.count.completed += 1
    yield _event(envelope, {"role": "assistant", "content": ""}, "stop", call.usage(reply))
    yield b"data: [DONE]\n\n"


def _pieces(reply: str) -> list[str]:
    size = min(max(1, math.ceil(len(reply) / _PIECES)), _HUGE_PIECE)
    return [reply[start : start + size] for start in range(0, len(reply), size)]


def _event(
    envelope: Mapping[str, Any],
    delta: Mapping[str, str],
    finish_reason: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {**envelope, "choices": [choice]}
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _failed(envelope: Mapping[str, Any]) -> bytes:
    error = {"code": "server_error", "message": "[simulated] Provider disconnected"}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return b"data: " + orjson.dumps({**envelope, "error": error, "choices": [choice]}) + b"\n\n"


def _wrong_side(messages: list[Mapping[str, Any]]) -> dict[str, Any]:
    chart = read_chart(messages)
    price = chart.close if chart is not None else 100.0
    return {
        "reasoning": "[simulated] Long, with the stop above the price.",
        "action": "long",
        "confidence": 50,
        "order": {"leverage": 1, "size_pct": 25, "stop_loss": price * 1.05, "take_profit": None},
    }


def _check_key(request: Request) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key or key.startswith("sk-invalid"):
        raise _Refused(401, HTTP_ERRORS[401])
    if key.startswith("sk-broke") and request.method == "POST":
        raise _Refused(402, HTTP_ERRORS[402])


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _Refused(400, "The body is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise _Refused(400, "model: a string is required")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _Refused(400, "messages: a list is required")
    if not all(isinstance(message, dict) for message in messages):
        raise _Refused(400, "messages: objects are required")
    return body


def _find_model(model: str) -> tuple[str, Faults]:
    name, *suffixes = model.removeprefix(PREFIX).split(":")
    faults = parse_faults(suffixes)
    if not model.startswith(PREFIX) or name not in TRADERS or faults is None:
        raise _Refused(400, f"{model[:80]} is not a valid model ID of this simulated OpenRouter")
    return name, faults


def _check_format(body: Mapping[str, Any], faults: frozenset[str]) -> None:
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind is not None and "no-json" in faults:
        raise _Refused(400, "This model does not support response_format")
    if kind == "json_schema" and "no-schema" in faults:
        raise _Refused(400, "This model does not support response_format json_schema")


def _error(status: int, message: str) -> Response:
    body = {"error": {"code": status, "message": f"[simulated] {message}"}}
    headers = {"Retry-After": "1"} if status in {429, 503} else None
    return _json(body, status, headers)


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = orjson.dumps(content)
    return Response(body, status, headers=headers, media_type="application/json")


async def _models(_: Request) -> Response:
    plain = [_model(name, describe(name)) for name in TRADERS]
    faulty = [
        _model(f"momentum:{suffix}", f"As simulated/momentum, with the fault `{suffix}`.")
        for suffix in sorted(REPEATABLE | LASTING)
    ]
    return _json({"data": plain + faulty})


def _model(name: str, description: str) -> dict[str, Any]:
    formats = {"response_format", "structured_outputs"}
    if name.endswith(":no-schema"):
        formats = {"response_format"}
    elif name.endswith(":no-json"):
        formats = set()
    return {
        "id": PREFIX + name,
        "name": f"Simulated: {name.replace('-', ' ').capitalize()}",
        "description": f"Rule-based, not a language model. {description}",
        "context_length": _CONTEXT_LENGTH,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "pricing": {"prompt": f"{PROMPT_PRICE:.8f}", "completion": f"{COMPLETION_PRICE:.8f}"},
        "supported_parameters": sorted({"max_tokens", "temperature", *formats}),
    }


async def _key(request: Request) -> Response:
    try:
        _check_key(request)
    except _Refused as refusal:
        return _error(refusal.status, refusal.message)
    is_broke = "Bearer sk-broke" in request.headers.get("authorization", "")
    status = {
        "label": "simulated key",
        "usage": 5.0 if is_broke else 0.0,
        "limit": 5.0 if is_broke else None,
        "limit_remaining": 0.0 if is_broke else None,
        "is_free_tier": False,
    }
    return _json({"data": status})
