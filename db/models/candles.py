"""Data sets and the candles in them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import TIMESTAMP, TSTZMULTIRANGE
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import Amount, Base, OptionalTimestamp, StampedByDatabase, check, default

# What stands for the fingerprint of a set that grows: there is one of each kind for a series.
# The one is followed by forward tests, the other keeps what was fetched of the past.
LIVE = "live"
HISTORY = "history"


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
    """A set that a session used never changes; one that grows does so where no session looks.

    `covered` are the times that were fetched for a history: what is no candle there is a gap.
    """

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

    covered: Any = Field(
        default=None,
        sa_type=TSTZMULTIRANGE,
        nullable=False,
        sa_column_kwargs=default("'{}'::tstzmultirange"),
    )
    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class DataSetRecord(DataSetFields):
    """A data set as read; of a history, one stretch that was fetched as a whole."""

    created_at: datetime

    @property
    def is_history(self) -> bool:
        return self.content_sha256 == HISTORY

    @property
    def grows(self) -> bool:
        return self.content_sha256 in {LIVE, HISTORY}


class WatchCandle(Base, table=True):
    """One minute by which the positions in an asset were watched, as it was seen last."""

    __tablename__ = "watch_candles"
    __table_args__ = (
        check(
            "prices",
            "low > 0 AND low <= least(open, close) AND high >= greatest(open, close)"
            " AND high < 'Infinity'",
        ),
    )

    source: str = Field(primary_key=True)
    asset: str = Field(primary_key=True)
    minute: datetime = Field(sa_type=TIMESTAMP(timezone=True), primary_key=True)
    open: Amount
    high: Amount
    low: Amount
    close: Amount


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
