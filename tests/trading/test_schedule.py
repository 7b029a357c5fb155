"""The schedule of live candles: pure arithmetic over an exchange's clock."""

from hypothesis import given
from hypothesis import strategies as st

from trading.schedule import GRACE_MS, opened_at, outlook

HOUR = 3_600_000
NINE = 9 * HOUR

times = st.integers(min_value=0, max_value=4_000_000_000_000)
timeframes = st.sampled_from([60_000, 900_000, HOUR, 4 * HOUR, 24 * HOUR])


def test_with_everything_there_it_looks_a_grace_after_the_next_close():
    found = outlook(NINE + 5_000, HOUR, newest_open=NINE - HOUR)
    assert found.next_close == NINE + HOUR
    assert found.look_at == NINE + HOUR + GRACE_MS


def test_a_candle_that_just_closed_is_looked_for_after_the_grace():
    assert outlook(NINE, HOUR, newest_open=NINE - 2 * HOUR).look_at == NINE + 5_000


def test_a_late_candle_is_looked_for_less_and_less_often():
    pauses = [
        outlook(NINE + late, HOUR, newest_open=NINE - 2 * HOUR).look_at - NINE - late
        for late in (3_000, 60_000, 120_000, 1_800_000)
    ]
    assert pauses == [5_000, 15_000, 30_000, 60_000]


def test_the_moment_of_a_close_belongs_to_the_next_candle():
    assert opened_at(NINE, HOUR) == NINE
    assert opened_at(NINE - 1, HOUR) == NINE - HOUR


@given(now=times, timeframe=timeframes, behind=st.integers(min_value=0, max_value=50))
def test_it_always_looks_later_and_never_skips_a_close(now: int, timeframe: int, behind: int):
    newest = opened_at(now, timeframe) - timeframe * (1 + behind)
    found = outlook(now, timeframe, newest_open=newest)
    assert now < found.look_at <= found.next_close + max(GRACE_MS, 60_000)
    assert found.next_close - timeframe <= now < found.next_close
