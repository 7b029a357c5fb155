"""Users and their settings."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from db.identifiers import new_id
from db.models.columns import (
    AmountType,
    Base,
    OptionalTimestamp,
    PercentType,
    StampedByDatabase,
    check,
    default,
    one_of,
)

EMAIL_DEFAULTS = {
    "test_completed": True,
    "trade_executed": False,
    "daily_summary": False,
    "stop_loss_hit": True,
    "marketing": False,
}
INAPP_DEFAULTS = {"show_toasts": True, "sound_effects": False, "desktop_notifications": False}


class UserFields(Base):
    """What is known of a user; email and username stay null when somebody else holds them."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    clerk_id: str = Field(unique=True)
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = Field(default=None, unique=True)
    image_url: str | None = None
    timezone: str = Field(default="UTC", sa_column_kwargs=default("'UTC'"))
    plan: str = Field(default="free", sa_column_kwargs=default("'free'"))
    is_active: bool = Field(default=True, sa_column_kwargs=default("true"))
    # What the identity provider said of the user is as of then.
    clerk_updated_at: OptionalTimestamp = None


class User(UserFields, table=True):
    """A person who signs in through the identity provider."""

    __tablename__ = "users"
    __table_args__ = (
        one_of("plan", "free", "pro", "enterprise"),
        Index("uq_users_email_active", "email", unique=True, postgresql_where=text("is_active")),
    )

    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class UserRecord(UserFields):
    """A user as read."""

    created_at: datetime
    updated_at: datetime


class UserSettingsFields(Base):
    """Preferences and risk limits; a test copies the limits when it starts."""

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", unique=True)
    theme: str = Field(default="dark", sa_column_kwargs=default("'dark'"))
    accent_color: str = Field(default="cyan", sa_column_kwargs=default("'cyan'"))
    sidebar_collapsed: bool = Field(default=False, sa_column_kwargs=default("false"))
    chart_grid_lines: bool = Field(default=True, sa_column_kwargs=default("true"))
    chart_crosshair: bool = Field(default=True, sa_column_kwargs=default("true"))
    chart_candle_colors: str = Field(default="green-red", sa_column_kwargs=default("'green-red'"))
    email_notifications: dict[str, Any] = Field(
        default_factory=lambda: dict(EMAIL_DEFAULTS), sa_type=JSONB
    )
    inapp_notifications: dict[str, Any] = Field(
        default_factory=lambda: dict(INAPP_DEFAULTS), sa_type=JSONB
    )
    default_asset: str = Field(default="BTC/USDT", sa_column_kwargs=default("'BTC/USDT'"))
    default_timeframe: str = Field(default="1h", sa_column_kwargs=default("'1h'"))
    default_capital: float = Field(
        sa_type=AmountType, default=10_000.0, sa_column_kwargs=default("10000")
    )
    default_playback_speed: str = Field(default="normal", sa_column_kwargs=default("'normal'"))
    safety_mode_default: bool = Field(default=True, sa_column_kwargs=default("true"))
    allow_leverage_default: bool = Field(default=False, sa_column_kwargs=default("false"))
    max_position_size_pct: float = Field(
        sa_type=PercentType, default=50.0, sa_column_kwargs=default("50")
    )
    max_leverage: int = Field(default=5, sa_column_kwargs=default("5"))
    max_loss_per_trade_pct: float = Field(
        sa_type=PercentType, default=5.0, sa_column_kwargs=default("5")
    )
    max_daily_loss_pct: float = Field(
        sa_type=PercentType, default=10.0, sa_column_kwargs=default("10")
    )
    max_total_drawdown_pct: float = Field(
        sa_type=PercentType, default=20.0, sa_column_kwargs=default("20")
    )


class UserSettings(UserSettingsFields, table=True):
    """One row per user, made with the defaults when it is first read."""

    __tablename__ = "user_settings"
    __table_args__ = (
        one_of("theme", "dark", "light", "system"),
        one_of("accent_color", "cyan", "purple", "green", "amber"),
        one_of("default_playback_speed", "slow", "normal", "fast", "instant"),
        check("max_position_size_pct", "max_position_size_pct BETWEEN 1 AND 100"),
        check("max_leverage", "max_leverage BETWEEN 1 AND 10"),
        check("max_loss_per_trade_pct", "max_loss_per_trade_pct BETWEEN 0 AND 100"),
        check("max_daily_loss_pct", "max_daily_loss_pct BETWEEN 0 AND 100"),
        check("max_total_drawdown_pct", "max_total_drawdown_pct BETWEEN 0 AND 100"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: StampedByDatabase = None
    updated_at: StampedByDatabase = None


class UserSettingsRecord(UserSettingsFields):
    """Settings as read."""

    updated_at: datetime
