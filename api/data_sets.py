"""Which data set a test or a chart takes its candles from, and the range that presets mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Self

from api.errors import Invalid, Location
from db.models.candles import DataSetRecord
from trading.candles import Timeframe

ONE_DAY = timedelta(days=1)

# First and last day, both included.
FIXED_PRESETS = MappingProxyType(
    {
        "bull": (date(2023, 10, 1), date(2024, 3, 31)),
        "crash": (date(2022, 11, 1), date(2023, 1, 31)),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """Candles belong to it that open at `start` or later and close by `end`."""

    start: datetime
    end: datetime

    @classmethod
    def of_days(cls, first: date, last: date) -> Self:
        return cls(start=_midnight(first), end=_midnight(last) + ONE_DAY)

    @classmethod
    def newest(cls, data_set: DataSetRecord, timeframe: Timeframe, days: int) -> Self:
        """The last `days` days up to the close of the set's newest candle."""
        end = _end_of(data_set, timeframe)
        return cls(start=end - days * ONE_DAY, end=end)

    @classmethod
    def until_now(cls, timeframe: Timeframe, days: int) -> Self:
        """The last `days` days up to the close of the newest candle, by our clock."""
        length = timeframe.milliseconds
        end_ms = epoch_ms(datetime.now(tz=UTC)) // length * length
        end = datetime.fromtimestamp(end_ms / 1000, tz=UTC)
        return cls(start=end - days * ONE_DAY, end=end)

    @property
    def start_ms(self) -> int:
        return epoch_ms(self.start)

    @property
    def end_ms(self) -> int:
        return epoch_ms(self.end)


def choose_data_set(
    candidates: Sequence[DataSetRecord], timeframe: Timeframe, wanted: TimeRange
) -> DataSetRecord | None:
    """Return the first set that covers the range, else the one with most of it, if any has."""
    if (covering := covering_data_set(candidates, timeframe, wanted)) is not None:
        return covering
    shares = [(_overlap(each, timeframe, wanted), each) for each in candidates]
    touching = [pair for pair in shares if pair[0] > timedelta(0)]
    return max(touching, key=lambda pair: pair[0])[1] if touching else None


def covering_data_set(
    candidates: Sequence[DataSetRecord], timeframe: Timeframe, wanted: TimeRange
) -> DataSetRecord | None:
    """Return the first set that covers the range."""
    span = wanted.end - wanted.start
    covering = (each for each in candidates if _overlap(each, timeframe, wanted) >= span)
    return next(covering, None)


def newest_range(candidates: Sequence[DataSetRecord], timeframe: Timeframe, days: int) -> TimeRange:
    """The last `days` days of the first set that is as long, else of the longest one."""

    def span(data_set: DataSetRecord) -> timedelta:
        if data_set.first_open_time is None:
            return timedelta(0)
        return min(_end_of(data_set, timeframe) - data_set.first_open_time, days * ONE_DAY)

    return TimeRange.newest(max(candidates, key=span), timeframe, days)


def no_candles(location: Location) -> Invalid:
    return Invalid(
        "There are no candles for this asset, timeframe and range.", location, code="NO_CANDLES"
    )


def epoch_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _overlap(data_set: DataSetRecord, timeframe: Timeframe, wanted: TimeRange) -> timedelta:
    if data_set.first_open_time is None:
        return timedelta(0)
    first = max(data_set.first_open_time, wanted.start)
    return min(_end_of(data_set, timeframe), wanted.end) - first


def _end_of(data_set: DataSetRecord, timeframe: Timeframe) -> datetime:
    last = data_set.last_open_time or datetime.min.replace(tzinfo=UTC)
    return last + timedelta(milliseconds=timeframe.milliseconds)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
