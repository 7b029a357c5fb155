"""Data sets and the candles in them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import Amount, Base, OptionalTimestamp, StampedByDatabase, check, default


class DataSetFields(Base):
    """A series of one asset and timeframe from one source; no `user_id` means shared."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE")
    asset: str
    timeframe: str
    source: str
    content_sha256: str
    first_open_time: OptionalTimestamp = None
    last_open_time: OptionalTimestamp = None
    candle_count: int = Field(default=0, sa_column_kwargs=default("0"))
    gaps: int = Field(default=0, sa_column_kwargs=default("0"))


class DataSet(DataSetFields, table=True):
    """A set that a session used never changes."""

    __tablename__ = "data_sets"
    __table_args__ = (
        Index(
            "uq_data_sets_content",
            "user_id",
            "asset",
            "timeframe",
            "source",
            "content_sha256",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_data_sets_asset_timeframe", "asset", "timeframe"),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class DataSetRecord(DataSetFields):
    """A data set as read."""

    created_at: datetime


class StoredCandle(Base, table=True):
    """One candle of a data set."""

    __tablename__ = "candles"
    __table_args__ = (
        # NUMERIC has NaN and infinity, and both are greater than every number.
        check(
            "prices",
            "low > 0 AND low <= least(open, close) AND high >= greatest(open, close)"
            " AND high < 'Infinity'",
        ),
        check("volume", "volume >= 0 AND volume < 'Infinity'"),
    )

    data_set_id: UUID = Field(foreign_key="data_sets.id", ondelete="CASCADE", primary_key=True)
    open_time: datetime = Field(sa_type=TIMESTAMP(timezone=True), primary_key=True)
    open: Amount
    high: Amount
    low: Amount
    close: Amount
    volume: Amount
