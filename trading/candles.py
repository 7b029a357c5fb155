"""Candles: what the market did in one span of time, alone and as a series of columns."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trading.errors import InvalidCandles, UnknownAsset, UnknownTimeframe

MILLISECONDS_PER_MINUTE = 60_000

_ASSET = re.compile(r"([A-Za-z0-9]{1,20})[-/]([A-Za-z0-9]{1,20})")
_MINUTES_PER_UNIT = {"m": 1, "h": 60, "d": 1440}
_UNIT_NAMES = {"m": "minute", "h": "hour", "d": "day"}
_PRICES = ("open", "high", "low", "close")


class Timeframe(StrEnum):
    """The span of a candle. Candles open on multiples of it, counted from the UTC epoch."""

    MINUTE_1 = "1m"
    MINUTES_5 = "5m"
    MINUTES_15 = "15m"
    MINUTES_30 = "30m"
    HOUR_1 = "1h"
    HOURS_2 = "2h"
    HOURS_4 = "4h"
    HOURS_6 = "6h"
    HOURS_8 = "8h"
    HOURS_12 = "12h"
    DAY_1 = "1d"

    @property
    def minutes(self) -> int:
        return int(self.value[:-1]) * _MINUTES_PER_UNIT[self.value[-1]]

    @property
    def milliseconds(self) -> int:
        return self.minutes * MILLISECONDS_PER_MINUTE

    @property
    def label(self) -> str:
        """For people: `15 minutes`, `1 hour`."""
        count, unit = int(self.value[:-1]), _UNIT_NAMES[self.value[-1]]
        return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The timeframe a user wrote, in any case. Raises `UnknownTimeframe`."""
        try:
            return cls(text.strip().lower())
        except ValueError:
            known = ", ".join(timeframe.value for timeframe in cls)
            raise UnknownTimeframe(
                f"{text[:20]!r} is not a timeframe; there are {known}."
            ) from None


def parse_asset(text: str) -> str:
    """The asset a user wrote, `btc-usdt` or `BTC/USDT` in any case, as `BTC/USDT`."""
    match = _ASSET.fullmatch(text.strip())
    if match is None:
        raise UnknownAsset(f"{text[:40]!r} is not an asset; write it like BTC/USDT.")
    return "/".join(match.groups()).upper()


def asset_id(asset: str) -> str:
    """The asset as it stands in paths: `btc-usdt`."""
    return parse_asset(asset).replace("/", "-").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candle:
    """One closed candle; `open_time` in epoch milliseconds, UTC."""

    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandleSeries:
    """Candles as read-only columns of one length, oldest first."""

    open_time: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "open_time", _column(self.open_time, np.int64))
        for name in (*_PRICES, "volume"):
            column = _column(getattr(self, name), np.float64)
            if column.shape != self.open_time.shape:
                raise InvalidCandles(
                    f"The column {name} has {column.size} values for {self.open_time.size} times."
                )
            object.__setattr__(self, name, column)

    @classmethod
    def from_candles(cls, candles: Iterable[Candle]) -> Self:
        rows = [(c.open_time, c.open, c.high, c.low, c.close, c.volume) for c in candles]
        return cls.from_rows(rows)

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """From rows of open time, open, high, low, close and volume, as a query returns them."""
        time, *prices, volume = zip(*rows, strict=True) if rows else ((),) * 6
        return cls(
            open_time=np.array(time, dtype=np.int64),
            **{
                name: np.array(column, dtype=np.float64)
                for name, column in zip(_PRICES, prices, strict=True)
            },
            volume=np.array(volume, dtype=np.float64),
        )

    def __len__(self) -> int:
        return int(self.open_time.size)

    def __iter__(self) -> Iterator[Candle]:
        for row in self.rows():
            time, open_, high, low, close, volume = row
            yield Candle(open_time=time, open=open_, high=high, low=low, close=close, volume=volume)

    def candle(self, index: int) -> Candle:
        """The candle at an index, as plain Python numbers."""
        return Candle(
            open_time=int(self.open_time[index]),
            open=float(self.open[index]),
            high=float(self.high[index]),
            low=float(self.low[index]),
            close=float(self.close[index]),
            volume=float(self.volume[index]),
        )

    def rows(self) -> Iterator[tuple[int, float, float, float, float, float]]:
        """Open time, open, high, low, close and volume of each candle."""
        columns = (self.open_time, self.open, self.high, self.low, self.close, self.volume)
        return zip(*(column.tolist() for column in columns), strict=True)

    def slice(self, start: int, stop: int) -> "CandleSeries":
        """The candles of `[start, stop)`, sharing memory."""
        return CandleSeries(
            open_time=self.open_time[start:stop],
            open=self.open[start:stop],
            high=self.high[start:stop],
            low=self.low[start:stop],
            close=self.close[start:stop],
            volume=self.volume[start:stop],
        )

    def followed_by(self, later: "CandleSeries") -> "CandleSeries":
        """These candles and then those."""
        names = ("open_time", *_PRICES, "volume")
        columns = {
            name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in names
        }
        return CandleSeries(**columns)

    def scaled(self, price_factor: float, volume_factor: float) -> "CandleSeries":
        """The same candles in other units of price and volume."""
        return CandleSeries(
            open_time=self.open_time,
            open=self.open * price_factor,
            high=self.high * price_factor,
            low=self.low * price_factor,
            close=self.close * price_factor,
            volume=self.volume * volume_factor,
        )

    def fingerprint(self) -> str:
        """SHA-256 over the canonical rows: the open time, then five numbers of 8 decimals."""
        digest = hashlib.sha256()
        for row in self.rows():
            digest.update(b"%d,%.8f,%.8f,%.8f,%.8f,%.8f\n" % row)
        return digest.hexdigest()

    def gaps(self, timeframe: Timeframe) -> int:
        """How many candles are missing between the first and the last."""
        if not len(self):
            return 0
        span = int(self.open_time[-1] - self.open_time[0])
        return span // timeframe.milliseconds + 1 - len(self)

    def validate(self, timeframe: Timeframe) -> None:
        """Raises `InvalidCandles` for the first candle that is wrong; its `line` is the index."""
        if not len(self):
            raise InvalidCandles("There are no candles.")
        faults = [
            (int(np.argmax(wrong)), rank, reason)
            for rank, (reason, wrong) in enumerate(self._faults(timeframe))
            if wrong.any()
        ]
        if faults:
            index, _, reason = min(faults)
            raise InvalidCandles(f"{reason}.", line=index)

    def _faults(self, timeframe: Timeframe) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Each way a candle can be wrong, with the candles that are; the worst reason first."""
        for name in (*_PRICES, "volume"):
            yield f"The {name} is not a finite number", ~np.isfinite(getattr(self, name))
        for name in _PRICES:
            yield f"The {name} is not a positive price", getattr(self, name) <= 0
        yield "The volume is negative", self.volume < 0
        for name in ("open", "low", "close"):
            yield f"The high is below the {name}", self.high < getattr(self, name)
        for name in ("open", "close"):
            yield f"The low is above the {name}", self.low > getattr(self, name)
        step = np.diff(self.open_time, prepend=self.open_time[:1] - 1)
        yield "The time is that of the candle before", step == 0
        yield "The time is earlier than that of the candle before", step < 0
        off_grid = self.open_time % timeframe.milliseconds != 0
        yield f"The time is not a multiple of {timeframe.label}", off_grid


def _column(values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    column = np.ascontiguousarray(values, dtype=dtype).view()
    if column.ndim != 1:
        raise InvalidCandles(f"A column has {column.ndim} dimensions.")
    column.flags.writeable = False
    return column
