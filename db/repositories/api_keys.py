"""The users' keys to a model provider."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import Agent, ApiKey, ApiKeyRecord, User


class ApiKeyRepository:
    """Keys of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> list[ApiKeyRecord]:
        """Return all keys, the oldest first."""
        return await self._select()

    async def get(self, key_id: UUID) -> ApiKeyRecord | None:
        """Return one key."""
        found = await self._select(col(ApiKey.id) == key_id)
        return found[0] if found else None

    async def encrypted(self, key_id: UUID) -> str | None:
        """Return a key's ciphertext."""
        query = select(col(ApiKey.encrypted_key)).where(col(ApiKey.id) == key_id)
        return await self._session.scalar(query)

    async def add(
        self,
        *,
        user_id: UUID,
        key_prefix: str,
        encrypted_key: str,
        label: str | None = None,
        provider: str = "openrouter",
        set_as_default: bool = False,
    ) -> ApiKeyRecord:
        """Store a key; the user's first one becomes the default."""
        await self._lock_user(user_id)
        has_default = await self._session.scalar(
            select(col(ApiKey.id)).where(col(ApiKey.is_default))
        )
        if set_as_default:
            await self._clear_default()
        key = ApiKey(
            user_id=user_id,
            provider=provider,
            label=label,
            key_prefix=key_prefix,
            encrypted_key=encrypted_key,
            is_default=set_as_default or has_default is None,
        )
        self._session.add(key)
        await self._session.flush()
        return await self._one(key.id)

    async def relabel(self, key_id: UUID, label: str | None) -> ApiKeyRecord | None:
        """Change the label."""
        return await self._update(key_id, label=label)

    async def set_default(self, key_id: UUID) -> ApiKeyRecord | None:
        """Make this the default and no other."""
        query = select(col(ApiKey.user_id)).where(col(ApiKey.id) == key_id)
        user_id = await self._session.scalar(query)
        if user_id is None:
            return None
        await self._lock_user(user_id)
        await self._clear_default()
        return await self._update(key_id, is_default=True)

    async def set_status(
        self, key_id: UUID, status: str, *, validated_at: datetime
    ) -> ApiKeyRecord | None:
        """Note what the provider said of the key: valid or invalid."""
        return await self._update(key_id, status=status, last_validated_at=validated_at)

    async def delete(self, key_id: UUID) -> Sequence[UUID] | None:
        """Delete a key; return the agents that are left without one, None when there is no key.

        When it was the default, the oldest of the others takes its place.
        """
        key = await self.get(key_id)
        if key is None:
            return None
        await self._lock_user(key.user_id)
        affected = await self._session.scalars(
            select(col(Agent.id)).where(col(Agent.api_key_id) == key_id)
        )
        await self._session.execute(delete(ApiKey).where(col(ApiKey.id) == key_id))
        if key.is_default and (others := await self._select()):
            await self._update(others[0].id, is_default=True)
        return affected.all()

    async def _one(self, key_id: UUID) -> ApiKeyRecord:
        return (await self._select(col(ApiKey.id) == key_id))[0]

    async def _select(self, *conditions: ColumnElement[bool]) -> list[ApiKeyRecord]:
        names = (
            select(func.array_agg(aggregate_order_by(col(Agent.name), col(Agent.name))))
            .where(col(Agent.api_key_id) == col(ApiKey.id), ~col(Agent.is_archived))
            .scalar_subquery()
        )
        query = select(ApiKey, names).where(*conditions).order_by(col(ApiKey.id))
        rows = await self._session.execute(query.execution_options(populate_existing=True))
        return [
            ApiKeyRecord.model_validate(key, from_attributes=True, update={"used_by": used or []})
            for key, used in rows
        ]

    async def _update(self, key_id: UUID, **values: Any) -> ApiKeyRecord | None:
        await self._session.execute(update(ApiKey).where(col(ApiKey.id) == key_id).values(**values))
        return await self.get(key_id)

    async def _clear_default(self) -> None:
        await self._session.execute(
            update(ApiKey).where(col(ApiKey.is_default)).values(is_default=False)
        )

    async def _lock_user(self, user_id: UUID) -> None:
        """Make changes of the default wait for each other."""
        await self._session.execute(
            select(col(User.id)).where(col(User.id) == user_id).with_for_update(key_share=True)
        )


class CiphertextRepository:
    """The ciphertexts of all users' keys; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(self, *, after: UUID, limit: int) -> list[tuple[UUID, str]]:
        """Return keys with a greater id than `after`, in order, each with its ciphertext."""
        query = select(col(ApiKey.id), col(ApiKey.encrypted_key)).where(col(ApiKey.id) > after)
        rows = await self._session.execute(query.order_by(col(ApiKey.id)).limit(limit))
        return [(row.id, row.encrypted_key) for row in rows]

    async def replace(self, key_id: UUID, *, old: str, new: str) -> bool:
        """Exchange a ciphertext; False when it is not that any more, or the key is gone."""
        change = update(ApiKey).where(col(ApiKey.id) == key_id, col(ApiKey.encrypted_key) == old)
        changed = await self._session.execute(
            change.values(encrypted_key=new).returning(col(ApiKey.id))
        )
        return changed.one_or_none() is not None
