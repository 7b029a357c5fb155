"""The users' own keys to a model provider, stored encrypted."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, text
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import Base, OptionalTimestamp, StampedByDatabase, default, one_of


class ApiKeyFields(Base):
    """What may be shown of a key."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    provider: str = Field(default="openrouter", sa_column_kwargs=default("'openrouter'"))
    label: str | None = None
    key_prefix: str
    is_default: bool = Field(default=False, sa_column_kwargs=default("false"))
    status: str = Field(default="untested", sa_column_kwargs=default("'untested'"))
    last_used_at: OptionalTimestamp = None
    last_validated_at: OptionalTimestamp = None


class ApiKey(ApiKeyFields, table=True):
    """A key, of which only the ciphertext is here."""

    __tablename__ = "api_keys"
    __table_args__ = (
        one_of("provider", "openrouter"),
        one_of("status", "valid", "invalid", "untested"),
        Index("uq_api_keys_default", "user_id", unique=True, postgresql_where=text("is_default")),
    )

    encrypted_key: str
    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class ApiKeyRecord(ApiKeyFields):
    """A key as listed, without the ciphertext, with the names of the living agents that use it."""

    used_by: list[str]
    created_at: datetime
