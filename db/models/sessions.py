"""Trading sessions: a user's tests, and where each of them stands."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import (
    Amount,
    AmountType,
    Base,
    Json,
    OptionalAmount,
    OptionalJson,
    OptionalPercent,
    OptionalTimestamp,
    PercentType,
    StampedByDatabase,
    default,
    one_of,
)

# The newest so many days.
MOVING_PRESETS: Mapping[str, int] = MappingProxyType({"7d": 7, "30d": 30, "90d": 90})
UNFINISHED = ("configuring", "initializing", "running", "paused")


class SessionFields(Base):
    """Every column of a session but the database's own timestamps.

    `cursor` counts the candles stepped, `epoch` the runs that have claimed the row (`owner_run_id`
    is the latest), `last_seq` the events numbered so far; a write that does not name the current
    epoch matches no row.
    """

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    agent_id: UUID | None = Field(
        default=None, foreign_key="agents.id", ondelete="SET NULL", index=True
    )
    agent_version_id: UUID | None = Field(
        default=None, foreign_key="agent_versions.id", ondelete="SET NULL", index=True
    )
    agent_name: str
    workflow_id: str = Field(unique=True)
    epoch: int = Field(default=0, sa_column_kwargs=default("0"))
    owner_run_id: str | None = None
    cursor: int = Field(default=0, sa_column_kwargs=default("0"))
    last_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs=default("0"))
    last_event_at: OptionalTimestamp = None
    data_set_id: UUID | None = Field(
        default=None, foreign_key="data_sets.id", ondelete="SET NULL", index=True
    )
    data_source: str | None = None
    data_fingerprint: str | None = None
    model_source: str | None = None
    rules: Json

    type: str
    status: str = Field(default="configuring", sa_column_kwargs=default("'configuring'"))
    mode: str
    asset: str
    timeframe: str
    starting_capital: Amount
    safety_mode: bool = Field(default=True, sa_column_kwargs=default("true"))
    allow_leverage: bool = Field(default=False, sa_column_kwargs=default("false"))
    date_preset: str | None = None
    start_date: OptionalTimestamp = None
    end_date: OptionalTimestamp = None
    playback_speed: str = Field(default="normal", sa_column_kwargs=default("'normal'"))
    decision_mode: str = Field(default="every_candle", sa_column_kwargs=default("'every_candle'"))
    decision_interval_candles: int = Field(default=1, sa_column_kwargs=default("1"))
    first_decision_candle: int = Field(default=0, sa_column_kwargs=default("0"))
    warm_up_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    indicator_readiness_threshold: float = Field(
        sa_type=PercentType, default=0.0, sa_column_kwargs=default("0")
    )
    fee_bps: float = Field(sa_type=AmountType, default=10.0, sa_column_kwargs=default("10"))
    slippage_bps: float = Field(sa_type=AmountType, default=5.0, sa_column_kwargs=default("5"))
    fill_timing: str = Field(default="next_open", sa_column_kwargs=default("'next_open'"))
    intrabar: str = Field(default="pessimistic", sa_column_kwargs=default("'pessimistic'"))
    blind: bool = Field(default=False, sa_column_kwargs=default("false"))
    max_cost_usd: OptionalAmount = None
    ai_summary: bool = Field(default=False, sa_column_kwargs=default("false"))
    email_notifications: bool = Field(default=False, sa_column_kwargs=default("false"))
    auto_stop_on_loss: bool = Field(default=False, sa_column_kwargs=default("false"))
    auto_stop_loss_pct: OptionalPercent = None

    total_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    current_candle: int = Field(default=0, sa_column_kwargs=default("0"))
    current_equity: OptionalAmount = None
    current_pnl_pct: OptionalPercent = None
    max_drawdown_pct: OptionalPercent = None
    elapsed_seconds: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    open_position: OptionalJson = None
    next_candle_at: OptionalTimestamp = None
    missed_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    paused_candles: int = Field(default=0, sa_column_kwargs=default("0"))
    late_decisions: int = Field(default=0, sa_column_kwargs=default("0"))
    invalid_replies: int = Field(default=0, sa_column_kwargs=default("0"))
    possibly_paid_twice: int = Field(default=0, sa_column_kwargs=default("0"))
    cost_usd: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    tokens: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs=default("0"))
    pause_reason: str | None = None
    stop_close_position: bool | None = None
    end_reason: str | None = None
    error: OptionalJson = None
    started_at: OptionalTimestamp = None
    paused_at: OptionalTimestamp = None
    completed_at: OptionalTimestamp = None


class TradingSession(SessionFields, table=True):
    """A test. What changes at every candle is in no index, so that updates stay heap-only."""

    __tablename__ = "trading_sessions"
    __table_args__ = (
        one_of("type", "backtest", "forward"),
        one_of(
            "status",
            "configuring",
            "initializing",
            "running",
            "paused",
            "completed",
            "failed",
            "stopped",
        ),
        one_of("mode", "monk", "omni"),
        one_of("date_preset", "7d", "30d", "90d", "bull", "crash", "custom"),
        one_of("playback_speed", "slow", "normal", "fast", "instant"),
        one_of("decision_mode", "every_candle", "every_n_candles"),
        one_of("fill_timing", "next_open", "close"),
        one_of("intrabar", "pessimistic", "optimistic"),
        one_of("model_source", "openrouter", "simulated"),
        Index("ix_trading_sessions_user_id_status", "user_id", "status"),
        Index(
            "ix_trading_sessions_holding",
            "asset",
            postgresql_where=text("open_position IS NOT NULL AND status IN ('running', 'paused')"),
        ),
        Index(
            "ix_trading_sessions_live",
            "status",
            postgresql_where=text("status IN ('initializing', 'running', 'paused')"),
        ),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class NewSession(SessionFields):
    """A session to be stored."""


class SessionRecord(SessionFields):
    """A session as read."""

    type: Literal["backtest", "forward"]
    created_at: datetime
    updated_at: datetime


class SessionStatus(SessionRecord):
    """A session with what the status endpoint counts beside it."""

    trades_count: int
    trades_won: int
    decisions_count: int
    result_id: UUID | None
