"""A token counts only when the issuer's current key signed it, for us, for now."""

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from integrations.clerk.tokens import (
    KEYS_MAX_AGE_S,
    REFRESH_INTERVAL_S,
    KeySet,
    TokenClaims,
    TokenRefused,
    TokenVerifier,
    issuer_of,
)
from integrations.errors import TemporarilyUnavailable
from tests.loopback import ScriptedServer, response

ISSUER = "https://clerk.alphalab.test"
KEY_ID = "ins_1"


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return new_key()


@pytest.fixture(scope="module")
def other_key() -> RSAPrivateKey:
    return new_key()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jwks(script: ScriptedServer, key: RSAPrivateKey) -> ScriptedServer:
    """A server that publishes the key as often as it is asked."""
    script.answers = [[response(200, key_set(key))] for _ in range(50)]
    return script


@pytest.fixture
async def keys(http: httpx.AsyncClient, jwks: ScriptedServer, clock: Clock) -> KeySet:
    return KeySet(http, f"{jwks.address}/.well-known/jwks.json", clock=clock)


@pytest.fixture
def verifier(keys: KeySet) -> TokenVerifier:
    return TokenVerifier(keys, issuer=ISSUER)


async def test_gives_the_claims_of_a_good_token(
    verifier: TokenVerifier, key: RSAPrivateKey
) -> None:
    token = sign(key, email="ada@example.com", given_name="Ada", last_name="Byron", picture="p")

    claims = await verifier.verify(token)

    assert claims == TokenClaims(
        subject="user_1",
        email="ada@example.com",
        first_name="Ada",
        last_name="Byron",
        image_url="p",
    )


async def test_leaves_out_names_that_cannot_be_stored(
    verifier: TokenVerifier, key: RSAPrivateKey
) -> None:
    token = sign(key, email="ada\x00@example.com", first_name="\ud800", last_name="Byron")

    claims = await verifier.verify(token)

    assert claims == TokenClaims(subject="user_1", last_name="Byron")


@pytest.mark.parametrize("seconds", [-9, 9])
async def test_forgives_a_clock_that_is_a_little_off(
    verifier: TokenVerifier, key: RSAPrivateKey, seconds: int
) -> None:
    now = int(time.time()) + seconds
    token = sign(key, iat=now, nbf=now, exp=now + 1 if seconds < 0 else now + 60)

    assert (await verifier.verify(token)).subject == "user_1"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exp": int(time.time()) - 11}, "expired"),
        ({"nbf": int(time.time()) + 3_600}, "not valid yet"),
        ({"iat": int(time.time()) + 3_600}, "not valid yet"),
        ({"iss": "https://clerk.elsewhere.test"}, "another issuer"),
        ({"iss": None}, "'iss'"),
        ({"sub": None}, "'sub'"),
        ({"sub": ""}, "'sub'"),
        ({"sub": "user\x00"}, "'sub'"),
        ({"sub": "user\ud800"}, "'sub'"),
        ({"sub": 7}, "not valid"),
        ({"exp": None}, "'exp'"),
        ({"iat": None}, "'iat'"),
        ({"exp": "soon"}, "not valid"),
    ],
)
async def test_refuses_claims_that_do_not_hold(
    verifier: TokenVerifier, key: RSAPrivateKey, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TokenRefused, match=sentence):
        await verifier.verify(sign(key, **changes))


async def test_refuses_another_keys_signature_under_a_known_id(
    verifier: TokenVerifier, other_key: RSAPrivateKey
) -> None:
    with pytest.raises(TokenRefused, match="signature"):
        await verifier.verify(sign(other_key))


async def test_refuses_a_changed_payload(verifier: TokenVerifier, key: RSAPrivateKey) -> None:
    head, _, signature = sign(key).split(".")
    forged = encoded({"sub": "user_2", "iss": ISSUER, "iat": 0, "exp": 9_999_999_999})

    with pytest.raises(TokenRefused, match="signature"):
        await verifier.verify(f"{head}.{forged}.{signature}")


async def test_refuses_a_token_without_signature(
    verifier: TokenVerifier, key: RSAPrivateKey
) -> None:
    head, payload, _ = sign(key).split(".")

    with pytest.raises(TokenRefused):
        await verifier.verify(f"{head}.{payload}.")


async def test_refuses_alg_none(verifier: TokenVerifier) -> None:
    payload = encoded({"sub": "user_1", "iss": ISSUER, "iat": 0, "exp": 9_999_999_999})

    for algorithm in ("none", "None", "NONE"):
        header = encoded({"alg": algorithm, "kid": KEY_ID})
        with pytest.raises(TokenRefused, match="RS256"):
            await verifier.verify(f"{header}.{payload}.")


async def test_refuses_an_hmac_made_with_the_public_key(
    verifier: TokenVerifier, key: RSAPrivateKey
) -> None:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # The library refuses to sign with such a key, so the attacker does it by hand.
    head = encoded({"alg": "HS256", "kid": KEY_ID})
    payload = encoded({"sub": "user_1", "iss": ISSUER, "iat": 0, "exp": 9_999_999_999})
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = mac.sign(f"{head}.{payload}".encode(), public)
    token = f"{head}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    with pytest.raises(TokenRefused, match="RS256"):
        await verifier.verify(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "not a token",
        "\x00" * 100,
        "é.é.é",
        "e30.e30.e30",
        "W10.W10.W10",
        base64.urlsafe_b64encode(b"[" * 10_000).decode() + ".e30.e30",
        "x" * 20_000,
    ],
)
async def test_refuses_garbage(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(TokenRefused):
        await verifier.verify(token)


async def test_refuses_another_application_when_one_is_configured(
    keys: KeySet, key: RSAPrivateKey
) -> None:
    verifier = TokenVerifier(keys, issuer=ISSUER, authorized_parties=["https://app.test"])

    assert (await verifier.verify(sign(key, azp="https://app.test"))).subject == "user_1"
    for azp in ("https://evil.test", None):
        with pytest.raises(TokenRefused, match="another application"):
            await verifier.verify(sign(key, azp=azp))


async def test_asks_once_for_many_who_wait(
    verifier: TokenVerifier, key: RSAPrivateKey, jwks: ScriptedServer
) -> None:
    await asyncio.gather(*(verifier.verify(sign(key)) for _ in range(20)))

    assert len(jwks.requests) == 1


async def test_a_flood_of_unknown_keys_asks_once_a_minute(
    verifier: TokenVerifier, key: RSAPrivateKey, jwks: ScriptedServer, clock: Clock
) -> None:
    await verifier.verify(sign(key))
    clock.now += REFRESH_INTERVAL_S
    flood = [sign(key, kid=f"made-up-{number}") for number in range(100)]

    outcomes = await asyncio.gather(*map(verifier.verify, flood), return_exceptions=True)
    outcomes += await asyncio.gather(*map(verifier.verify, flood), return_exceptions=True)

    assert all(isinstance(outcome, TokenRefused) for outcome in outcomes)
    assert len(jwks.requests) == 2
    clock.now += REFRESH_INTERVAL_S
    with pytest.raises(TokenRefused):
        await verifier.verify(flood[0])
    assert len(jwks.requests) == 3


async def test_a_new_key_is_found_when_it_is_first_used(
    verifier: TokenVerifier,
    key: RSAPrivateKey,
    other_key: RSAPrivateKey,
    script: ScriptedServer,
    clock: Clock,
) -> None:
    await verifier.verify(sign(key))
    script.answers = [[response(200, key_set(key, next=other_key))]]
    clock.now += REFRESH_INTERVAL_S

    assert (await verifier.verify(sign(other_key, kid="next"))).subject == "user_1"


async def test_a_withdrawn_key_stops_counting(
    verifier: TokenVerifier,
    key: RSAPrivateKey,
    other_key: RSAPrivateKey,
    script: ScriptedServer,
    clock: Clock,
) -> None:
    await verifier.verify(sign(key))
    script.answers = [[response(200, key_set(other_key))]]
    clock.now += KEYS_MAX_AGE_S

    # The first request after the hour is still served, while the keys are fetched behind it.
    await verifier.verify(sign(key))

    async with asyncio.timeout(5):
        while await is_accepted(verifier, sign(key)):
            await asyncio.sleep(0.01)


async def test_known_keys_serve_while_the_issuer_is_away(
    verifier: TokenVerifier, key: RSAPrivateKey, script: ScriptedServer, clock: Clock
) -> None:
    await verifier.verify(sign(key))
    script.answers = []
    clock.now += KEYS_MAX_AGE_S

    for _ in range(3):
        assert (await verifier.verify(sign(key))).subject == "user_1"
        await asyncio.sleep(0.02)
        clock.now += REFRESH_INTERVAL_S


async def test_says_so_when_the_keys_were_never_to_be_had_and_recovers(
    verifier: TokenVerifier, key: RSAPrivateKey, script: ScriptedServer, clock: Clock
) -> None:
    script.answers = [[response(503, b"")], [response(200, b"no json")]]
    for _ in range(2):
        with pytest.raises(TemporarilyUnavailable):
            await verifier.verify(sign(key))
        clock.now += 1

    script.answers = [[response(200, key_set(key))]]

    assert (await verifier.verify(sign(key))).subject == "user_1"


async def test_takes_only_decent_rsa_signing_keys(
    verifier: TokenVerifier, key: RSAPrivateKey, script: ScriptedServer
) -> None:
    weak = generate_private_key(public_exponent=65537, key_size=1024)
    published = [
        public_entry(weak, "weak"),
        public_entry(key, "encrypts") | {"use": "enc"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "broken", "n": "?", "e": "?"},
        {"kty": "RSA"},
        "nonsense",
        public_entry(key, KEY_ID),
    ]
    script.answers = [[response(200, json.dumps({"keys": published}).encode())]]

    for key_id in ("weak", "encrypts", "shared", "broken"):
        with pytest.raises(TokenRefused, match="unknown key"):
            await verifier.verify(sign(key, kid=key_id))
    assert (await verifier.verify(sign(key))).subject == "user_1"


def test_the_issuer_is_the_origin_of_the_key_set() -> None:
    assert issuer_of("https://a.clerk.test:8443/.well-known/jwks.json") == (
        "https://a.clerk.test:8443"
    )


async def is_accepted(verifier: TokenVerifier, token: str) -> bool:
    try:
        await verifier.verify(token)
    except TokenRefused:
        return False
    return True


def sign(key: RSAPrivateKey, *, kid: str = KEY_ID, **changes: Any) -> str:
    """Return a good token, but for `changes`; a claim of None is left out."""
    now = int(time.time())
    claims = {"sub": "user_1", "iss": ISSUER, "iat": now, "nbf": now, "exp": now + 60} | changes
    return jwt.api_jws.encode(
        json.dumps({name: each for name, each in claims.items() if each is not None}).encode(),
        key,
        algorithm="RS256",
        headers={"kid": kid},
    )


def new_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def key_set(key: RSAPrivateKey, **others: RSAPrivateKey) -> bytes:
    entries = [public_entry(each, kid) for kid, each in {KEY_ID: key, **others}.items()]
    return json.dumps({"keys": entries}).encode()


def public_entry(key: RSAPrivateKey, kid: str) -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"}


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
