"""Decisions of the model, and the paid calls they came from."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import (
    AmountType,
    Base,
    Json,
    OptionalAmount,
    OptionalJson,
    OptionalPercent,
    OptionalTimestamp,
    StampedByDatabase,
    Timestamp,
    default,
    one_of,
)


class DecisionFields(Base):
    """What the model saw, said and cost at one candle; the words are the model's own."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    session_id: UUID = Field(foreign_key="trading_sessions.id", ondelete="CASCADE")
    candle_number: int
    timestamp: Timestamp
    candle_data: Json
    indicator_values: Json
    thought_type: str = Field(default="decision", sa_column_kwargs=default("'decision'"))
    reasoning: str
    decision: str
    confidence: OptionalPercent = None
    order_data: OptionalJson = None
    overrides: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs=default("'[]'")
    )
    trade_id: UUID | None = None
    prompt_hash: str
    model_requested: str
    model_used: str | None = None
    tokens_prompt: int = Field(default=0, sa_column_kwargs=default("0"))
    tokens_completion: int = Field(default=0, sa_column_kwargs=default("0"))
    cost_usd: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    latency_ms: int | None = None
    attempts: int = Field(default=1, sa_column_kwargs=default("1"))
    invalid_reply: bool = Field(default=False, sa_column_kwargs=default("false"))
    live_price: OptionalAmount = None
    late: bool = Field(default=False, sa_column_kwargs=default("false"))


class Decision(DecisionFields, table=True):
    """A recorded decision, which is never bought again."""

    __tablename__ = "decisions"
    __table_args__ = (
        UniqueConstraint("session_id", "candle_number"),
        one_of("thought_type", "analysis", "decision", "execution"),
        one_of("decision", "long", "short", "hold", "close"),
    )

    prompt_text: bytes | None = None
    created_at: StampedByDatabase = None


class DecisionRecord(DecisionFields):
    """A decision as read, without its prompt."""

    created_at: datetime


class ModelCall(Base, table=True):
    """One request to the model provider: `started` before it is sent, `done` with the raw reply.

    `refused` when the provider answered with an error, so that nothing was bought. A call that is
    started again while it was still `started` was possibly paid for twice.
    """

    __tablename__ = "model_calls"
    __table_args__ = (
        UniqueConstraint("session_id", "candle_number", "call_no"),
        one_of("status", "started", "refused", "done"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    session_id: UUID = Field(foreign_key="trading_sessions.id", ondelete="CASCADE")
    candle_number: int
    call_no: int
    epoch: int = Field(default=0, sa_column_kwargs=default("0"))
    status: str = Field(default="started", sa_column_kwargs=default("'started'"))
    attempts: int = Field(default=1, sa_column_kwargs=default("1"))
    request_hash: str | None = None
    raw_reply: str | None = None
    usage: OptionalJson = None
    cost_usd: OptionalAmount = None
    generation_id: str | None = None
    model_used: str | None = None
    latency_ms: int | None = None
    started_at: StampedByDatabase = None
    finished_at: OptionalTimestamp = None
    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None
