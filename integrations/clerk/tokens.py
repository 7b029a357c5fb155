"""Verifies Clerk session tokens: RS256 JWTs against the issuer's published key set (JWKS)."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from integrations.errors import TemporarilyUnavailable

LEEWAY_S = 10
MAX_TOKEN_LENGTH = 16_384
MIN_KEY_BITS = 2_048

# An unknown key id asks the issuer again, but a flood of made-up ids must not.
REFRESH_INTERVAL_S = 60.0
# Keys that the issuer withdrew stop counting after this long at the latest.
KEYS_MAX_AGE_S = 3_600.0
# With no key at all nothing can be verified, so the next try comes soon.
FIRST_FETCH_RETRY_S = 1.0
FETCH_TIMEOUT_S = 5.0

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_OPTIONS: Any = {"require": ["exp", "iat", "iss", "sub"], "verify_aud": False}

_SENTENCES: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidIssuerError: "The token comes from another issuer.",
    jwt.InvalidSignatureError: "The token's signature is wrong.",
}


class TokenRefused(Exception):
    """The token proves nothing; the message says why and holds no part of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a verified token says about its user; all but `subject` may be missing."""

    subject: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    image_url: str | None = None


class KeySet:
    """The issuer's public keys, cached; fetched by one task at a time, for everyone who waits."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._http = http
        self._url = url
        self._clock = clock
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> RSAPublicKey | None:
        """Return the key; None when the issuer does not publish it.

        Raises TemporarilyUnavailable when no key set could be had yet.
        """
        if key_id in self._keys:
            self._renew_when_old()
            return self._keys[key_id]
        if self._fetch is None and self._may_ask():
            self._start_fetch()
        if self._fetch is not None:
            # One caller that goes away must not take the fetch from the others.
            await asyncio.shield(self._fetch)
        if self._fetched_at is None:
            raise TemporarilyUnavailable("The token issuer's keys could not be fetched.")
        return self._keys.get(key_id)

    def _renew_when_old(self) -> None:
        """Fetch behind the back of requests, which go on with the keys there are."""
        is_old = self._fetched_at is None or self._clock() - self._fetched_at >= KEYS_MAX_AGE_S
        if is_old and self._fetch is None and self._may_ask():
            self._start_fetch()

    def _may_ask(self) -> bool:
        if self._asked_at is None:
            return True
        interval = FIRST_FETCH_RETRY_S if self._fetched_at is None else REFRESH_INTERVAL_S
        return self._clock() - self._asked_at >= interval

    def _start_fetch(self) -> None:
        self._asked_at = self._clock()
        self._fetch = asyncio.create_task(self._fetch_keys())
        self._fetch.add_done_callback(self._fetched)

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetch = None

    async def _fetch_keys(self) -> None:
        try:
            answer = await self._http.get(self._url, timeout=FETCH_TIMEOUT_S)
            answer.raise_for_status()
            self._keys = _read_keys(answer.json())
        except (httpx.HTTPError, ValueError):
            return  # known keys stay in use until the issuer answers again
        self._fetched_at = self._clock()


class TokenVerifier:
    """Turns a bearer token into claims, or refuses it."""

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        authorized_parties: Sequence[str] = (),
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._authorized_parties = frozenset(authorized_parties)

    async def verify(self, token: str) -> TokenClaims:
        """Return the claims of a valid token.

        Raises TokenRefused, or TemporarilyUnavailable while the issuer's keys are unknown.
        """
        key = await self._keys.find(_key_id(token))
        if key is None:
            raise TokenRefused("The token was signed with an unknown key.")
        claims = self._decode(token, key)
        self._check_party(claims)
        return _read_claims(claims)

    def _decode(self, token: str, key: RSAPublicKey) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=_OPTIONS,
            )
        except jwt.MissingRequiredClaimError as e:
            raise TokenRefused(f"The token has no {e.claim!r} claim.") from None
        except (jwt.PyJWTError, ValueError) as e:
            raise TokenRefused(_SENTENCES.get(type(e), "The token is not valid.")) from None

    def _check_party(self, claims: Mapping[str, Any]) -> None:
        if self._authorized_parties and claims.get("azp") not in self._authorized_parties:
            raise TokenRefused("The token was made for another application.")


def issuer_of(jwks_url: str) -> str:
    """Return the origin of the key set's address: the issuer unless settings name another."""
    parts = urlsplit(jwks_url)
    return f"{parts.scheme}://{parts.netloc}"


def _key_id(token: str) -> str:
    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenRefused("The token is too long.")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise TokenRefused("The token is not a JSON Web Token.") from None
    if header.get("alg") != "RS256":
        raise TokenRefused("The token must be signed with RS256.")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise TokenRefused("The token names no key.")
    return key_id


def _read_keys(document: Any) -> dict[str, RSAPublicKey]:
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a key set")  # noqa: TRY004 - what came is wrong, not how we called
    found = {}
    for entry in entries:
        key = _read_key(entry)
        if key is not None:
            found[entry["kid"]] = key
    return found


def _read_key(entry: Any) -> RSAPublicKey | None:
    """Return the entry's key; None where it is not an RSA signing key of a decent size."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
        return None
    try:
        key = RSAAlgorithm.from_jwk(entry)
    except (jwt.PyJWTError, ValueError, KeyError):
        return None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        return None
    return key


def _read_claims(claims: Mapping[str, Any]) -> TokenClaims:
    if not is_storable(claims["sub"]):
        raise TokenRefused("The token has no usable 'sub' claim.")
    return TokenClaims(
        subject=claims["sub"],
        email=_text(claims, "email"),
        first_name=_text(claims, "first_name", "given_name"),
        last_name=_text(claims, "last_name", "family_name"),
        username=_text(claims, "username"),
        image_url=_text(claims, "image_url", "picture"),
    )


def _text(claims: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and is_storable(value):
            return value
    return None


def is_storable(text: str) -> bool:
    """Neither PostgreSQL nor UTF-8 holds the null character and lone surrogates."""
    return bool(text) and not _UNSTORABLE.search(text)
