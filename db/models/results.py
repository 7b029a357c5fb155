"""Results of finished tests."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Computed, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.models.columns import (
    Amount,
    AmountType,
    Base,
    Json,
    OptionalAmount,
    OptionalPercent,
    Percent,
    StampedByDatabase,
    Timestamp,
    check,
    default,
    one_of,
)


class ResultSummary(Base):
    """What lists show of a result; `max_drawdown_pct` is a magnitude, the smaller the better."""

    id: UUID = Field(primary_key=True)
    session_id: UUID = Field(foreign_key="trading_sessions.id", unique=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    agent_id: UUID | None = Field(default=None, foreign_key="agents.id", ondelete="SET NULL")
    agent_version_id: UUID | None = Field(
        default=None, foreign_key="agent_versions.id", ondelete="SET NULL", index=True
    )
    agent_name: str
    model: str
    type: str
    asset: str
    mode: str
    timeframe: str
    start_date: Timestamp
    end_date: Timestamp
    duration_seconds: Amount
    total_trades: int
    winning_trades: int
    losing_trades: int
    total_pnl_amount: Amount
    total_pnl_pct: Percent
    win_rate: OptionalPercent = None
    max_drawdown_pct: Percent
    sharpe_ratio: OptionalAmount = None
    profit_factor: OptionalAmount = None


class ResultFields(ResultSummary):
    """A whole result; what no list filters or sorts by is in `metrics` and `config`."""

    starting_capital: Amount
    ending_capital: Amount
    avg_trade_pnl: OptionalAmount = None
    best_trade_pnl: OptionalAmount = None
    worst_trade_pnl: OptionalAmount = None
    avg_holding_seconds: OptionalAmount = None
    gross_pnl: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    fees: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    slippage_cost: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    cost_usd: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    tokens: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs=default("0"))
    metrics: Json
    config: Json
    equity_curve: list[dict[str, Any]] = Field(sa_type=JSONB)
    buy_and_hold_curve: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs=default("'[]'")
    )
    total_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    gaps: int = Field(default=0, sa_column_kwargs=default("0"))
    ambiguous_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    optimistic_pnl_pct: OptionalPercent = None
    missed_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    paused_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    late_decisions: int = Field(default=0, sa_column_kwargs=default("0"))
    invalid_replies: int = Field(default=0, sa_column_kwargs=default("0"))
    possibly_paid_twice: int = Field(default=0, sa_column_kwargs=default("0"))
    blind: bool = Field(default=False, sa_column_kwargs=default("false"))
    low_sample: bool = Field(default=False, sa_column_kwargs=default("false"))
    open_position_at_end: bool = Field(default=False, sa_column_kwargs=default("false"))
    end_reason: str | None = None
    ai_summary: str | None = None
    data_source: str | None = None
    data_fingerprint: str | None = None
    model_source: str | None = None


class TestResult(ResultFields, table=True):
    """The outcome of a session; it outlives its agent."""

    __test__ = False  # keeps pytest from collecting a class of this name
    __tablename__ = "test_results"
    __table_args__ = (
        one_of("type", "backtest", "forward"),
        one_of("mode", "monk", "omni"),
        one_of("model_source", "openrouter", "simulated"),
        check("max_drawdown_pct", "max_drawdown_pct >= 0"),
        Index("ix_test_results_user_id_created_at", "user_id", "created_at", "id"),
        Index("ix_test_results_agent_id_created_at", "agent_id", "created_at"),
    )

    is_profitable: bool | None = Field(
        default=None,
        sa_type=Boolean,
        nullable=False,
        sa_column_args=[Computed("total_pnl_pct >= 0 AND total_trades > 0", persisted=True)],
    )
    created_at: StampedByDatabase = None


class NewResult(ResultFields):
    """A result to be stored; `id` is a uuid5 of its session."""


class ResultListed(ResultSummary):
    """A result as listed."""

    has_certificate: bool
    is_profitable: bool
    created_at: datetime


class ResultRecord(ResultFields):
    """A result as read."""

    certificate_id: UUID | None = None
    is_profitable: bool
    created_at: datetime
