"""Trades of a session; the exit columns are null while the position is open."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.models.columns import (
    Amount,
    AmountType,
    Base,
    OptionalAmount,
    OptionalPercent,
    OptionalTimestamp,
    StampedByDatabase,
    Timestamp,
    default,
    one_of,
)


class TradeFields(Base):
    """One position from entry to exit; `id` is a uuid5 of (session, 'trade', number).

    `pnl_amount` is net of both fees, `pnl_pct` net on the margin used. `sighting` is what a forward
    test saw of a forming candle when it filled or ended the position in it.
    """

    id: UUID = Field(primary_key=True)
    session_id: UUID = Field(foreign_key="trading_sessions.id", ondelete="CASCADE")
    trade_number: int
    type: str
    entry_price: Amount
    entry_time: Timestamp
    entry_candle: int
    decided_candle: int
    entry_reasoning: str | None = None
    exit_price: OptionalAmount = None
    exit_time: OptionalTimestamp = None
    exit_candle: int | None = None
    exit_decided_candle: int | None = None
    exit_type: str | None = None
    exit_reasoning: str | None = None
    size: Amount
    leverage: float = Field(sa_type=AmountType, default=1.0, sa_column_kwargs=default("1"))
    margin: Amount
    fees: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    slippage_cost: float = Field(sa_type=AmountType, default=0.0, sa_column_kwargs=default("0"))
    gross_pnl: OptionalAmount = None
    pnl_amount: OptionalAmount = None
    pnl_pct: OptionalPercent = None
    stop_loss: OptionalAmount = None
    take_profit: OptionalAmount = None
    liquidation_price: OptionalAmount = None
    ambiguous: bool = Field(default=False, sa_column_kwargs=default("false"))
    overrides: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs=default("'[]'")
    )
    sighting: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))


class Trade(TradeFields, table=True):
    """A trade, open or closed."""

    __tablename__ = "trades"
    __table_args__ = (
        UniqueConstraint("session_id", "trade_number"),
        one_of("type", "long", "short"),
        one_of(
            "exit_type",
            "take_profit",
            "stop_loss",
            "signal",
            "manual",
            "liquidation",
            "guard",
            "end_of_test",
        ),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class TradeRecord(TradeFields):
    """A trade as read."""

    created_at: datetime
