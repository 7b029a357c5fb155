"""Who one is, and the keys one has."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.api.world import Person, World, created, error_of

SECRET = "sk-or-v1-0123456789abcdef"


async def test_health_answers_nobody_in_particular(world: World) -> None:
    async with world.http() as http:
        answer = await http.get("/api/health")

    assert answer.json()["status"] == "ok"
    assert answer.json()["service"] == "alphalab-api"


async def test_readiness_says_what_is_missing(world: World) -> None:
    async with world.http() as http:
        answer = await http.get("/api/ready")

    assert answer.status_code == 503
    assert answer.json() == {"database": "ok", "redis": "ok", "temporal": "ok", "worker": "down"}


async def test_a_first_sign_in_that_races_with_itself_makes_one_user(ada: Person) -> None:
    answers = await asyncio.gather(*(ada.get("/api/users/me") for _ in range(12)))

    assert [answer.status_code for answer in answers] == [200] * 12
    assert len({answer.json()["user"]["id"] for answer in answers}) == 1


async def test_sync_takes_the_claims_and_not_the_body(ada: Person) -> None:
    first = await ada.post("/api/users/sync", {"email": "evil@example.com", "plan": "enterprise"})
    second = await ada.post("/api/users/sync")

    user = first.json()["user"]
    assert first.json()["message"] == "User created"
    assert user["clerk_id"] == ada.subject
    assert (user["first_name"], user["plan"], user["timezone"]) == ("Ada", "free", "UTC")
    assert second.json()["message"] == "User updated"
    assert second.json()["user"]["id"] == user["id"]


async def test_a_user_changes_what_is_named_only(ada: Person) -> None:
    before = (await ada.get("/api/users/me")).json()["user"]
    name = f"ada-{uuid4().hex[:8]}"

    changed = await ada.put("/api/users/me", {"timezone": "Europe/Berlin", "username": name})

    assert changed.json()["user"] == before | {"timezone": "Europe/Berlin", "username": name}
    assert (await ada.get("/api/users/me")).json() == changed.json()


async def test_a_username_belongs_to_one_user(ada: Person, bob: Person) -> None:
    name = f"taken-{uuid4().hex[:8]}"
    await ada.put("/api/users/me", {"username": name})

    error_of(await bob.put("/api/users/me", {"username": name}), 409, "USERNAME_TAKEN")


@pytest.mark.parametrize("body", [{"timezone": "Mars/Olympus"}, {"username": "a\x00b"}])
async def test_a_user_cannot_be_changed_to_nonsense(ada: Person, body: dict[str, str]) -> None:
    error_of(await ada.put("/api/users/me", body), 422, "VALIDATION_ERROR")


async def test_a_deactivated_user_is_shut_out(world: World, ada: Person) -> None:
    await ada.get("/api/users/me")
    async with world.services.database.as_system() as session:
        await session.execute(
            text("UPDATE users SET is_active = false WHERE clerk_id = :id"), {"id": ada.subject}
        )
    world.services.known_users.clear()

    error_of(await ada.get("/api/users/me"), 403, "FORBIDDEN")
    error_of(await ada.get("/api/agents"), 403, "FORBIDDEN")


async def test_a_key_is_stored_encrypted_and_never_shown(world: World, ada: Person) -> None:
    answer = await ada.post("/api/api-keys", {"provider": "openrouter", "api_key": SECRET})
    key = created(answer)["api_key"]
    listed = await ada.get("/api/api-keys")

    assert key["key_prefix"] == "sk-or-v1-••••••••"
    assert (key["is_default"], key["status"], key["used_by"]) == (True, "untested", [])
    assert listed.json()["api_keys"] == [key]
    assert SECRET[9:] not in answer.text + listed.text
    async with world.services.database.as_system() as session:
        stored = await session.scalar(
            text("SELECT encrypted_key FROM api_keys WHERE id = :id"), {"id": key["id"]}
        )
    assert world.services.cipher.decrypt(stored).decode() == SECRET


@pytest.mark.parametrize("secret", ["", "sk-or-", "sk-ant-1", "sk-or-é", "sk-or-" + "x" * 500])
async def test_a_key_of_another_kind_is_refused_without_repeating_it(
    ada: Person, secret: str
) -> None:
    answer = await ada.post("/api/api-keys", {"provider": "openrouter", "api_key": secret})

    body = error_of(answer, 422, "VALIDATION_ERROR")
    assert body["errors"][0]["loc"] == ["body", "api_key"]
    assert len(secret) < 7 or secret not in answer.text


async def test_there_is_one_default_key(ada: Person) -> None:
    first = await ada.add_key()
    second = created(
        await ada.post("/api/api-keys", {"api_key": SECRET, "set_as_default": True, "label": "b"})
    )["api_key"]

    assert second["is_default"]
    assert not (await ada.get(f"/api/api-keys/{first}")).json()["api_key"]["is_default"]
    again = await ada.post(f"/api/api-keys/{first}/set-default")
    assert again.json()["api_key"]["is_default"]
    refused = await ada.put(f"/api/api-keys/{first}", {"is_default": False})
    error_of(refused, 409, "CONFLICT")
    changed = await ada.put(f"/api/api-keys/{second['id']}", {"label": None, "is_default": True})
    assert changed.json()["api_key"]["label"] is None
    assert changed.json()["api_key"]["is_default"]


async def test_validation_asks_openrouter(ada: Person) -> None:
    key = await ada.add_key()

    answer = await ada.post(f"/api/api-keys/{key}/validate")

    assert answer.json()["valid"]
    assert "simulated/momentum" in answer.json()["models_available"]
    shown = (await ada.get(f"/api/api-keys/{key}")).json()["api_key"]
    assert shown["status"] == "valid"
    assert shown["last_validated_at"].endswith("Z")


async def test_a_key_that_openrouter_refuses_is_invalid(world: World, ada: Person) -> None:
    key = await ada.add_key()
    forged = world.services.cipher.encrypt(b"sk-invalid-1").decode()
    async with world.services.database.as_system() as session:
        await session.execute(
            text("UPDATE api_keys SET encrypted_key = :new WHERE id = :id"),
            {"new": forged, "id": key},
        )

    answer = await ada.post(f"/api/api-keys/{key}/validate")

    assert (answer.json()["valid"], answer.json()["status"]) == (False, "invalid")
    assert "sk-invalid" not in answer.text


async def test_deleting_a_key_names_the_agents_that_lose_it(ada: Person) -> None:
    key = await ada.add_key()
    agent = await ada.add_agent()

    deleted = await ada.delete(f"/api/api-keys/{key}")

    assert agent["api_key_id"] == key
    assert deleted.json()["affected_agents"] == [agent["id"]]
    error_of(await ada.get(f"/api/api-keys/{key}"), 404, "API_KEY_NOT_FOUND")


async def test_another_users_key_does_not_exist(ada: Person, bob: Person) -> None:
    key = await ada.add_key()

    for answer in (
        await bob.get(f"/api/api-keys/{key}"),
        await bob.put(f"/api/api-keys/{key}", {"label": "mine"}),
        await bob.post(f"/api/api-keys/{key}/validate"),
        await bob.post(f"/api/api-keys/{key}/set-default"),
        await bob.delete(f"/api/api-keys/{key}"),
    ):
        error_of(answer, 404, "API_KEY_NOT_FOUND")
    assert (await bob.get("/api/api-keys")).json() == {"api_keys": []}
