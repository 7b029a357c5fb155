"""Answers to requests that carry an idempotency key."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import IdempotencyKey, IdempotencyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyClaim:
    """A request's key, what it asked for, and until when its answer is kept."""

    user_id: UUID
    key: str
    request_hash: str
    expires_at: datetime


class IdempotencyRepository:
    """Keys of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyRecord | None:
        """Take the key and return None, or return the record of the request that has it.

        Waits for a request under way with the same key until its transaction ends; a record
        without a response is of one that was committed and never answered.
        """
        values = {
            "request_hash": claim.request_hash,
            "expires_at": claim.expires_at,
            "status_code": None,
            "response": None,
        }
        taken = await self._session.scalar(
            insert(IdempotencyKey)
            .values(user_id=claim.user_id, key=claim.key, **values)
            .on_conflict_do_update(
                index_elements=["user_id", "key"],
                set_=values,
                where=col(IdempotencyKey.expires_at) < func.clock_timestamp(),
            )
            .returning(col(IdempotencyKey.key))
        )
        if taken is not None:
            return None
        found = await self._session.get_one(IdempotencyKey, (claim.user_id, claim.key))
        return IdempotencyRecord.model_validate(found, from_attributes=True)

    async def find(self, claim: IdempotencyClaim) -> IdempotencyRecord | None:
        """The record of an earlier request with the key, unless it has expired."""
        found = await self._session.get(IdempotencyKey, (claim.user_id, claim.key))
        if found is None or found.expires_at < datetime.now(UTC):
            return None
        return IdempotencyRecord.model_validate(found, from_attributes=True)

    async def answer(
        self, user_id: UUID, key: str, *, status_code: int, response: dict[str, Any]
    ) -> None:
        """Keep what the request was answered."""
        await self._session.execute(
            update(IdempotencyKey)
            .where(col(IdempotencyKey.user_id) == user_id, col(IdempotencyKey.key) == key)
            .values(status_code=status_code, response=response)
        )
