"""Whatever way an exchange pages, all of its candles come, each once."""

from typing import Any

import pytest

from integrations.errors import TemporarilyUnavailable
from integrations.exchanges.pages import Row, read_pages, series_from
from trading.candles import Timeframe

MINUTE = Timeframe.MINUTE_1.milliseconds
TRADED = [*range(20), *range(55, 100)]  # a gap longer than a page


def row(minute: float, *, volume: float | None = 1.0, close: float | None = 2.0) -> Row:
    return [int(minute * MINUTE), 2.0, 3.0, 1.0, close, volume]


async def from_the_next_candle_on(cursor: int, wanted: int) -> list[Row]:
    return [row(minute) for minute in TRADED if minute * MINUTE >= cursor][:wanted]


async def of_the_stretch_alone(cursor: int, wanted: int) -> list[Row]:
    end = cursor + wanted * MINUTE
    return [row(minute) for minute in TRADED if cursor <= minute * MINUTE < end]


async def more_than_was_wanted(cursor: int, wanted: int) -> list[Row]:
    return [row(minute) for minute in TRADED if minute * MINUTE >= cursor - 5 * MINUTE]


async def fewer_than_was_wanted(cursor: int, wanted: int) -> list[Row]:
    return (await from_the_next_candle_on(cursor, wanted))[:3]


async def newest_first(cursor: int, wanted: int) -> list[Row]:
    return (await from_the_next_candle_on(cursor, wanted))[::-1]


@pytest.mark.parametrize(
    "page",
    [
        from_the_next_candle_on,
        of_the_stretch_alone,
        more_than_was_wanted,
        fewer_than_was_wanted,
        newest_first,
    ],
)
async def test_all_pages_are_read(page: Any):
    rows = await read_pages(
        page, Timeframe.MINUTE_1, start_ms=3 * MINUTE, end_ms=90 * MINUTE, limit=10
    )
    series = series_from(rows, Timeframe.MINUTE_1)

    assert (series.open_time // MINUTE).tolist() == [m for m in TRADED if 3 <= m < 90]


async def test_nothing_is_asked_for_nothing():
    async def never(cursor: int, wanted: int) -> list[Row]:
        raise AssertionError("asked")

    assert not await read_pages(never, Timeframe.MINUTE_1, start_ms=9, end_ms=9, limit=10)


def test_of_a_candle_given_twice_the_last_counts():
    series = series_from([row(2), row(1), row(2, close=2.5)], Timeframe.MINUTE_1)

    assert series.open_time.tolist() == [MINUTE, 2 * MINUTE]
    assert series.close.tolist() == [2.0, 2.5]


def test_a_candle_without_a_price_or_off_the_grid_is_a_gap():
    series = series_from([row(1), row(2, close=None), row(2.5), row(3)], Timeframe.MINUTE_1)
    assert series.open_time.tolist() == [MINUTE, 3 * MINUTE]


def test_no_volume_is_a_volume_of_nothing():
    assert series_from([row(1, volume=None)], Timeframe.MINUTE_1).volume.tolist() == [0.0]


def test_values_that_cannot_be_are_refused():
    with pytest.raises(TemporarilyUnavailable, match=r"\(120000\): The close is not a positive"):
        series_from([row(1), row(2, close=-1.0)], Timeframe.MINUTE_1)
