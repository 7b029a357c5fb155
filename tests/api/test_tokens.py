"""Whatever a bearer token may be but a good one: 401, and neither slow nor a burden to Clerk."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from local.issuer import Issuer
from settings import ApiSettings
from tests.api.sockets import refusal, serving
from tests.api.world import World, error_of, opened_world
from tests.loopback import ScriptedServer, response, serve_script

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def jwks(key: RSAPrivateKey) -> AsyncIterator[ScriptedServer]:
    """The issuer's key set, which counts how often it is asked for."""
    async with serve_script() as server:
        document = json.dumps(Issuer(key).jwks()).encode()
        server.answers = [[response(200, document)] for _ in range(300)]
        yield server


@pytest.fixture
async def world(settings: ApiSettings, jwks: ScriptedServer, key: RSAPrivateKey):
    """An API that trusts this issuer and has not fetched its keys yet."""
    own = settings.model_copy(update={"clerk_jwks_url": f"{jwks.address}/jwks.json"})
    async with opened_world(own, Issuer(key), jwks.address) as world:
        yield world


Forgery = Callable[[World, RSAPrivateKey], str]


def forged(
    key: RSAPrivateKey | None = None, *, header: dict[str, Any] | None = None, **changes: Any
) -> Forgery:
    """A good token but for these claims, which are left out where None, this header, this key."""

    def make(world: World, real: RSAPrivateKey) -> str:
        now = int(time.time())
        good = {"sub": f"user_{uuid4().hex}", "iss": world.issuer_url, "iat": now, "exp": now + 60}
        claims = {name: each for name, each in (good | changes).items() if each is not None}
        headers = {"kid": key_id(real)} | (header or {})
        payload = json.dumps(claims).encode()
        return jwt.api_jws.encode(payload, key or real, algorithm="RS256", headers=headers)

    return make


def key_id(key: RSAPrivateKey) -> str:
    found: str = Issuer(key).jwks()["keys"][0]["kid"]
    return found


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(world: World, key: RSAPrivateKey) -> str:
    return ".".join([*forged()(world, key).split(".")[:2], ""])


def without_algorithm(name: str) -> Forgery:
    def make(world: World, key: RSAPrivateKey) -> str:
        payload = forged()(world, key).split(".")[1]
        return f"{encoded({'alg': name, 'kid': key_id(key), 'typ': 'JWT'})}.{payload}."

    return make


def by_the_public_key(world: World, key: RSAPrivateKey) -> str:
    """An HMAC whose secret is what everybody knows."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    payload = forged()(world, key).split(".")[1]
    message = f"{encoded({'alg': 'HS256', 'kid': key_id(key)})}.{payload}"
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(mac.sign(message.encode(), public))
    return f"{message}.{signature.rstrip(b'=').decode()}"


def with_a_key_of_its_own(world: World, key: RSAPrivateKey) -> str:
    """Names the forger's own key set in its header, and signs with that."""
    other = generate_private_key(public_exponent=65537, key_size=2048)
    own = Issuer(other).jwks()["keys"][0]
    return forged(other, header={"jwk": own, "jku": "http://127.0.0.1:1/keys"})(world, key)


def changed(world: World, key: RSAPrivateKey) -> str:
    head, _, signature = forged()(world, key).split(".")
    return f"{head}.{forged(sub='user_other')(world, key).split('.')[1]}.{signature}"


OTHER_KEY = generate_private_key(public_exponent=65537, key_size=2048)
NOW = time.time
FORGERIES: dict[str, Forgery] = {
    "no signature": unsigned,
    "alg none": without_algorithm("none"),
    "alg None": without_algorithm("nOnE"),
    "no alg": without_algorithm(""),
    "HS256 with the public key": by_the_public_key,
    "another key": forged(OTHER_KEY),
    "a key of its own": with_a_key_of_its_own,
    "changed": changed,
    "unknown kid": forged(header={"kid": "made-up"}),
    "no kid": forged(header={"kid": ""}),
    "another issuer": forged(iss="https://clerk.elsewhere.test"),
    "no issuer": forged(iss=None),
    "expired": forged(iat=int(NOW()) - 120, exp=int(NOW()) - 60),
    "no exp": forged(exp=None),
    "not valid yet": forged(nbf=int(NOW()) + 3_600),
    "issued in the future": forged(iat=int(NOW()) + 3_600, exp=int(NOW()) + 7_200),
    "no sub": forged(sub=None),
    "an empty sub": forged(sub=""),
    "a sub that is no text": forged(sub=7),
    "a sub that cannot be stored": forged(sub="user\x00"),
    "garbage": lambda *_: "garbage",
    "three parts of garbage": lambda *_: "a.b.c",
    "no JSON": lambda *_: "W10.W10.W10",
    "too long": lambda *_: "x" * 20_000,
    "deep": lambda *_: encoded_depth() + ".e30.e30",
}


def encoded_depth() -> str:
    return base64.urlsafe_b64encode(b"[" * 10_000).decode()


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
async def test_a_token_that_proves_nothing_opens_nothing(
    world: World, key: RSAPrivateKey, jwks: ScriptedServer, forgery: Forgery
) -> None:
    token = forgery(world, key)
    async with world.http({"Authorization": f"Bearer {token}"}) as http:
        answers = [await http.get("/api/agents"), await http.post("/api/users/sync")]

    for answer in answers:
        problem = error_of(answer, 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert token not in answer.text
        assert problem["detail"].endswith(".")
    assert len(jwks.requests) <= 1
    async with world.person() as honest:
        assert (await honest.get("/api/agents")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_who_shows_no_token_is_asked_for_one(world: World, headers: dict[str, Any]) -> None:
    async with world.http() as http:
        answer = await http.get("/api/agents", headers=headers)

    error_of(answer, 401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(
    world: World, key: RSAPrivateKey, jwks: ScriptedServer
) -> None:
    async with world.person() as honest:
        assert (await honest.get("/api/agents")).status_code == 200
        assert len(jwks.requests) == 1
        tokens = [forged(header={"kid": f"made-up-{n}"})(world, key) for n in range(200)]

        async with world.http() as http:
            statuses = await asyncio.gather(*(status(http, token) for token in tokens))
            served = await honest.get("/api/agents")

    assert statuses == [401] * 200
    assert served.status_code == 200
    # Asked less than a minute ago, the issuer is left alone.
    assert len(jwks.requests) == 1


async def test_a_flood_before_the_keys_are_known_asks_the_issuer_once(
    world: World, key: RSAPrivateKey, jwks: ScriptedServer
) -> None:
    tokens = [forged(header={"kid": f"made-up-{n}"})(world, key) for n in range(200)]

    async with world.http() as http:
        statuses = await asyncio.gather(*(status(http, token) for token in tokens))

    assert statuses == [401] * 200
    assert len(jwks.requests) == 1


async def test_sockets_refuse_what_rest_refuses(
    world: World, key: RSAPrivateKey, jwks: ScriptedServer
) -> None:
    fit_for_addresses = {"garbage", "alg none", "another key", "expired", "unknown kid", "no sub"}
    async with serving(world) as address:
        for name in fit_for_addresses:
            token = FORGERIES[name](world, key)
            for kind in ("backtest", "forward"):
                body = await refusal(address.url(NOBODY, f"token={token}", kind), 401)
                assert token not in body

    assert len(jwks.requests) == 1


async def status(http: httpx.AsyncClient, token: str) -> int:
    answer = await http.get("/api/agents", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code
