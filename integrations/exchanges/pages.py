"""Candles as an exchange gives them: page by page, and what is usable of them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from integrations.errors import TemporarilyUnavailable
from trading.candles import CandleSeries, Timeframe
from trading.errors import InvalidCandles

Row = Sequence[Any]
Page = Callable[[int, int], Awaitable[list[Row]]]


async def read_pages(
    page: Page, timeframe: Timeframe, *, start_ms: int, end_ms: int, limit: int
) -> list[Row]:
    """The rows that open in `[start_ms, end_ms)`; `page` gives up to `limit` from a time on."""
    step = timeframe.milliseconds
    rows: list[Row] = []
    cursor = start_ms
    while cursor < end_ms:
        wanted = min(limit, -(-(end_ms - cursor) // step))
        fresh = [row for row in await page(cursor, wanted) if row[0] >= cursor]
        rows += [row for row in fresh if row[0] < end_ms]
        # Some exchanges skip a gap and some give the empty stretch of time: both get past it.
        cursor = max(row[0] for row in fresh) + step if fresh else cursor + wanted * step
    return rows


def series_from(rows: Iterable[Row], timeframe: Timeframe) -> CandleSeries:
    """Ascending, on the grid, each candle once and as last given; one without a price is a gap.

    Raises `TemporarilyUnavailable` for values that no candle can have.
    """
    usable = {
        int(row[0]): (int(row[0]), *row[1:5], row[5] or 0.0)
        for row in rows
        if row[0] % timeframe.milliseconds == 0 and None not in row[1:5]
    }
    series = CandleSeries.from_rows([usable[time] for time in sorted(usable)])
    if len(series):
        _check(series, timeframe)
    return series


def _check(series: CandleSeries, timeframe: Timeframe) -> None:
    try:
        series.validate(timeframe)
    except InvalidCandles as error:
        opened = series.open_time[error.line or 0]
        raise TemporarilyUnavailable(
            f"the exchange gives a candle that cannot be ({opened}): {error}"
        ) from None
