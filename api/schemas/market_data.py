"""Assets, timeframes, candles and indicators."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field

from api.schemas.agents import CustomIndicatorBody, Identifier
from api.schemas.arena import Asset, Moment, TimeframeName
from api.schemas.base import Filters, Shape, Text, split_words
from db.models.candles import DataSetRecord
from trading.candles import Candle

MAX_CANDLES = 5_000


Identifiers = Annotated[
    list[Identifier],
    BeforeValidator(split_words),
    Field(min_length=1, max_length=40, examples=[["rsi_14", "macd"]]),
]


class AssetOut(Shape):
    id: str = Field(examples=["btc-usdt"])
    name: str = Field(examples=["BTC/USDT"])
    icon: str
    available: bool


class AssetsAnswer(Shape):
    assets: list[AssetOut]


class TimeframeOut(Shape):
    id: str = Field(examples=["1h"])
    name: str = Field(examples=["1 hour"])
    minutes: int


class TimeframesAnswer(Shape):
    timeframes: list[TimeframeOut]


class DatePresetOut(Shape):
    """The moving presets end at the newest closed candle, so they have no fixed dates."""

    id: str
    name: str
    description: str
    days: int | None
    start_date: str | None
    end_date: str | None


class PlaybackSpeedOut(Shape):
    id: str
    name: str
    ms: int


class PresetsAnswer(Shape):
    date_presets: list[DatePresetOut]
    playback_speeds: list[PlaybackSpeedOut]


class CandleSpanQuery(Filters):
    """Without `start`, the newest candles before `end`; with it, the first ones after it."""

    asset: Asset
    timeframe: TimeframeName
    start: Moment | None = None
    end: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_CANDLES)] = 1_000
    data_source: Annotated[Text, Field(min_length=1, max_length=200)] | None = None


class IndicatorsQuery(CandleSpanQuery):
    indicators: Identifiers


class IndicatorsBody(IndicatorsQuery):
    custom_indicators: list[CustomIndicatorBody] = Field(default_factory=list, max_length=10)


class CandleOut(Shape):
    time: int = Field(description="The open, in epoch milliseconds.")
    open: float
    high: float
    low: float
    close: float
    volume: float

    @classmethod
    def of(cls, candle: Candle) -> Self:
        return cls(
            time=candle.open_time,
            open=candle.open,
            high=candle.high,
            low=candle.low,
            close=candle.close,
            volume=candle.volume,
        )


class CandlesAnswer(Shape):
    candles: list[CandleOut]
    count: int


class IndicatorPoint(Shape):
    """`time`, and each value under its own name; null where it is not yet defined."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    time: int


class IndicatorsAnswer(Shape):
    data: list[IndicatorPoint]


class IndicatorEntry(Shape):
    model_config = ConfigDict(extra="allow")

    id: str
    name: str
    values: list[str]
    min_history: int
    params: Any


class DataSetOut(Shape):
    id: UUID
    asset: str
    timeframe: str
    source: str
    candle_count: int
    gaps: int
    first_open_time: datetime | None
    last_open_time: datetime | None
    content_sha256: str

    @classmethod
    def of(cls, data_set: DataSetRecord) -> Self:
        return cls.model_validate(data_set)


class ImportAnswer(Shape):
    data_set: DataSetOut
    message: str
