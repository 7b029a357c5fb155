"""The client against a simulated OpenRouter and against answers written byte by byte."""

import asyncio
import json
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from agents.replies import DECISION_SCHEMA
from integrations.errors import (
    AuthenticationFailed,
    InsufficientCredits,
    IntegrationError,
    ReplyTooLarge,
    RequestRejected,
    TemporarilyUnavailable,
)
from integrations.openrouter.client import OpenRouterClient
from integrations.openrouter.schemas import ChatRequest
from tests.loopback import ScriptedServer, eventually, response, stream_head

KEY = "sk-or-v1-0123456789abcdef"
MESSAGES = [{"role": "user", "content": "No chart here."}]


def request_for(model: str, **changes: Any) -> ChatRequest:
    fields: dict[str, Any] = {"model": model, "messages": MESSAGES, "schema": DECISION_SCHEMA}
    return ChatRequest(**(fields | changes))


def event(data: object) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def chunk(text: str = "", finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"id": "gen-1", "model": "maker/model-2", "choices": [choice]} | more)


async def ask(client: OpenRouterClient, model: str = "maker/model", **options: Any) -> Any:
    plain = request_for(model, response_format=None)
    return await client.stream_chat(plain, api_key=KEY, **options)


# A reply


async def test_a_reply_is_streamed_and_accounted_for(client: OpenRouterClient):
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    reply = await client.stream_chat(request_for("simulated/hold"), api_key=KEY, on_text=on_text)

    assert json.loads(reply.text)["action"] == "hold"
    assert "".join(pieces) == reply.text
    assert reply.model == "simulated/hold"
    assert reply.finish_reason == "stop"
    assert reply.generation_id is not None
    assert reply.generation_id.startswith("gen-simulated-")
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0
    assert reply.usage.cost_usd is not None
    assert reply.usage.cost_usd > 0
    assert reply.latency_ms > 0


async def test_pieces_arrive_while_the_model_still_writes(client: OpenRouterClient):
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def on_text(_: str) -> None:
        times.append(loop.time())

    await ask(client, "simulated/hold:delay-20", on_text=on_text)

    assert len(times) >= 5
    assert times[-1] - times[0] > 0.05


async def test_thinking_aloud_is_kept_apart_from_the_reply(client: OpenRouterClient):
    reply = await ask(client, "simulated/hold:thinking")

    assert reply.reasoning == "[simulated] Let me look. The chart it is."
    assert json.loads(reply.text)["action"] == "hold"


async def test_an_answer_in_one_piece_to_a_streaming_request_is_read(client: OpenRouterClient):
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    reply = await ask(client, "simulated/hold:whole", on_text=on_text)

    assert pieces == [reply.text]
    assert json.loads(reply.text)["action"] == "hold"
    assert reply.usage.cost_usd is not None


async def test_what_is_sent_is_what_openrouter_documents(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    script.answers = [CATALOGUE_WITH, [response(200, chunk("x", "stop"), "text/event-stream")]]

    await scripted_client.stream_chat(request_for("maker/strict", user="user-7"), api_key=KEY)

    head, _, body = script.requests[1].partition(b"\r\n\r\n")
    headers = head.decode().lower()
    assert headers.startswith("post /api/v1/chat/completions ")
    assert f"authorization: bearer {KEY}" in headers
    assert "http-referer: https://alphalab.test" in headers
    assert "accept-encoding: identity" in headers
    assert "x-title: alpha?ab" in headers
    assert json.loads(body) == {
        "model": "maker/strict",
        "messages": MESSAGES,
        "temperature": 0.3,
        "max_tokens": 1000,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "user-7",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "decision", "strict": True, "schema": DECISION_SCHEMA},
        },
    }
    assert b"authorization" not in script.requests[0].lower()


async def test_comments_line_ends_and_cut_characters_do_no_harm(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    stream = b": OPENROUTER PROCESSING\r\n\r\n" + chunk("é\u2028λ").replace(b"\n", b"\r\n")
    stream += chunk("!", "stop") + event("[DONE]")
    script.answers = [[stream_head(), *(stream[i : i + 1] for i in range(len(stream)))]]

    reply = await ask(scripted_client)

    assert reply.text == "é\u2028λ!"
    assert reply.model == "maker/model-2"


async def test_usage_may_come_after_the_finish_in_a_chunk_of_its_own(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.5}
    script.answers = [
        [stream_head(), chunk("x", "stop"), event({"choices": [], "usage": usage}), event("[DONE]")]
    ]

    reply = await ask(scripted_client)

    assert (reply.usage.prompt_tokens, reply.usage.cost_usd) == (3, 0.5)


async def test_the_generation_id_is_kept_when_only_the_header_has_it(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    script.answers = [[stream_head(), event({"choices": []}), event("[DONE]")]]

    assert (await ask(scripted_client)).generation_id == "gen-from-header"


async def test_one_connection_serves_many_replies(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    body = chunk("x", "stop") + event("[DONE]")
    script.answers = [[response(200, body, "text/event-stream")] for _ in range(5)]

    for _ in range(5):
        await ask(scripted_client)

    assert script.connections == 1


# What goes wrong


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRejected),
        (401, AuthenticationFailed),
        (402, InsufficientCredits),
        (403, AuthenticationFailed),
        (404, RequestRejected),
        (408, TemporarilyUnavailable),
        (409, TemporarilyUnavailable),
        (429, TemporarilyUnavailable),
        (500, TemporarilyUnavailable),
        (502, TemporarilyUnavailable),
        (503, TemporarilyUnavailable),
    ],
)
async def test_a_status_becomes_one_of_our_errors(
    client: OpenRouterClient, status: int, error: type[IntegrationError]
):
    with pytest.raises(error) as caught:
        await ask(client, f"simulated/hold:{status}")

    assert type(caught.value) is error
    assert caught.value.status == status


async def test_input_refused_by_moderation_is_not_a_bad_key(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    metadata = {"reasons": ["violence"], "flagged_input": "…"}
    body = json.dumps({"error": {"code": 403, "message": "flagged", "metadata": metadata}})
    script.answers = [[response(403, body.encode())]]

    with pytest.raises(RequestRejected, match="flagged"):
        await ask(scripted_client)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("0", 0.0), ("-3", 0.0), ("3600", 60.0), ("soon", None), ("", None)],
)
async def test_retry_after_in_seconds_is_read_and_limited(
    scripted_client: OpenRouterClient, script: ScriptedServer, header: str, seconds: float | None
):
    script.answers = [[response(429, b"{}", Retry_After=header)]]

    with pytest.raises(TemporarilyUnavailable) as caught:
        await ask(scripted_client)

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(7, 7.0), (900, 60.0), (-5, 0.0)])
async def test_retry_after_as_a_date_counts_from_the_servers_own_clock(
    scripted_client: OpenRouterClient, script: ScriptedServer, ahead: int, seconds: float
):
    now = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    then = format_datetime(now + timedelta(seconds=ahead), usegmt=True)
    head = response(503, b"{}", Date=format_datetime(now, usegmt=True), Retry_After=then)
    script.answers = [[head]]

    with pytest.raises(TemporarilyUnavailable) as caught:
        await ask(scripted_client)

    assert caught.value.retry_after == seconds


async def test_a_spending_limit_that_passes_is_not_an_empty_account(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    script.answers = [[response(402, b"{}", Retry_After="4")]]

    with pytest.raises(TemporarilyUnavailable) as caught:
        await ask(scripted_client)

    assert caught.value.retry_after == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "server_error", "message": "gone"}, TemporarilyUnavailable),
        ({"code": "rate_limit_exceeded", "message": "gone"}, TemporarilyUnavailable),
        ({"code": 429, "message": "gone"}, TemporarilyUnavailable),
        ({"code": "402", "message": "gone"}, InsufficientCredits),
        ({"code": 400, "message": "gone"}, RequestRejected),
        ({"code": "context_length_exceeded", "message": "gone"}, RequestRejected),
        ({"code": "a word of next year", "message": "gone"}, TemporarilyUnavailable),
        ({"code": 99**99, "message": "gone"}, TemporarilyUnavailable),
        ({"message": "gone"}, TemporarilyUnavailable),
    ],
)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_an_error_inside_a_success_is_an_error(
    scripted_client: OpenRouterClient,
    script: ScriptedServer,
    error: dict[str, object],
    expected: type[IntegrationError],
    kind: str,
):
    payload = json.dumps({"error": error}).encode()
    body = payload if kind == "application/json" else chunk("half") + event(payload.decode())
    script.answers = [[response(200, body, kind)]]

    with pytest.raises(expected, match="gone") as caught:
        await ask(scripted_client)

    assert type(caught.value) is expected


async def test_a_reply_that_finishes_in_error_is_tried_again(client: OpenRouterClient):
    with pytest.raises(TemporarilyUnavailable, match="Provider disconnected"):
        await ask(client, "simulated/hold:error-mid-stream")


async def test_half_a_stream_is_no_reply(client: OpenRouterClient):
    with pytest.raises(TemporarilyUnavailable, match="broke off"):
        await ask(client, "simulated/hold:half-stream")


@pytest.mark.parametrize("cut_at", [0, 1, 2])
async def test_a_cut_connection_is_an_outage(
    scripted_client: OpenRouterClient, script: ScriptedServer, cut_at: int
):
    pieces: list[bytes | None] = [stream_head(), chunk("half"), chunk("of it")]
    script.answers = [[*pieces[:cut_at], None]]

    with pytest.raises(TemporarilyUnavailable):
        await ask(scripted_client)


async def test_a_finished_reply_survives_a_connection_cut_before_done(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    finished = chunk("whole", "stop")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    script.answers = [[head + finished, None]]

    assert (await ask(scripted_client)).text == "whole"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"x"'])
async def test_a_success_that_is_no_completion_is_an_outage(
    scripted_client: OpenRouterClient, script: ScriptedServer, body: bytes
):
    script.answers = [[response(200, body)]]

    with pytest.raises(TemporarilyUnavailable):
        await ask(scripted_client)


async def test_nobody_listening_is_an_outage(http: httpx.AsyncClient, unused_port: int):
    client = OpenRouterClient(http, f"http://127.0.0.1:{unused_port}/api/v1")

    with pytest.raises(TemporarilyUnavailable, match="cannot be reached"):
        await ask(client)


@pytest.mark.parametrize("model", ["simulated/hold:hang", "simulated/hold:delay-200"])
async def test_a_try_takes_no_longer_than_its_time_limit(client: OpenRouterClient, model: str):
    with pytest.raises(TemporarilyUnavailable, match=r"within 0\.3 s"):
        await ask(client, model, timeout=0.3)


async def test_a_time_out_of_the_callers_own_is_passed_on(client: OpenRouterClient):
    async def on_text(_: str) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await ask(client, "simulated/hold", on_text=on_text)


async def test_a_cancelled_call_lets_go_of_its_connection(
    client: OpenRouterClient, http: httpx.AsyncClient, simulator: str
):
    async def in_flight(count: int) -> bool:
        summary = (await http.get(f"{simulator}/debug/requests")).json()
        return bool(summary["in_flight"] == count)

    call = asyncio.create_task(ask(client, "simulated/hold:hang"))
    await eventually(lambda: in_flight(1))
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: in_flight(0))


async def test_five_megabytes_of_reply_are_cut_off(client: OpenRouterClient):
    with pytest.raises(ReplyTooLarge) as caught:
        await ask(client, "simulated/hold:huge")

    assert "so much to say" in caught.value.beginning
    assert len(caught.value.beginning) <= 4_000


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_flood_without_line_ends_is_cut_off(
    scripted_client: OpenRouterClient, script: ScriptedServer, kind: str
):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()
    script.answers = [[head, *([b"data: " + b"x" * 65_536] * 1_000)]]

    with pytest.raises(ReplyTooLarge):
        await ask(scripted_client)


async def test_endless_thinking_aloud_is_cut_off(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    thought = event({"choices": [{"delta": {"reasoning": "hm " * 20_000}}]})
    script.answers = [[stream_head(), *([thought] * 1_000)]]

    with pytest.raises(ReplyTooLarge):
        await ask(scripted_client)


# Keys


@pytest.mark.parametrize("key", ["", "sk-secret\nX: y", "sk-secret key", "sk-sécret"])
async def test_a_key_that_no_header_can_carry_is_refused_unseen(client: OpenRouterClient, key: str):
    with pytest.raises(AuthenticationFailed) as caught:
        await client.stream_chat(request_for("simulated/hold", response_format=None), api_key=key)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, "a-key-of-another-shape"])
async def test_a_key_is_in_no_error_and_no_traceback(
    scripted_client: OpenRouterClient, script: ScriptedServer, key: str
):
    echo = {"code": 401, "message": f"bad key {key}", "metadata": {"raw": f"no {key} here"}}
    script.answers = [
        [response(401, json.dumps({"error": echo}).encode())],
        [response(401, f"bad key {key}".encode(), "text/plain")],
        [stream_head(), event({"error": echo})],
        [None],
    ]

    for _ in range(4):
        with pytest.raises(IntegrationError) as caught:
            await scripted_client.stream_chat(
                request_for("maker/model", response_format=None), api_key=key
            )
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert key not in shown
        assert caught.value.__cause__ is None
    assert key not in repr(vars(scripted_client))


async def test_a_providers_own_key_is_not_passed_on(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    body = b'{"error": {"code": 400, "message": "Incorrect API key provided: sk-proj-aB3*****xyz"}}'
    script.answers = [[response(400, body)]]

    with pytest.raises(RequestRejected, match=r"provided: \[key\]$"):
        await ask(scripted_client)


# The response format


def catalogue(*parameters: str) -> list[bytes | None]:
    model = {"id": "maker/strict", "supported_parameters": list(parameters)}
    return [response(200, json.dumps({"data": [model]}).encode())]


CATALOGUE_WITH = catalogue("structured_outputs", "response_format")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (("structured_outputs", "response_format"), "json_schema"),
        (("response_format",), "json_object"),
        (("temperature",), None),
    ],
)
async def test_the_catalogue_decides_the_format(
    scripted_client: OpenRouterClient,
    script: ScriptedServer,
    parameters: tuple[str, ...],
    expected: str | None,
):
    script.answers = [
        catalogue(*parameters),
        [response(200, chunk("x", "stop"), "text/event-stream")],
    ]

    reply = await scripted_client.stream_chat(request_for("maker/strict"), api_key=KEY)

    sent = json.loads(script.requests[1].partition(b"\r\n\r\n")[2]).get("response_format")
    assert reply.response_format == expected
    assert (sent and sent["type"]) == expected


async def test_without_a_schema_the_format_is_a_json_object(client: OpenRouterClient):
    reply = await client.stream_chat(request_for("simulated/hold", schema=None), api_key=KEY)

    assert reply.response_format == "json_object"


@pytest.mark.parametrize(
    ("model", "format_and_refusals"),
    [
        ("simulated/flip:no-schema", ("json_object", 1)),
        ("simulated/flip:no-json", (None, 2)),
        ("simulated/flip", ("json_schema", 0)),
    ],
)
async def test_a_refused_format_is_weakened_once_and_remembered(
    client: OpenRouterClient,
    http: httpx.AsyncClient,
    simulator: str,
    model: str,
    format_and_refusals: tuple[str | None, int],
):
    expected, refusals = format_and_refusals
    first = await client.stream_chat(request_for(model), api_key=KEY)
    second = await client.stream_chat(request_for(model, user="another"), api_key=KEY)

    summary = (await http.get(f"{simulator}/debug/requests")).json()
    assert first.response_format == second.response_format == expected
    assert summary["refused"] == refusals
    assert summary["completed"] == 2


async def test_another_refusal_is_not_asked_again(
    client: OpenRouterClient, http: httpx.AsyncClient, simulator: str
):
    with pytest.raises(RequestRejected):
        await client.stream_chat(request_for("simulated/hold:400"), api_key=KEY)

    assert (await http.get(f"{simulator}/debug/requests")).json()["total"] == 1


async def test_a_format_asked_for_by_name_is_not_weakened(client: OpenRouterClient):
    wanted = request_for("simulated/hold:no-schema", response_format="json_schema")

    with pytest.raises(RequestRejected):
        await client.stream_chat(wanted, api_key=KEY)


# Catalogue and key


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_catalogue_is_kept_for_an_hour_and_an_old_one_outlives_an_outage(
    http: httpx.AsyncClient, script: ScriptedServer
):
    clock = Clock()
    client = OpenRouterClient(http, script.url, monotonic=clock)
    script.answers = [CATALOGUE_WITH, [response(503, b"{}")], catalogue()]

    models = await asyncio.gather(*(client.models() for _ in range(5)))
    assert len(script.requests) == 1
    assert {model.id for found in models for model in found} == {"maker/strict"}

    clock.now = 3601
    assert [model.id for model in await client.models()] == ["maker/strict"]
    await renewed(client)
    await client.models()
    assert len(script.requests) == 2

    clock.now += 61
    await client.models()
    await renewed(client)
    assert (await client.models())[0].supported_parameters == frozenset()


async def test_an_old_catalogue_is_served_while_a_new_one_is_waited_for(
    http: httpx.AsyncClient, script: ScriptedServer
):
    clock = Clock()
    client = OpenRouterClient(http, script.url, monotonic=clock)
    never_ends: list[bytes | None] = [b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n"]
    script.answers = [CATALOGUE_WITH, never_ends]
    await client.models()
    clock.now = 3601

    async with asyncio.timeout(2):
        old = [await client.models() for _ in range(3)]
        await eventually(lambda: _has(script, requests=2))

    assert [[model.id for model in models] for models in old] == [["maker/strict"]] * 3
    assert len(script.requests) == 2


async def test_a_list_of_nothing_does_not_take_the_place_of_a_catalogue(
    http: httpx.AsyncClient, script: ScriptedServer
):
    clock = Clock()
    client = OpenRouterClient(http, script.url, monotonic=clock)
    script.answers = [CATALOGUE_WITH, [response(200, b'{"data": []}')]]
    await client.models()
    clock.now = 3601
    await client.models()
    await renewed(client)

    assert [model.id for model in await client.models()] == ["maker/strict"]


async def test_whoever_gives_up_waiting_leaves_the_others_their_catalogue(
    http: httpx.AsyncClient, script: ScriptedServer
):
    client = OpenRouterClient(http, script.url)
    script.answers = [CATALOGUE_WITH]
    impatient = asyncio.create_task(client.find_model("maker/strict"))
    await asyncio.sleep(0)
    patient = asyncio.create_task(client.find_model("maker/strict"))
    await asyncio.sleep(0)
    impatient.cancel()

    found = await patient

    assert impatient.cancelled()
    assert found is not None
    assert len(script.requests) == 1


async def renewed(client: OpenRouterClient) -> None:
    """Wait until the catalogue is not being fetched."""

    async def is_idle() -> bool:
        return client._catalogue._refreshing is None

    await eventually(is_idle)


async def _has(script: ScriptedServer, *, requests: int) -> bool:
    return len(script.requests) == requests


async def test_without_a_catalogue_models_are_asked_all_the_same(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    script.answers = [
        [response(500, b"{}")],
        [response(200, chunk("x", "stop"), "text/event-stream")],
    ]

    reply = await scripted_client.stream_chat(request_for("maker/model"), api_key=KEY)
    assert reply.response_format == "json_schema"

    with pytest.raises(TemporarilyUnavailable):
        await scripted_client.models()


async def test_catalogue_entries_are_read_with_care(
    scripted_client: OpenRouterClient, script: ScriptedServer
):
    entries = [
        {"id": "a/auto", "pricing": {"prompt": "-1", "completion": "NaN"}, "context_length": None},
        {"id": "b/b", "name": "B", "pricing": {"prompt": "0.000001"}, "context_length": 8_192},
        {"id": 7},
        "nonsense",
    ]
    script.answers = [[response(200, json.dumps({"data": entries}).encode())]]

    auto, plain = await scripted_client.models()

    assert (auto.name, auto.prompt_price, auto.completion_price) == ("a/auto", None, None)
    assert (plain.name, plain.prompt_price, plain.context_length) == ("B", 0.000001, 8_192)


async def test_a_keys_status_is_read(client: OpenRouterClient):
    unlimited, broke = await client.key_status(KEY), await client.key_status("sk-broke")

    assert (unlimited.limit, unlimited.limit_remaining) == (None, None)
    assert (broke.limit_remaining, broke.usage) == (0.0, 5.0)


async def test_an_unknown_key_is_refused(client: OpenRouterClient):
    with pytest.raises(AuthenticationFailed):
        await client.key_status("sk-invalid-0000")


@pytest.mark.parametrize("body", [b"{}", b'{"data": 1}', b"oops"])
async def test_a_status_that_is_none_is_an_outage(
    scripted_client: OpenRouterClient, script: ScriptedServer, body: bytes
):
    script.answers = [[response(200, body)]]

    with pytest.raises(TemporarilyUnavailable):
        await scripted_client.key_status(KEY)
