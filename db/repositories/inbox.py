"""What is told to a user, once however often the telling is retried."""

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import ActivityLog, NewActivity, NewNotification, Notification


class InboxRepository:
    """Notifications and history of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def notify(self, new: NewNotification) -> bool:
        """Store a notification; False when its `dedup_key` was there before."""
        return await self._insert(Notification, new.model_dump())

    async def record(self, new: NewActivity) -> bool:
        """Store a line of history; False when its `dedup_key` was there before."""
        values = new.model_dump()
        return await self._insert(ActivityLog, values)

    async def _insert(
        self, table: type[Notification] | type[ActivityLog], values: dict[str, Any]
    ) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(col(table.id))
        return await self._session.scalar(statement) is not None
