"""The local token issuer: an RSA key in the data directory, its JWKS, and the tokens it signs.

It exists under `alphalab up` only. The API verifies its tokens by the code that verifies Clerk's.
"""

import base64
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

KEY_BITS = 2048
PUBLIC_EXPONENT = 65537
JWKS_PATH = "/.well-known/jwks.json"


class Issuer:
    """Signs tokens with one RSA key."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = hashlib.sha256(public).hexdigest()[:16]

    @classmethod
    def from_file(cls, path: Path) -> "Issuer":
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, RSAPrivateKey):
            raise TypeError(f"{path} does not hold an RSA key.")
        return cls(key)

    def jwks(self) -> dict[str, Any]:
        """The public key as the address in `CLERK_JWKS_URL` serves it."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self._key_id}
        return {"keys": [{**key, "n": _base64_number(numbers.n), "e": _base64_number(numbers.e)}]}

    def token(
        self,
        *,
        issuer: str,
        subject: str,
        issued_at: datetime,
        lifetime: timedelta,
        claims: Mapping[str, str] | None = None,
    ) -> str:
        """A signed session token; `claims` are those about the user, such as `email`."""
        times = {"iat": issued_at, "nbf": issued_at, "exp": issued_at + lifetime}
        payload = {**(claims or {}), **times, "iss": issuer, "sub": subject}
        return jwt.encode(payload, self._key, algorithm="RS256", headers={"kid": self._key_id})


def create_key(path: Path) -> None:
    """Write a new RSA key that only this user may read."""
    key = generate_private_key(public_exponent=PUBLIC_EXPONENT, key_size=KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once by one that only this user may read."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    unfinished.replace(path)


def issuer_of(jwks_url: str) -> str:
    """The `iss` of the tokens that a JWKS address verifies: its origin."""
    address = urlsplit(jwks_url)
    return f"{address.scheme}://{address.netloc}"


def _base64_number(number: int) -> str:
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
