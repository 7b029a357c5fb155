"""Answers kept for a day, so that a repeated request is answered and not done again."""

from uuid import UUID

from sqlmodel import Field

from db.models.columns import Base, OptionalJson, StampedByDatabase, Timestamp


class IdempotencyFields(Base):
    """A claimed key; `response` is null until the first request has answered."""

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", primary_key=True)
    key: str = Field(primary_key=True)
    request_hash: str
    status_code: int | None = None
    response: OptionalJson = None
    expires_at: Timestamp = Field(index=True)


class IdempotencyKey(IdempotencyFields, table=True):
    """The key a client sent with a request that starts something."""

    __tablename__ = "idempotency_keys"

    created_at: StampedByDatabase = None


class IdempotencyRecord(IdempotencyFields):
    """A claimed key as read."""
