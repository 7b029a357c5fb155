"""Every failure has one shape, whoever noticed it."""

import asyncio
from pathlib import Path

import pytest
from fastapi import APIRouter
from pydantic import SecretStr

from api.middleware import MAX_BODY_BYTES
from settings import ApiSettings
from tests.api.world import Person, World, error_of, opened_world

ORIGIN = {"Origin": "http://localhost:3000"}


async def test_an_unknown_address_is_404(world: World) -> None:
    async with world.http() as http:
        error_of(await http.get("/api/nothing"), 404, "NOT_FOUND")


async def test_an_address_with_one_slash_too_many_is_404(ada: Person) -> None:
    error_of(await ada.get("/api/agents/"), 404, "NOT_FOUND")


async def test_a_wrong_method_is_405(world: World) -> None:
    async with world.http() as http:
        error_of(await http.post("/api/health"), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/agents/00000000-0000-7000-8000-000000000000", "DELETE, GET, PUT"),
        ("/api/arena/backtest/start", "POST"),
    ],
)
async def test_a_wrong_method_is_told_all_that_are_right(
    world: World, path: str, allowed: str
) -> None:
    async with world.http() as http:
        answer = await http.patch(path)

    error_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed


async def test_a_missing_token_is_401_and_says_what_is_wanted(world: World) -> None:
    async with world.http() as http:
        answer = await http.get("/api/users/me")

    error_of(answer, 401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", ["Bearer", "Bearer x.y.z", "Basic YTpi", "nonsense"])
async def test_a_bad_token_is_401(world: World, given: str) -> None:
    async with world.http({"Authorization": given}) as http:
        answer = await http.get("/api/users/me")

    error_of(answer, 401, "UNAUTHORIZED")
    assert "x.y.z" not in answer.text


async def test_a_bad_body_is_422_and_says_where(ada: Person) -> None:
    body = error_of(await ada.post("/api/agents", {"name": "A"}), 422, "VALIDATION_ERROR")

    places = [tuple(error["loc"]) for error in body["errors"]]
    assert ("body", "name") in places
    assert ("body", "indicators") in places
    assert body["detail"].startswith("name: ")


async def test_a_body_that_is_no_json_is_422(ada: Person) -> None:
    answer = await ada.http.post(
        "/api/agents", content=b"{nope", headers={"Content-Type": "application/json"}
    )

    body = error_of(answer, 422, "VALIDATION_ERROR")
    assert body["detail"].startswith("The body is not JSON: Expecting property name")
    assert body["detail"].endswith("at character 1")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"label": "\xff"}', "The request body cannot be read."),
        (b"[" * 100_000, "The request body cannot be read."),
    ],
)
async def test_a_body_that_cannot_be_read_is_422(
    ada: Person, content: bytes, sentence: str
) -> None:
    answer = await ada.http.post(
        "/api/agents", content=content, headers={"Content-Type": "application/json"}
    )

    assert error_of(answer, 422, "VALIDATION_ERROR")["detail"] == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("A", "must have at least 2 characters"), ("A" * 101, "must have at most 100 characters")],
)
async def test_a_text_of_a_wrong_length_is_counted_in_characters(
    ada: Person, name: str, sentence: str
) -> None:
    body = error_of(await ada.post("/api/agents", {"name": name}), 422, "VALIDATION_ERROR")

    assert body["detail"].startswith(f"name: {sentence}")


async def test_a_body_over_the_limit_is_413_whether_announced_or_not(ada: Person) -> None:
    async def pieces() -> object:
        for _ in range(2):
            yield b" " * MAX_BODY_BYTES

    announced = await ada.http.post("/api/agents", content=b" " * (MAX_BODY_BYTES + 1))
    chunked = await ada.http.post("/api/agents", content=pieces())  # type: ignore[arg-type]

    error_of(announced, 413, "REQUEST_TOO_LARGE")
    error_of(chunked, 413, "REQUEST_TOO_LARGE")


async def test_a_bug_is_500_in_the_same_shape_and_readable_by_a_browser(world: World) -> None:
    router = APIRouter()

    @router.get("/api/bug")
    async def bug() -> None:
        raise RuntimeError("the secret inside")

    world.app.include_router(router)
    async with world.http(ORIGIN) as http:
        answer = await http.get("/api/bug")
    world.app.router.routes.pop()

    error_of(answer, 500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]


async def test_errors_are_readable_by_known_origins_only(world: World) -> None:
    async with world.http() as http:
        known = await http.get("/api/users/me", headers=ORIGIN)
        foreign = await http.get("/api/users/me", headers={"Origin": "https://evil.test"})

    assert known.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert "access-control-allow-origin" not in foreign.headers


async def test_a_preflight_is_answered(world: World) -> None:
    wanted = ORIGIN | {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, content-type, x-frontend-url",
    }
    async with world.http() as http:
        answer = await http.options("/api/agents", headers=wanted)

    assert answer.status_code == 200
    assert "PUT" in answer.headers["access-control-allow-methods"]


async def test_a_request_id_is_kept_when_it_is_a_decent_one(world: World) -> None:
    async with world.http() as http:
        kept = await http.get("/api/nothing", headers={"X-Request-ID": "front-end-7"})
        replaced = await http.get("/api/nothing", headers={"X-Request-ID": "x" * 100})

    assert kept.json()["request_id"] == "front-end-7"
    assert replaced.json()["request_id"] != "x" * 100


async def test_many_requests_at_once_keep_their_ids_apart(world: World) -> None:
    async with world.http() as http:
        answers = await asyncio.gather(
            *(http.get("/api/nothing", headers={"X-Request-ID": f"id-{n}"}) for n in range(20))
        )

    assert [answer.json()["request_id"] for answer in answers] == [f"id-{n}" for n in range(20)]


async def test_a_database_that_is_away_is_503(
    settings: ApiSettings, world: World, tmp_path: Path
) -> None:
    lost = settings.model_copy(update={"database_url": SecretStr(nowhere(tmp_path))})
    async with (
        opened_world(lost, world.issuer, world.issuer_url) as stranded,
        stranded.person() as person,
    ):
        answer = await person.get("/api/agents")
        ready = await person.get("/api/ready")

    error_of(answer, 503, "UPSTREAM_UNAVAILABLE")
    assert ready.json()["database"] == "down"


async def test_an_issuer_that_was_never_reached_is_503(settings: ApiSettings, world: World) -> None:
    lost = settings.model_copy(update={"clerk_jwks_url": "http://127.0.0.1:1/jwks.json"})
    async with (
        opened_world(lost, world.issuer, world.issuer_url) as stranded,
        stranded.person() as person,
    ):
        answer = await person.get("/api/agents")

    error_of(answer, 503, "UPSTREAM_UNAVAILABLE")


def nowhere(path: Path) -> str:
    return f"postgresql://nobody@/none?host={path}"
