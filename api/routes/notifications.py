"""What a user has been told."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import CurrentUser, InjectedServices
from api.errors import NotFound
from api.schemas.base import Pagination
from api.schemas.errors import documented
from api.schemas.notifications import (
    NotificationAnswer,
    NotificationOut,
    NotificationsAnswer,
    NotificationsChanged,
    NotificationsQuery,
    UnreadCount,
)
from db.repositories.notifications import NotificationRepository

router = APIRouter(
    prefix="/api/notifications", tags=["notifications"], responses=documented(401, 403, 503)
)


@router.get("", responses=documented(422))
async def list_notifications(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[NotificationsQuery, Query()]
) -> NotificationsAnswer:
    """List notifications, the newest first."""
    async with services.database.for_user(user.id) as session:
        notifications = NotificationRepository(session)
        found, total = await notifications.page(**wanted.model_dump())
        unread = await notifications.count_unread()
    return NotificationsAnswer(
        notifications=[NotificationOut.model_validate(each) for each in found],
        total=total,
        unread_count=unread,
        pagination=Pagination.of(wanted.page, wanted.limit, total),
    )


@router.get("/unread-count")
async def count_unread(services: InjectedServices, user: CurrentUser) -> UnreadCount:
    async with services.database.for_user(user.id) as session:
        return UnreadCount(count=await NotificationRepository(session).count_unread())


@router.post("/{notification_id}/read", responses=documented(404, 422))
async def mark_read(
    services: InjectedServices, user: CurrentUser, notification_id: UUID
) -> NotificationAnswer:
    """Note that it was read; a second time changes nothing."""
    async with services.database.for_user(user.id) as session:
        found = await NotificationRepository(session).mark_read(notification_id)
    if found is None:
        raise NotFound("notification")
    return NotificationAnswer.of(found)


@router.post("/mark-all-read")
async def mark_all_read(services: InjectedServices, user: CurrentUser) -> NotificationsChanged:
    async with services.database.for_user(user.id) as session:
        count = await NotificationRepository(session).mark_all_read()
    return NotificationsChanged(message="All notifications marked as read", count=count)


@router.delete("/clear")
async def clear_notifications(
    services: InjectedServices, user: CurrentUser
) -> NotificationsChanged:
    async with services.database.for_user(user.id) as session:
        count = await NotificationRepository(session).clear()
    return NotificationsChanged(message="Notifications cleared", count=count)
