"""A token without an e-mail address is looked up at Clerk, and no request depends on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cachetools import TTLCache

from api.app import create_app
from integrations.clerk import users
from integrations.clerk.users import ClerkUsers
from server import services
from settings import ApiSettings
from tests.api.clerk import SECRET_KEY, Answer, ClerkBackend, clerk_user
from tests.api.world import Person, World
from tests.loopback import TLS, serve_app, serve_script


@pytest.fixture
def backend() -> ClerkBackend:
    return ClerkBackend()


@pytest.fixture
def backend_url(backend: ClerkBackend) -> Iterator[str]:
    with serve_app(backend.app()) as url:
        yield f"{url}/v1"


@pytest.fixture
async def asking(world: World, backend_url: str) -> AsyncIterator[World]:
    """The same API with the secret key of Clerk's backend."""
    async with asking_at(world, backend_url) as asking:
        yield asking


@asynccontextmanager
async def asking_at(world: World, url: str) -> AsyncIterator[World]:
    async with httpx.AsyncClient(verify=TLS) as http:
        own = replace(
            world.services,
            clerk=ClerkUsers(http, SECRET_KEY, url),
            known_users=TTLCache(100, 5.0),
        )
        yield replace(world, app=create_app(own), services=own)


async def email_of(person: Person) -> Any:
    answer = await person.get("/api/users/me")
    assert answer.status_code == 200, answer.text
    return answer.json()["user"]["email"]


async def test_an_address_is_read_at_first_sight_and_once(
    asking: World, backend: ClerkBackend
) -> None:
    async with asking.person() as person:
        backend.users[person.subject] = clerk_user(person.subject)

        answers = await asyncio.gather(*(person.get("/api/users/me") for _ in range(12)))
        asking.services.known_users.clear()

        assert [answer.status_code for answer in answers] == [200] * 12
        assert await email_of(person) == f"{person.subject}@example.com"
        assert backend.asked == [person.subject]
        assert backend.keys == {f"Bearer {SECRET_KEY}"}


async def test_a_token_that_carries_one_is_believed(asking: World, backend: ClerkBackend) -> None:
    email = f"{uuid4().hex}@example.com"
    async with asking.person(email=email) as person:
        assert await email_of(person) == email

    assert backend.asked == []


async def test_what_the_user_is_called_becomes_one_part_of_the_address(
    asking: World, backend: ClerkBackend
) -> None:
    odd = f"../clients?x=1#{uuid4().hex}"
    async with asking.http({"Authorization": f"Bearer {asking.token(odd)}"}) as http:
        assert (await http.get("/api/users/me")).status_code == 200

    assert backend.asked == [odd]


@pytest.mark.parametrize(
    "answer",
    [
        *(400, 401, 403, 404, 422, 429, 500, 503),
        *(b"", b"no json", b"null", b"[]", b"{}"),
        {"id": "user_1", "email_addresses": None},
        {"id": "user_1", "email_addresses": ["a@example.com", {"id": []}]},
        {"id": "user_1", "email_addresses": [{"id": "a"}], "primary_email_address_id": "b"},
        {
            "id": "user_1",
            "email_addresses": [{"id": "a", "email_address": "a\x00@example.com"}],
            "primary_email_address_id": "a",
        },
        # Nobody has shown that it is theirs.
        {"id": "user_1", "email_addresses": [{"id": "a", "email_address": "a@example.com"}]},
    ],
)
async def test_whatever_else_clerk_answers_leaves_it_unknown(
    asking: World, backend: ClerkBackend, answer: Answer
) -> None:
    async with asking.person(first_name="Ada") as person:
        backend.users[person.subject] = answer

        assert await email_of(person) is None
    assert len(backend.asked) == 1


async def test_a_clerk_that_is_silent_is_not_waited_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "LOOKUP_TIMEOUT_S", 0.3)

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asking_at(world, f"http://127.0.0.1:{port}/v1") as asking, asking.person() as person:
        async with asyncio.timeout(3):
            assert await email_of(person) is None
    assert len(silent) == 1
    for writer in silent:
        writer.close()
    server.close()


async def test_a_clerk_that_cannot_be_reached_or_hangs_up_leaves_it_unknown(world: World) -> None:
    async with serve_script() as script:
        script.answers = [[None]]
        async with asking_at(world, script.address) as asking, asking.person() as person:
            assert await email_of(person) is None
        assert len(script.requests) == 1
    async with asking_at(world, "http://127.0.0.1:1/v1") as asking, asking.person() as person:
        assert await email_of(person) is None


async def test_an_address_that_somebody_else_has_stays_unknown(
    asking: World, backend: ClerkBackend
) -> None:
    email = f"{uuid4().hex}@example.com"
    async with asking.person(email=email) as one, asking.person() as other:
        backend.users[other.subject] = clerk_user(other.subject, email=email)

        assert await email_of(one) == email
        assert await email_of(other) is None


async def test_a_sync_asks_again_while_it_is_unknown(asking: World, backend: ClerkBackend) -> None:
    async with asking.person() as person:
        backend.users[person.subject] = 503
        assert await email_of(person) is None
        backend.users[person.subject] = clerk_user(person.subject)

        synced = [await person.post("/api/users/sync") for _ in range(2)]

        emails = [answer.json()["user"]["email"] for answer in synced]
        assert emails == [f"{person.subject}@example.com"] * 2
    assert len(backend.asked) == 2


async def test_without_the_key_nobody_is_asked(settings: ApiSettings) -> None:
    async with services(settings) as made:
        assert made.clerk is None
    keyed = settings.model_copy(update={"clerk_secret_key": settings.encryption_key})
    async with services(keyed) as made:
        assert made.clerk is not None
