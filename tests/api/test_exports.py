"""Exports over REST: asked for once, shown to their user, downloaded by whoever has the link."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import text

from api.signed_links import SignedLinks
from db.repositories.exports import AllExportsRepository, ExportRepository
from tests.api.world import Person, World, account_of, error_of
from tests.db.accounts import Account, add_test

ALL = {
    "agent_configs": True,
    "test_results": True,
    "trade_history": True,
    "reasoning_traces": True,
    "account_settings": True,
}
FILE = b"PK\x03\x04" + bytes(range(256)) * 10_000
NOBODY = "00000000-0000-7000-8000-000000000000"


async def ask(person: Person, *, include: Any = ALL, key: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await person.post("/api/export", {"include": include, **body}, headers=headers)


async def asked(person: Person, **wanted: Any) -> str:
    answer = await ask(person, **wanted)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["export_id"])


async def finish(world: World, account: Account, export_id: str, data: bytes = FILE) -> None:
    """What the worker does, in short."""
    async with world.services.database.for_user(account.id) as session:
        exports = ExportRepository(session)
        key = f"exports/{account.id}/{export_id}.zip"
        await world.services.storage.put(key, data)
        await exports.finish(
            UUID(export_id), object_key=key, size_bytes=len(data), lifetime=timedelta(hours=24)
        )


async def shown(person: Person, export_id: str) -> dict[str, Any]:
    answer = await person.get(f"/api/export/{export_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def link_of(person: Person, export_id: str) -> str:
    """The link without the public address, which is that of the test's own client."""
    url = (await shown(person, export_id))["download_url"]
    assert url.startswith("http://api.test/api/export/")
    return str(url.removeprefix("http://api.test"))


@pytest.fixture
async def account(world: World, ada: Person) -> Account:
    return await account_of(world, ada)


async def test_an_export_is_stored_and_started(world: World, ada: Person, account: Account) -> None:
    await add_test(account, await account.add_agent())

    answer = await ask(ada, format="json")

    assert answer.status_code == 202, answer.text
    body = answer.json()
    export_id = body.pop("export_id")
    assert body.pop("estimated_size_mb") > 0.05
    assert body == {"status": "processing", "download_url": None}
    assert await world.services.temporal.is_export_running(UUID(export_id))
    assert await shown(ada, export_id) == {
        "export_id": export_id,
        "status": "processing",
        "progress_pct": 0.0,
        "download_url": None,
        "expires_at": None,
        "size_mb": None,
        "error": None,
    }


async def test_the_announced_size_is_of_what_is_wanted_and_there(
    ada: Person, bob: Person, account: Account
) -> None:
    await add_test(account, await account.add_agent())

    full = (await ask(ada)).json()["estimated_size_mb"]
    nothing = (await ask(bob, include={"trade_history": True})).json()["estimated_size_mb"]

    assert full > nothing == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"include": {}},
        {"include": dict.fromkeys(ALL, False)},
        {"include": {"api_keys": True}},
        {"include": {"trade_history": "yes"}},
        {"include": ALL, "format": "xlsx"},
    ],
)
async def test_something_has_to_be_wanted(ada: Person, body: dict[str, Any]) -> None:
    error_of(await ada.post("/api/export", body), 422, "VALIDATION_ERROR")


async def test_a_user_has_one_export_made_at_a_time(
    world: World, ada: Person, bob: Person, account: Account
) -> None:
    first = await asked(ada)

    answers = await asyncio.gather(*(ask(ada) for _ in range(3)))
    for answer in answers:
        error_of(answer, 409, "EXPORT_RUNNING")
    await asked(bob)

    await finish(world, account, first)
    assert await asked(ada) != first


async def test_a_repeated_request_gets_the_first_answer_again(
    world: World, ada: Person, bob: Person, account: Account
) -> None:
    first = await ask(ada, key="a-key")
    again = await asyncio.gather(*(ask(ada, key="a-key") for _ in range(3)))
    await finish(world, account, first.json()["export_id"])
    late = await ask(ada, key="a-key")

    assert {each.status_code for each in (first, *again, late)} == {202}
    assert [each.json() for each in (*again, late)] == [first.json()] * 4
    error_of(await ask(ada, key="a-key", format="json"), 422, "IDEMPOTENCY_KEY_REUSED")
    assert (await ask(bob, key="a-key")).json()["export_id"] != first.json()["export_id"]


async def test_a_refused_request_leaves_its_key_free(
    world: World, ada: Person, account: Account
) -> None:
    first = await asked(ada)
    error_of(await ask(ada, key="a-key"), 409, "EXPORT_RUNNING")
    await finish(world, account, first)

    assert (await ask(ada, key="a-key")).status_code == 202


async def test_a_ready_export_is_downloaded_by_its_link_alone(
    world: World, ada: Person, account: Account
) -> None:
    export_id = await asked(ada)
    await finish(world, account, export_id)

    ready = await shown(ada, export_id)
    assert (ready["status"], ready["progress_pct"]) == ("ready", 100.0)
    assert ready["size_mb"] == pytest.approx(len(FILE) / 1e6)
    link = await link_of(ada, export_id)
    async with world.http() as nobody:
        answer, head = await nobody.get(link), await nobody.head(link)
    assert (answer.status_code, head.status_code) == (200, 200)
    assert answer.content == FILE
    assert head.content == b""
    for name in ("content-type", "content-length", "content-disposition", "cache-control"):
        assert head.headers[name] == answer.headers[name]
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(FILE))
    name = answer.headers["content-disposition"].removeprefix('attachment; filename="')
    assert name.startswith("alphalab-export-2")
    assert name.endswith('.zip"')
    assert "no-store" in answer.headers["cache-control"]


async def test_a_new_export_takes_the_place_of_the_earlier_ones(
    world: World, ada: Person, bob: Person, account: Account
) -> None:
    of_bob = await asked(bob)
    await finish(world, await account_of(world, bob), of_bob)
    earlier = await asked(ada)
    await finish(world, account, earlier)
    link = await link_of(ada, earlier)

    later = await asked(ada)
    assert (await shown(ada, earlier))["status"] == "ready"
    await finish(world, account, later)

    assert (await shown(ada, later))["status"] == "ready"
    assert (await shown(ada, earlier))["status"] == "expired"
    error_of(await ada.get(link), 410, "EXPORT_EXPIRED")
    assert (await row(world, earlier)).object_key is not None  # for the sweep
    assert (await shown(bob, of_bob))["status"] == "ready"


async def test_a_link_that_was_altered_opens_nothing(
    world: World, ada: Person, bob: Person, account: Account
) -> None:
    export_id, other = await asked(ada), await asked(bob)
    await finish(world, account, export_id)
    await finish(world, await account_of(world, bob), other)
    link = await link_of(ada, export_id)
    expires = parse_qs(urlsplit(link).query)["expires"][0]

    for altered in (
        link.replace(export_id, other),
        link.replace(expires, str(int(expires) + 1)),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.partition("?")[0],
        link.replace("signature", "sig"),
    ):
        answer = await ada.get(altered)
        body = error_of(answer, 403, "FORBIDDEN")
        assert "not valid" in body["detail"]
        assert (await ada.http.head(altered)).status_code == 403
    assert (await ada.post(link)).status_code == 405


async def test_a_link_that_has_expired_says_so(world: World, ada: Person, account: Account) -> None:
    export_id = await asked(ada)
    await finish(world, account, export_id)
    await age(world, export_id)

    gone = await shown(ada, export_id)
    assert (gone["status"], gone["download_url"]) == ("expired", None)
    found = await row(world, export_id)
    links: SignedLinks = world.services.links
    path = f"/api/export/{export_id}/download"
    body = error_of(
        await ada.get(f"{path}?{links.sign(path, expires_at=found.expires_at)}"), 403, "FORBIDDEN"
    )
    assert "expired" in body["detail"]
    in_time = links.sign(path, expires_at=found.expires_at + timedelta(days=2))
    error_of(await ada.get(f"{path}?{in_time}"), 410, "EXPORT_EXPIRED")


async def test_a_file_that_is_not_there_is_said_to_be_gone(
    world: World, ada: Person, account: Account
) -> None:
    export_id = await asked(ada)
    await finish(world, account, export_id)
    link = await link_of(ada, export_id)
    await world.services.storage.delete(str((await row(world, export_id)).object_key))

    error_of(await ada.get(link), 410, "EXPORT_EXPIRED")


async def test_a_failed_export_says_why(world: World, ada: Person, account: Account) -> None:
    export_id = await asked(ada)
    async with world.services.database.for_user(account.id) as session:
        await ExportRepository(session).fail(UUID(export_id), "The file storage was away.")

    failed = await shown(ada, export_id)

    assert (failed["status"], failed["error"]) == ("failed", "The file storage was away.")
    assert failed["download_url"] is None
    await asked(ada)


async def test_another_users_export_is_not_there(ada: Person, bob: Person) -> None:
    export_id = await asked(ada)

    error_of(await bob.get(f"/api/export/{export_id}"), 404, "EXPORT_NOT_FOUND")
    error_of(await bob.get(f"/api/export/{NOBODY}"), 404, "EXPORT_NOT_FOUND")


async def test_a_link_to_what_was_deleted_finds_nothing(world: World, ada: Person) -> None:
    path = f"/api/export/{NOBODY}/download"
    found = await row_time(world)
    query = world.services.links.sign(path, expires_at=found + timedelta(hours=1))

    error_of(await ada.get(f"{path}?{query}"), 404, "EXPORT_NOT_FOUND")


async def age(world: World, export_id: str) -> None:
    """Let a day go by."""
    async with world.services.database.as_system() as session:
        await session.execute(
            text("UPDATE exports SET expires_at = expires_at - interval '25 hours' WHERE id = :id"),
            {"id": export_id},
        )


async def row(world: World, export_id: str) -> Any:
    async with world.services.database.as_system() as session:
        return await AllExportsRepository(session).get(UUID(export_id))


async def row_time(world: World) -> Any:
    async with world.services.database.as_system() as session:
        return await session.scalar(text("SELECT now()"))
