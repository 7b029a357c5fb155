"""What is told to a user: notifications and the activity log."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import (
    Base,
    OptionalPercent,
    OptionalTimestamp,
    StampedByDatabase,
    default,
    one_of,
)


class NotificationFields(Base):
    """A message; with a `dedup_key`, at most one per user, category and session.

    A cleared one stays, unseen, so that a retry of what told it does not tell it again. Of an
    e-mail whose `email_state` is 'sending' nobody knows more: whoever claimed it is still at it or
    died; null is one that nobody has looked at.
    """

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    type: str
    category: str
    title: str
    message: str
    action_url: str | None = None
    session_id: UUID | None = Field(
        default=None, foreign_key="trading_sessions.id", ondelete="CASCADE", index=True
    )
    result_id: UUID | None = Field(
        default=None, foreign_key="test_results.id", ondelete="CASCADE", index=True
    )
    is_read: bool = Field(default=False, sa_column_kwargs=default("false"))
    read_at: OptionalTimestamp = None
    cleared_at: OptionalTimestamp = None
    email_state: str | None = None
    emailed_at: OptionalTimestamp = None
    dedup_key: str | None = None


class Notification(NotificationFields, table=True):
    """A message in the user's inbox."""

    __tablename__ = "notifications"
    __table_args__ = (
        one_of("type", "info", "success", "warning", "error"),
        one_of("email_state", "sending", "sent", "not_sent", "refused"),
        Index(
            "uq_notifications_dedup",
            "user_id",
            "category",
            "session_id",
            "dedup_key",
            unique=True,
            postgresql_where=text("dedup_key IS NOT NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_notifications_user_id_created_at", "user_id", "created_at"),
        Index(
            "ix_notifications_unread",
            "user_id",
            postgresql_where=text("NOT is_read AND cleared_at IS NULL"),
        ),
    )

    created_at: StampedByDatabase = None


class NewNotification(NotificationFields):
    """A message to be stored."""


class NotificationRecord(NotificationFields):
    """A notification as read."""

    created_at: datetime


class ActivityFields(Base):
    """One line of the user's history; it keeps the agent's name when the agent is gone."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    activity_type: str
    agent_id: UUID | None = Field(
        default=None, foreign_key="agents.id", ondelete="SET NULL", index=True
    )
    agent_name: str | None = None
    session_id: UUID | None = Field(
        default=None, foreign_key="trading_sessions.id", ondelete="CASCADE", index=True
    )
    result_id: UUID | None = Field(
        default=None, foreign_key="test_results.id", ondelete="CASCADE", index=True
    )
    description: str
    pnl: OptionalPercent = None
    # A model class cannot have an attribute `metadata`; the column has that name.
    details: dict[str, Any] = Field(
        default_factory=dict,
        sa_type=JSONB,
        sa_column_kwargs={"name": "metadata", "server_default": text("'{}'")},
    )
    dedup_key: str | None = None


class ActivityLog(ActivityFields, table=True):
    """What the user and the user's tests did."""

    __tablename__ = "activity_log"
    __table_args__ = (
        one_of(
            "activity_type",
            "test_started",
            "test_completed",
            "test_failed",
            "agent_created",
            "agent_updated",
            "agent_deleted",
            "certificate_generated",
        ),
        Index(
            "uq_activity_log_dedup",
            "user_id",
            "activity_type",
            "session_id",
            "dedup_key",
            unique=True,
            postgresql_where=text("dedup_key IS NOT NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_activity_log_user_id_created_at", "user_id", "created_at"),
    )

    created_at: StampedByDatabase = None


class NewActivity(ActivityFields):
    """A line of history to be stored."""


class ActivityRecord(ActivityFields):
    """A line of history as read."""

    created_at: datetime
