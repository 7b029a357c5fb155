"""The countdown to the next close, and to the next decision."""

from hypothesis import given
from hypothesis import strategies as st

from trading.countdown import LiveSeries
from trading.decisions import Cadence

HOUR = 3_600_000
NINE = 9 * HOUR
EVERY_THIRD = Cadence(first=0, interval=3)


def series(next_candle: int, newest_open: int | None = None) -> LiveSeries:
    return LiveSeries(timeframe_ms=HOUR, next_candle=next_candle, newest_open=newest_open)


def test_the_moment_of_a_close_begins_the_next_countdown():
    assert series(0).next_close(NINE - 1) == NINE
    assert series(0).next_close(NINE) == NINE + HOUR


def test_an_agent_that_is_asked_at_every_close_is_asked_at_the_next_one():
    assert series(7).next_decision(NINE + 5, Cadence(first=0)) == NINE + HOUR


def test_an_agent_that_is_asked_at_every_third_close_waits_for_it():
    decisions = [series(each).next_decision(NINE + 5, EVERY_THIRD) for each in (3, 4, 5, 6)]

    assert decisions == [NINE + hours * HOUR for hours in (1, 3, 2, 1)]


def test_what_has_closed_and_is_about_to_be_stepped_still_counts():
    stepped = series(6, newest_open=NINE - HOUR)
    awaited = series(6, newest_open=NINE - 2 * HOUR)

    assert stepped.next_decision(NINE + 1_000, EVERY_THIRD) == NINE + HOUR
    assert awaited.next_decision(NINE + 1_000, EVERY_THIRD) == NINE


def test_after_a_gap_the_candle_that_forms_comes_next():
    after_a_halt = series(6, newest_open=NINE - 20 * HOUR)

    assert after_a_halt.next_decision(NINE + 1_000, EVERY_THIRD) == NINE + HOUR


@given(
    now=st.integers(min_value=0, max_value=4_000_000_000_000),
    next_candle=st.integers(min_value=0, max_value=10_000),
    first=st.integers(min_value=0, max_value=100),
    interval=st.integers(min_value=1, max_value=48),
)
def test_the_countdown_to_a_decision_runs_down_as_candles_are_stepped(
    now: int, next_candle: int, first: int, interval: int
):
    cadence = Cadence(first=first, interval=interval)
    decided = series(next_candle).next_decision(now, cadence)
    one_later = series(next_candle + 1).next_decision(now + HOUR, cadence)

    assert decided >= series(next_candle).next_close(now)
    assert one_later == decided or cadence.is_due(next_candle)
