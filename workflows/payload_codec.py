"""Seals every payload that Temporal stores, when keys are configured."""

import base64
import os
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec
from typing_extensions import override

_ENCODING = b"binary/encrypted"
_NONCE_BYTES = 12


class InvalidPayloadKeys(ValueError):
    """`TEMPORAL_PAYLOAD_KEYS` is not `id:base64 of 32 bytes`, comma-separated."""


class AesGcmCodec(PayloadCodec):
    """AES-GCM with named keys: the first one seals, all of them open, so that keys rotate."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        if not keys:
            raise InvalidPayloadKeys("no key was given")
        self._active = keys[0][0]
        self._keys = {name: AESGCM(key) for name, key in keys}

    @classmethod
    def from_setting(cls, setting: str) -> Self:
        """Read `id:base64key,id:base64key`; raises `InvalidPayloadKeys`."""
        return cls([_parse_key(part.strip()) for part in setting.split(",") if part.strip()])

    @override
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._seal(payload) for payload in payloads]

    @override
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._open(payload) for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        nonce = os.urandom(_NONCE_BYTES)
        name = self._active.encode()
        sealed = self._keys[self._active].encrypt(nonce, payload.SerializeToString(), name)
        return Payload(metadata={"encoding": _ENCODING, "key-id": name}, data=nonce + sealed)

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != _ENCODING:
            return payload
        name = payload.metadata["key-id"].decode()
        if name not in self._keys:
            raise InvalidPayloadKeys(f"a payload was sealed with the unknown key {name!r}")
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            plain = self._keys[name].decrypt(nonce, sealed, name.encode())
        except InvalidTag:
            raise InvalidPayloadKeys(f"a payload does not open with the key {name!r}") from None
        return Payload.FromString(plain)


def _parse_key(part: str) -> tuple[str, bytes]:
    name, _, encoded = part.partition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if not name or len(key) != 32:  # noqa: PLR2004 - AES-256
        raise InvalidPayloadKeys("a payload key is `id:base64 of 32 bytes`")
    return name, key
