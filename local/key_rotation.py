"""Encrypts all stored API keys anew, under the first of the configured Fernet keys."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from db.engine import Database
from db.repositories.api_keys import CiphertextRepository

BATCH = 100
_BEFORE_ALL = UUID(int=0)


@dataclass(slots=True, kw_only=True)
class Rotation:
    """How many keys are under the first Fernet key now, were already, or open with none."""

    encrypted: int = 0
    current: int = 0
    unreadable: int = 0


async def rotate_keys(database: Database, fernet_keys: Sequence[str]) -> Rotation:
    """Encrypt anew whatever is not under the first key; whoever decrypts meanwhile needs them all.

    Each key is a transaction of its own, so that no request waits; begun again, it goes on where
    it ended.
    """
    first, ring = Fernet(fernet_keys[0]), MultiFernet([Fernet(each) for each in fernet_keys])
    rotation = Rotation()
    async for key_id, ciphertext in _stored(database):
        if _opens(first, ciphertext):
            rotation.current += 1
        elif not _opens(ring, ciphertext):
            rotation.unreadable += 1
        else:
            async with database.as_system() as session:
                rotation.encrypted += await CiphertextRepository(session).replace(
                    key_id, old=ciphertext, new=ring.rotate(ciphertext.encode()).decode()
                )
    return rotation


async def _stored(database: Database) -> AsyncIterator[tuple[UUID, str]]:
    """All keys; one that is added meanwhile has a greater id, and comes last."""
    after = _BEFORE_ALL
    while True:
        async with database.as_system() as session:
            batch = await CiphertextRepository(session).page(after=after, limit=BATCH)
        for key_id, ciphertext in batch:
            yield key_id, ciphertext
        if len(batch) < BATCH:
            return
        after = batch[-1][0]


def _opens(fernet: Fernet | MultiFernet, ciphertext: str) -> bool:
    try:
        fernet.decrypt(ciphertext.encode())
    except InvalidToken:
        return False
    return True
