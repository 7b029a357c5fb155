"""A user's API key and token, followed through a whole test: nowhere but where they belong."""

import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import redirect_stdout
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client as TemporalClient
from websockets.asyncio.client import connect

from local.issuer import Issuer
from settings import ApiSettings
from tests.api.clerk import WEBHOOK_SECRET, post, tell
from tests.api.sockets import Address, Client, refusal, serving
from tests.api.world import Person, World, created, staffed_world, upload
from tests.quiet_logging import configure_test_logging
from tests.stored import everything_in, everything_stored
from tests.workflows.histories import payloads_of
from workflows.runtime import workflow_id

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
async def staffed(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, temporal_client: TemporalClient
) -> AsyncIterator[World]:
    async with staffed_world(settings, issuer, simulators_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="module")
async def address(staffed: World) -> AsyncIterator[Address]:
    async with serving(staffed) as address:
        yield address


async def test_a_key_and_a_token_are_nowhere_in_plain_text(
    staffed: World,
    address: Address,
    temporal_client: TemporalClient,
    postgres_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, written, answers = f"sk-or-v1-{uuid4().hex}", io.StringIO(), []
    async with staffed.person() as ada:
        with redirect_stdout(written):
            configure_test_logging("debug")
            logging.getLogger().addHandler(caplog.handler)
            answers += await provoked(ada, key)
            frames, session_id = await whole_test(address, ada, key)
            answers += [await ada.get(f"/api/arena/backtest/{session_id}")]
            body = await refusal(address.url(NOBODY, f"token={ada.token}"), 404)
            answers += await told_of_users(staffed)
        configure_test_logging()

    handle = temporal_client.get_workflow_handle(workflow_id(session_id))
    history = (await handle.fetch_history()).to_json()
    places = {
        "history": history,
        "payloads": b"".join(payloads_of(history)).decode(),
        "redis": await everything_in(staffed.services.redis),
        "tables": everything_stored(postgres_url),
        "frames": json.dumps(frames),
        "answers": "".join(answer.text for answer in answers),
        "headers": "".join(str(answer.headers) for answer in answers),
        "refusal": body,
        "logs as written": written.getvalue(),
        "logs before they are redacted": caplog.text,
    }
    secrets = {
        "key": key.rpartition("-")[2],
        "token": ada.token.rpartition(".")[2],
        "webhook secret": WEBHOOK_SECRET.removeprefix("whsec_"),
    }
    assert all(places.values())
    assert str(session_id) in places["logs as written"]
    found = [
        (name, what) for name, text in places.items() for what in secrets if secrets[what] in text
    ]
    # At this level the server logs the addresses of handshakes, which may hold a token.
    assert set(found) <= {("logs before they are redacted", "token")}


async def whole_test(address: Address, ada: Person, key: str) -> tuple[list[Any], UUID]:
    """A backtest to its end, watched by both ways to give a token."""
    await ada.add_key(key)
    await upload(ada)
    agent = await ada.add_agent()
    session_id = UUID(created(await ada.start(agent["id"]))["session"]["id"])
    protocols: list[Any] = ["alphalab", ada.token]
    async with (
        address.watch(session_id, ada.token, last_seq=0) as one,
        connect(address.url(session_id), subprotocols=protocols) as connection,
    ):
        other = Client(connection)
        assert await one.until_closed(seconds=60) == 1000
        assert await other.until_closed(seconds=60) == 1000
    return one.frames + other.frames, session_id


async def provoked(ada: Person, key: str) -> list[httpx.Response]:
    """Answers to requests that bring a key or a token where it is wrong."""
    answers = [
        await ada.post("/api/api-keys", {"api_key": {"is": key}}),
        await ada.post("/api/api-keys", {"api_key": key + "é"}),
        await ada.post("/api/api-keys", {"api_key": key, "provider": key}),
        await ada.post("/api/api-keys", {"api_key": key, "label": "x" * 10_000}),
        await ada.http.post("/api/api-keys", content=f'{{"api_key": "{key}"'),
        await ada.post("/api/agents", {"api_key_id": key}),
        await ada.put("/api/users/me", {"timezone": ada.token}),
        await ada.get(f"/api/agents/{ada.token}"),
        await ada.get("/api/agents", headers={"Authorization": f"Bearer {ada.token}x"}),
        await ada.get("/api/agents", headers={"Authorization": f"Basic {ada.token}"}),
    ]
    assert all(400 <= answer.status_code < 500 for answer in answers)
    return answers


async def told_of_users(world: World) -> list[httpx.Response]:
    """Answers to what Clerk delivers, refused and not."""
    return [await tell(world, "user.created", {}), await post(world, b"{}", {})]
