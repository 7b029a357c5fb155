"""What the simulated exchange knows at a moment: whole candles, and the ones that are forming."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local.simulators.exchange import WEEK_MS, aggregated, begun, market_week
from trading.candles import MILLISECONDS_PER_MINUTE, CandleSeries, Timeframe

LISTED_MS = 1_577_836_800_000  # 2020-01-01: there are no candles before


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From a time to another, in epoch milliseconds, without the latter."""

    start_ms: int
    end_ms: int


class History:
    """The candles of one seed, made week by week when they are asked for, and kept for a while.

    Longer candles are made of the minutes, so all tell one story. In `halts` there was no trading:
    no minute, and no longer candle that had no other minutes.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def candles(
        self,
        asset: str,
        timeframe: Timeframe,
        span: Span,
        *,
        now_ms: int,
        halts: Sequence[Span] = (),
    ) -> CandleSeries:
        """The candles that open within `span`, as known at `now_ms`: the last may be forming."""
        step = timeframe.milliseconds
        first = -(-max(span.start_ms, LISTED_MS) // step) * step
        end = min(span.end_ms, now_ms + 1)
        whole_end = max(first, min(end, now_ms // step * step))
        whole = self._whole(asset, timeframe, Span(start_ms=first, end_ms=whole_end), halts)
        if whole_end >= end:
            return whole
        minutes = _without(self._minutes_until(asset, whole_end, now_ms), halts)
        return _joined([whole, aggregated(minutes, timeframe)])

    def _whole(
        self, asset: str, timeframe: Timeframe, span: Span, halts: Sequence[Span]
    ) -> CandleSeries:
        if not halts:
            weeks = (_week(self._seed, asset, timeframe, week) for week in _weeks_of(span))
            return _joined([_within(series, span) for series in weeks])
        step = timeframe.milliseconds
        covered = Span(start_ms=span.start_ms, end_ms=-(-span.end_ms // step) * step)
        minutes = _joined(
            [_within(_minutes(self._seed, asset, week), covered) for week in _weeks_of(covered)]
        )
        return _within(aggregated(_without(minutes, halts), timeframe), span)

    def _minutes_until(self, asset: str, start_ms: int, now_ms: int) -> CandleSeries:
        """The minutes of a candle that is forming; the last of them as far as it got."""
        minute = now_ms // MILLISECONDS_PER_MINUTE * MILLISECONDS_PER_MINUTE
        # No candle is open across two weeks.
        week = _minutes(self._seed, asset, start_ms // WEEK_MS)
        index = (minute - int(week.open_time[0])) // MILLISECONDS_PER_MINUTE
        elapsed = (now_ms - minute) / MILLISECONDS_PER_MINUTE
        last = CandleSeries.from_candles([begun(week.candle(index), elapsed, asset=asset)])
        return _joined([_within(week, Span(start_ms=start_ms, end_ms=minute)), last])


# Half a megabyte a week of minutes; longer candles are small, and asked for by hundreds.
@lru_cache(maxsize=32)
def _minutes(seed: int, asset: str, week: int) -> CandleSeries:
    return market_week(asset, week, seed=seed)


@lru_cache(maxsize=512)
def _week(seed: int, asset: str, timeframe: Timeframe, week: int) -> CandleSeries:
    return aggregated(_minutes(seed, asset, week), timeframe)


def _weeks_of(span: Span) -> range:
    if span.start_ms >= span.end_ms:
        return range(0)
    return range(span.start_ms // WEEK_MS, (span.end_ms - 1) // WEEK_MS + 1)


def _within(series: CandleSeries, span: Span) -> CandleSeries:
    start, end = np.searchsorted(series.open_time, (span.start_ms, span.end_ms))
    return series.slice(int(start), int(end))


def _without(series: CandleSeries, halts: Sequence[Span]) -> CandleSeries:
    halted = np.zeros(len(series), dtype=np.bool_)
    for halt in halts:
        halted |= (series.open_time >= halt.start_ms) & (series.open_time < halt.end_ms)
    return _columns(lambda name: getattr(series, name)[~halted])


def _joined(parts: Sequence[CandleSeries]) -> CandleSeries:
    if not parts:
        return CandleSeries.from_rows([])
    return _columns(lambda name: np.concatenate([getattr(part, name) for part in parts]))


def _columns(column: Callable[[str], NDArray[Any]]) -> CandleSeries:
    return CandleSeries(**{field.name: column(field.name) for field in fields(CandleSeries)})
