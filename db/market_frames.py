"""Candles of a data set with their indicators, loaded and computed once per process."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from db.engine import Database
from db.repositories.candles import CandleRepository, CandleSpan
from db.repositories.running_sessions import SessionSettings
from trading.candles import Candle, CandleSeries, Timeframe
from trading.indicators import CustomIndicator, compute_indicators, plan_indicators

# 512 MiB: a hundred tests of 50,000 candles with ten indicators each.
CACHE_BYTES = 512 * 1024 * 1024
# The year 9999: the end of a window that has none.
OPEN_END = 253_370_764_800_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameKey:
    """What a frame is made of: a window of a data set, its warm-up, and a set of indicators.

    The window holds the candles with `open_time >= start_ms` that close by `end_ms` (epoch ms).
    """

    data_set_id: UUID
    start_ms: int
    end_ms: int
    timeframe: Timeframe
    warm_up: int
    identifiers: tuple[str, ...]
    custom: tuple[CustomIndicator, ...] = ()
    blind: bool = False

    @classmethod
    def of_session(cls, settings: SessionSettings) -> Self:
        """A forward test's window has no end: its frame grows with the data set."""
        end = settings.end_date
        return cls(
            data_set_id=settings.data_set_id,
            start_ms=int(settings.start_date.timestamp() * 1000),
            end_ms=OPEN_END if end is None else int(end.timestamp() * 1000),
            timeframe=Timeframe.parse(settings.timeframe),
            warm_up=settings.warm_up_candles,
            identifiers=tuple(settings.indicators),
            custom=stored_formulas(settings.custom_indicators),
        )

    def as_blind(self) -> Self:
        return replace(self, blind=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MarketFrame:
    """The candles of a window, without their warm-up, and each indicator's value at each of them.

    `warm_up` candles came before them. In a blind frame prices are multiplied by `price_factor`, so
    that the first close is 100. `source` is what it was made of: all of these, in real prices.
    """

    candles: CandleSeries
    indicators: Mapping[str, NDArray[np.float64]]
    source: CandleSeries
    price_factor: float = 1.0
    warm_up: int = 0

    def __len__(self) -> int:
        return len(self.candles)

    def values(self, index: int) -> dict[str, float | None]:
        """Every indicator at a candle; None where it has no value yet."""
        values = {name: float(column[index]) for name, column in self.indicators.items()}
        return {name: None if value != value else value for name, value in values.items()}  # noqa: PLR0124

    def values_before(self, index: int, length: int) -> dict[str, list[float | None]]:
        """Every indicator at up to `length` candles before a candle, oldest first."""
        values = [self.values(each) for each in range(max(0, index - length), index)]
        return {name: [each[name] for each in values] for name in self.indicators}

    def window(self, stop: int, length: int) -> list[Candle]:
        """Up to `length` candles that end with the one before `stop`."""
        return [self.candles.candle(i) for i in range(max(0, stop - length), stop)]

    def first_ready(self, threshold: float) -> int | None:
        """The first candle at which that share of the values (0 to 1) is known; None for never."""
        if not self.indicators:
            return 0 if len(self) else None
        known = np.mean([np.isfinite(column) for column in self.indicators.values()], axis=0)
        ready = np.flatnonzero(known >= threshold)
        return int(ready[0]) if ready.size else None

    def reaches(self, open_time: int) -> bool:
        """Whether the frame goes up to the candle that opened then, or beyond (epoch ms)."""
        times = self.candles.open_time
        return open_time == 0 or (len(times) > 0 and int(times[-1]) >= open_time)

    @property
    def nbytes(self) -> int:
        return (6 + len(self.indicators)) * 8 * len(self) + 1024


class MarketFrames:
    """Frames by their key, as far as memory allows; a missing one is loaded once for all askers."""

    def __init__(self, database: Database, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._database = database
        self._cache: LRUCache[FrameKey, MarketFrame] = LRUCache(
            cache_bytes, getsizeof=lambda frame: frame.nbytes
        )
        self._loading: dict[FrameKey, asyncio.Lock] = {}

    def cached(self, key: FrameKey, *, until: int = 0, holding: int = 0) -> MarketFrame | None:
        """The frame of `key`, if it is at hand and long enough; see `get`."""
        frame = self._cache.get(key)
        if frame is None or len(frame) < holding or not frame.reaches(until):
            return None
        return frame

    async def get(
        self, user_id: UUID, key: FrameKey, *, until: int = 0, holding: int = 0
    ) -> MarketFrame:
        """Return the frame of `key`, whose data set the user may read.

        A window without an end grows where the frame at hand does not reach the candle that opened
        at `until` (epoch ms), or has fewer than `holding` candles: only what is new is read. What
        was in it stays as it was, since no indicator knows a later candle.
        """
        if (cached := self.cached(key, until=until, holding=holding)) is not None:
            return cached
        async with self._loading.setdefault(key, asyncio.Lock()):
            if (cached := self.cached(key, until=until, holding=holding)) is None:
                cached = await self._load(user_id, key, self._cache.get(key))
                if cached.nbytes <= self._cache.maxsize:
                    self._cache[key] = cached
        self._loading.pop(key, None)
        return cached

    async def _load(self, user_id: UUID, key: FrameKey, shorter: MarketFrame | None) -> MarketFrame:
        async with self._database.for_user(user_id) as session:
            candles = CandleRepository(session)
            if shorter is not None and len(shorter):
                last = int(shorter.candles.open_time[-1])
                more = await candles.load(key.data_set_id, CandleSpan(start_ms=last + 1))
                series, warm_up = shorter.source.followed_by(more), shorter.warm_up
            else:
                series, warm_up = await candles.load_window(
                    key.data_set_id,
                    start_ms=key.start_ms,
                    end_ms=key.end_ms - key.timeframe.milliseconds,
                    warm_up=key.warm_up,
                )
        return await asyncio.to_thread(build_frame, key, series, warm_up)


def stored_formulas(stored: Sequence[Mapping[str, str]]) -> tuple[CustomIndicator, ...]:
    """The formulas of an agent, as its versions keep them."""
    return tuple(CustomIndicator(name=each["name"], formula=each["formula"]) for each in stored)


def build_frame(key: FrameKey, series: CandleSeries, warm_up: int) -> MarketFrame:
    """Compute the indicators over `series`, whose first `warm_up` candles precede the window."""
    source, factor = series, 1.0
    if key.blind:
        series, factor = _blinded(series, warm_up)
    columns = compute_indicators(plan_indicators(key.identifiers, key.custom), series)
    return MarketFrame(
        candles=series.slice(warm_up, len(series)),
        indicators={name: column[warm_up:] for name, column in columns.items()},
        price_factor=factor,
        warm_up=warm_up,
        source=source,
    )


def _blinded(series: CandleSeries, warm_up: int) -> tuple[CandleSeries, float]:
    if warm_up >= len(series):
        return series, 1.0
    factor = 100.0 / float(series.close[warm_up])
    # Without a warm-up the first candle is all that may be known of the volume.
    known: Sequence[float] = series.volume[: max(warm_up, 1)].tolist()
    mean = sum(known) / len(known)
    return series.scaled(factor, 1.0 / mean if mean > 0 else 1.0), factor
