"""Users, as they are shown to themselves."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from api.schemas.arena import Asset
from api.schemas.base import Finite, Flag, RequestBody, Shape, Text
from trading.candles import Timeframe
from workflows.policies import Speed


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("must be an IANA time zone such as Europe/Berlin")
    return name


def _timeframe(name: str) -> str:
    return Timeframe.parse(name).value


Theme = Literal["dark", "light", "system"]
AccentColor = Literal["cyan", "purple", "green", "amber"]
Percentage = Annotated[Finite, Field(ge=0, le=100)]


class UserOut(Shape):
    id: UUID
    clerk_id: str = Field(examples=["user_2aBcDeFgHiJk"])
    email: str | None
    first_name: str | None
    last_name: str | None
    username: str | None
    image_url: str | None
    timezone: str = Field(examples=["UTC"])
    plan: str = Field(examples=["free"])
    created_at: datetime


class UserAnswer(Shape):
    user: UserOut


class SyncAnswer(UserAnswer):
    message: str = Field(examples=["User created", "User updated"])


class UserChanges(RequestBody):
    """Only what is named is changed."""

    timezone: Annotated[str, AfterValidator(_known_zone)] | None = None
    first_name: Annotated[Text, Field(max_length=100)] | None = None
    last_name: Annotated[Text, Field(max_length=100)] | None = None
    username: Annotated[Text, Field(min_length=1, max_length=100)] | None = None


class EmailChoices(Shape):
    """Of what the user wants to hear by e-mail."""

    test_completed: bool
    trade_executed: bool
    daily_summary: bool
    stop_loss_hit: bool
    marketing: bool


class InappChoices(Shape):
    show_toasts: bool
    sound_effects: bool
    desktop_notifications: bool


class SettingsOut(Shape):
    """Preferences, and the limits that a test copies when it starts."""

    theme: Theme
    accent_color: AccentColor
    sidebar_collapsed: bool
    chart_grid_lines: bool
    chart_crosshair: bool
    chart_candle_colors: str = Field(examples=["green-red"])
    email_notifications: EmailChoices
    inapp_notifications: InappChoices
    default_asset: str = Field(examples=["BTC/USDT"])
    default_timeframe: str = Field(examples=["1h"])
    default_capital: float
    default_playback_speed: Speed
    safety_mode_default: bool
    allow_leverage_default: bool
    max_position_size_pct: float
    max_leverage: int
    max_loss_per_trade_pct: float
    max_daily_loss_pct: float
    max_total_drawdown_pct: float


class SettingsAnswer(Shape):
    settings: SettingsOut


class EmailChanges(RequestBody):
    test_completed: Flag | None = None
    trade_executed: Flag | None = None
    daily_summary: Flag | None = None
    stop_loss_hit: Flag | None = None
    marketing: Flag | None = None


class InappChanges(RequestBody):
    show_toasts: Flag | None = None
    sound_effects: Flag | None = None
    desktop_notifications: Flag | None = None


class SettingsChanges(RequestBody):
    """Only what is named is changed, within the groups too; null changes nothing."""

    theme: Theme | None = None
    accent_color: AccentColor | None = None
    sidebar_collapsed: Flag | None = None
    chart_grid_lines: Flag | None = None
    chart_crosshair: Flag | None = None
    chart_candle_colors: Annotated[Text, Field(min_length=1, max_length=50)] | None = None
    email_notifications: EmailChanges | None = None
    inapp_notifications: InappChanges | None = None
    default_asset: Asset | None = None
    default_timeframe: Annotated[Text, AfterValidator(_timeframe)] | None = None
    default_capital: Annotated[Finite, Field(ge=100, le=1_000_000)] | None = None
    default_playback_speed: Speed | None = None
    safety_mode_default: Flag | None = None
    allow_leverage_default: Flag | None = None
    max_position_size_pct: Annotated[Finite, Field(ge=1, le=100)] | None = None
    max_leverage: Annotated[int, Field(strict=True, ge=1, le=10)] | None = None
    # At 0 no order with a stop could be placed, and every test would pass without a trade.
    max_loss_per_trade_pct: Annotated[Finite, Field(gt=0, le=100)] | None = None
    max_daily_loss_pct: Percentage | None = Field(None, description="0 switches the guard off.")
    max_total_drawdown_pct: Percentage | None = Field(None, description="0 switches the guard off.")
