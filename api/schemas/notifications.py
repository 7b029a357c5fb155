"""Notifications, as their reader sees them."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.base import Filters, Page, Pagination, Shape
from db.models.inbox import NotificationRecord


class NotificationsQuery(Filters):
    unread_only: bool = False
    page: Page = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class NotificationOut(Shape):
    id: UUID
    type: Literal["info", "success", "warning", "error"]
    category: str = Field(examples=["test_completed"])
    title: str = Field(examples=["Momentum Max: backtest finished"])
    message: str = Field(examples=["BTC/USDT 1h: +4.20 % in 17 trades."])
    action_url: str | None
    session_id: UUID | None
    result_id: UUID | None
    is_read: bool
    read_at: datetime | None
    created_at: datetime


class NotificationsAnswer(Shape):
    """`total` counts all that match, `unread_count` all that are unread."""

    notifications: list[NotificationOut]
    total: int
    unread_count: int
    pagination: Pagination


class UnreadCount(Shape):
    count: int


class NotificationAnswer(NotificationOut):
    """The notification at top level, its own `message` included, and under `notification`."""

    notification: NotificationOut

    @classmethod
    def of(cls, record: NotificationRecord) -> Self:
        shown = NotificationOut.model_validate(record)
        return cls(**shown.model_dump(), notification=shown)


class NotificationsChanged(Shape):
    message: str = Field(examples=["All notifications marked as read", "Notifications cleared"])
    count: int = Field(description="How many were changed.")
