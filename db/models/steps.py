"""Steps: one row for each executed candle, decision or control, with its durable events in it."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.models.columns import (
    Base,
    OptionalAmount,
    OptionalJson,
    OptionalTimestamp,
    StampedByDatabase,
    Timestamp,
    default,
    one_of,
)


class Step(Base, table=True):
    """A step; `state` is on the last row of each transaction only, its floats as shortest repr.

    Numbered by the session row, so that `(session_id, last_seq)` orders a client's replay.
    """

    __tablename__ = "steps"
    __table_args__ = (
        one_of("phase", "step", "decision", "control"),
        Index("uq_steps_session_id_last_seq", "session_id", "last_seq", unique=True),
        Index(
            "uq_steps_session_id_control_id",
            "session_id",
            "control_id",
            unique=True,
            postgresql_where=text("control_id IS NOT NULL"),
        ),
    )

    session_id: UUID = Field(
        foreign_key="trading_sessions.id", ondelete="CASCADE", primary_key=True
    )
    candle_number: int = Field(primary_key=True)
    phase: str = Field(primary_key=True)
    ordinal: int = Field(default=0, primary_key=True, sa_column_kwargs=default("0"))
    control_id: str | None = None
    open_time: OptionalTimestamp = None
    equity: OptionalAmount = None
    drawdown: OptionalAmount = None
    first_seq: int = Field(sa_type=BigInteger)
    last_seq: int = Field(sa_type=BigInteger)
    happened_at: Timestamp
    stats: OptionalJson = None
    events: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs=default("'[]'")
    )
    state: OptionalJson = None
    created_at: StampedByDatabase = None
