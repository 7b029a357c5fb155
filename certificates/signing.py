"""Ed25519 over the canonical document: who may sign, and whose signature it is."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

KEY_BYTES = 32
_ID_LENGTH = 16


class InvalidKey(ValueError):
    """What was given as a key is none; the message repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that anybody may have."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """From PEM, or from the base64 of its 32 bytes. Raises `InvalidKey`."""
        if "-----BEGIN" in text:
            return cls(_from_pem(text))
        return cls(_decoded(text, "A public key is PEM, or the base64 of 32 bytes."))

    @property
    def id(self) -> str:
        """The first half of the SHA-256 of its bytes, by which a bundle names it."""
        return hashlib.sha256(self.raw).hexdigest()[:_ID_LENGTH]

    @property
    def base64(self) -> str:
        return base64.b64encode(self.raw).decode()

    @property
    def pem(self) -> str:
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: str, content: bytes) -> bool:
        """Whether the base64 of a signature is this key's over the content."""
        try:
            found = base64.b64decode(signature, validate=True)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(found, content)
        except (ValueError, InvalidSignature):
            return False
        # The last character of base64 has bits that say nothing: only one form of it counts.
        return base64.b64encode(found).decode() == signature


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """The key that signs; nothing shows it."""

    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, text: str) -> Self:
        """From the base64 of its 32 bytes. Raises `InvalidKey`."""
        seed = _decoded(text, "A signing key is the base64 of an Ed25519 seed of 32 bytes.")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, content: bytes) -> str:
        """The base64 of the signature."""
        return base64.b64encode(self._key.sign(content)).decode()


def new_seed() -> str:
    """A new signing key, as `SigningKey.from_seed` reads it."""
    return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def _from_pem(text: str) -> bytes:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, TypeError):
        raise InvalidKey("This PEM holds no public key.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey("This PEM holds a public key of another kind than Ed25519.")
    return key.public_bytes_raw()


def _decoded(text: str, complaint: str) -> bytes:
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKey(complaint) from None
    if len(found) != KEY_BYTES:
        raise InvalidKey(complaint)
    return found
