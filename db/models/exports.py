"""Files with what an account holds, made when their user asks for one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import (
    Base,
    Json,
    OptionalTimestamp,
    PercentType,
    StampedByDatabase,
    default,
    one_of,
)

ExportFormat = Literal["zip", "json"]
AccountPart = Literal[
    "agent_configs", "test_results", "trade_history", "reasoning_traces", "account_settings"
]
ACCOUNT_PARTS: Sequence[AccountPart] = (
    "agent_configs",
    "test_results",
    "trade_history",
    "reasoning_traces",
    "account_settings",
)


class ExportFields(Base):
    """A file that was asked for; `object_key` is null before it is there and once it is cleared."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    workflow_id: str = Field(unique=True)
    include: Json
    format: str
    status: str = Field(default="processing", sa_column_kwargs=default("'processing'"))
    progress_pct: float = Field(sa_type=PercentType, default=0.0, sa_column_kwargs=default("0"))
    object_key: str | None = Field(default=None, unique=True)
    size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    expires_at: OptionalTimestamp = None
    error: str | None = None


class Export(ExportFields, table=True):
    """One export of a user; at most one is under way."""

    __tablename__ = "exports"
    __table_args__ = (
        one_of("format", "zip", "json"),
        one_of("status", "processing", "ready", "failed", "expired"),
        Index(
            "uq_exports_processing",
            "user_id",
            unique=True,
            postgresql_where=text("status = 'processing'"),
        ),
        Index("ix_exports_user_id_created_at", "user_id", "created_at"),
        Index(
            "ix_exports_kept",
            "expires_at",
            postgresql_where=text("status <> 'processing' AND object_key IS NOT NULL"),
        ),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class NewExport(ExportFields):
    """An export to be stored."""


class ExportRecord(ExportFields):
    """An export as read."""

    created_at: datetime
    updated_at: datetime
