"""Agents and their immutable versions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import Base, OptionalPercent, StampedByDatabase, default, one_of


class AgentFields(Base):
    """An agent's standing data and the statistics of its results (percentages)."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    api_key_id: UUID | None = Field(
        default=None, foreign_key="api_keys.id", ondelete="SET NULL", index=True
    )
    name: str
    mode: str
    current_version: int = Field(default=1, sa_column_kwargs=default("1"))
    is_archived: bool = Field(default=False, sa_column_kwargs=default("false"))
    tests_run: int = Field(default=0, sa_column_kwargs=default("0"))
    best_pnl: OptionalPercent = None
    total_profitable_tests: int = Field(default=0, sa_column_kwargs=default("0"))
    avg_win_rate: OptionalPercent = None
    avg_drawdown: OptionalPercent = None


class Agent(AgentFields, table=True):
    """A user's trader; statistics are kept by the transaction that inserts a result."""

    __tablename__ = "agents"
    __table_args__ = (
        one_of("mode", "monk", "omni"),
        Index(
            "uq_agents_name_living",
            "user_id",
            "name",
            unique=True,
            postgresql_where=text("NOT is_archived"),
        ),
        Index("ix_agents_user_id_created_at", "user_id", "created_at"),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class AgentVersionFields(Base):
    """What decides how an agent trades; `content_hash` is over all of it."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    agent_id: UUID = Field(foreign_key="agents.id", ondelete="CASCADE")
    version: int
    mode: str
    model: str
    indicators: list[str] = Field(sa_type=ARRAY(Text))
    custom_indicators: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs=default("'[]'")
    )
    strategy_prompt: str
    content_hash: str


class AgentVersion(AgentVersionFields, table=True):
    """Inserted, never updated: a running test keeps the version it started with."""

    __tablename__ = "agent_versions"
    __table_args__ = (one_of("mode", "monk", "omni"), UniqueConstraint("agent_id", "version"))

    created_at: StampedByDatabase = None


class AgentVersionRecord(AgentVersionFields):
    """A version as read."""

    created_at: datetime


class AgentOnlyRecord(AgentFields):
    """An agent as read, without the content of its versions."""

    created_at: datetime
    updated_at: datetime


class AgentRecord(AgentFields):
    """An agent with the content of its current version."""

    agent_version_id: UUID
    model: str
    indicators: list[str]
    custom_indicators: list[dict[str, Any]]
    strategy_prompt: str
    content_hash: str
    api_key_prefix: str | None
    created_at: datetime
    updated_at: datetime
