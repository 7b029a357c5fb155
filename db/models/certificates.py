"""Certificates: what was signed of a result, and where its files are."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.models.columns import (
    Base,
    Json,
    OptionalAmount,
    OptionalPercent,
    OptionalTimestamp,
    Percent,
    StampedByDatabase,
    Timestamp,
    default,
    one_of,
)


class CertificateFields(Base):
    """A certificate as it was issued; what lists show is repeated from `canonical`.

    `equity` are points of time (epoch ms) and value, for drawing. Keys are those of the object
    storage.
    """

    id: UUID = Field(primary_key=True)
    result_id: UUID = Field(foreign_key="test_results.id", ondelete="CASCADE", unique=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    verification_code: str = Field(unique=True)
    agent_name: str
    agent_version: int
    model: str
    mode: str
    test_type: str
    asset: str
    timeframe: str
    period_start: Timestamp
    period_end: Timestamp
    pnl_pct: Percent
    win_rate: OptionalPercent = None
    total_trades: int
    max_drawdown_pct: Percent
    sharpe_ratio: OptionalAmount = None
    seal: str
    share_url: str
    pdf_key: str
    image_key: str
    qr_key: str
    bundle_key: str
    includes_reasoning: bool
    equity: list[list[Any]] = Field(sa_type=JSONB)
    engine_version: str
    canonical: Json
    canonical_sha256: str
    signature: str
    public_key_id: str
    trace_sha256: str
    issued_at: Timestamp


class Certificate(CertificateFields, table=True):
    """A certificate. Its owner reads it; anybody who has its code does, through a function."""

    __tablename__ = "certificates"
    __table_args__ = (
        one_of("mode", "monk", "omni"),
        one_of("test_type", "backtest", "forward"),
        one_of("seal", "full", "own_data", "simulated"),
    )

    view_count: int = Field(default=0, sa_column_kwargs=default("0"))
    revoked_at: OptionalTimestamp = None
    revoked_reason: str | None = None
    created_at: StampedByDatabase = None


class NewCertificate(CertificateFields):
    """A certificate to be stored; `id` is a uuid5 of its result."""


class CertificateRecord(CertificateFields):
    """A certificate as read; what JSON columns hold is whoever verifies it to say."""

    canonical: Any
    equity: Any
    mode: Literal["monk", "omni"]
    test_type: Literal["backtest", "forward"]
    seal: Literal["full", "own_data", "simulated"]
    view_count: int
    revoked_at: datetime | None
    revoked_reason: str | None
    created_at: datetime
