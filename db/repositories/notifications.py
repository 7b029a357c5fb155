"""A user's notifications, as the user sees and handles them."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Update, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import Notification, NotificationRecord

_SHOWN: ColumnElement[bool] = col(Notification.cleared_at).is_(None)
_UNREAD: tuple[ColumnElement[bool], ...] = (_SHOWN, ~col(Notification.is_read))


class NotificationRepository:
    """Notifications of the user whose transaction it is; cleared ones are gone."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(
        self, *, unread_only: bool, page: int, limit: int
    ) -> tuple[list[NotificationRecord], int]:
        """Return a page, the newest first, and how many there are in all."""
        matching = _UNREAD if unread_only else (_SHOWN,)
        newest_first = (col(Notification.created_at).desc(), col(Notification.id).desc())
        query = select(Notification).where(*matching).order_by(*newest_first)
        found = await self._session.scalars(query.limit(limit).offset((page - 1) * limit))
        return [_record(each) for each in found], await self._count(*matching)

    async def count_unread(self) -> int:
        return await self._count(*_UNREAD)

    async def mark_read(self, notification_id: UUID) -> NotificationRecord | None:
        """Note that it was read; `read_at` is the first time it was."""
        is_it = col(Notification.id) == notification_id
        await self._change(_marked_read().where(is_it))
        query = select(Notification).where(is_it, _SHOWN)
        found = await self._session.scalar(query.execution_options(populate_existing=True))
        return None if found is None else _record(found)

    async def mark_all_read(self) -> int:
        """Return how many were unread."""
        return await self._change(_marked_read())

    async def clear(self) -> int:
        """Return how many there were."""
        cleared = update(Notification).where(_SHOWN).values(cleared_at=func.clock_timestamp())
        return await self._change(cleared)

    async def _count(self, *matching: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(Notification).where(*matching)
        return (await self._session.scalars(query)).one()

    async def _change(self, change: Update) -> int:
        options = {"synchronize_session": False}
        changed = await self._session.execute(
            change.returning(col(Notification.id)), execution_options=options
        )
        return len(changed.all())


def _marked_read() -> Update:
    values: dict[str, Any] = {"is_read": True, "read_at": func.clock_timestamp()}
    return update(Notification).where(*_UNREAD).values(**values)


def _record(row: Notification) -> NotificationRecord:
    return NotificationRecord.model_validate(row, from_attributes=True)
