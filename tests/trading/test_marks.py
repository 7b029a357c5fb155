"""A position at a price that is not a close."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.marks import Holding, mark
from trading.orders import Side

prices = st.floats(min_value=0.01, max_value=1e6)


def holding(side: Side = Side.LONG, *, stop: float | None = None, target: float | None = None):
    return Holding(
        side=side,
        entry_price=100.0,
        size=2.0,
        leverage=5.0,
        stop_price=stop,
        target_price=target,
    )


def test_the_result_is_a_fraction_of_the_margin():
    marked = mark(holding(), 110.0)

    assert marked.unrealized_pnl == 20.0
    assert marked.pnl_fraction == 0.5


def test_distances_are_fractions_of_the_price_and_positive_before_their_level():
    long = mark(holding(stop=90.0, target=130.0), 120.0)
    short = mark(holding(Side.SHORT, stop=132.0, target=60.0), 120.0)

    assert (long.stop_distance, long.target_distance) == pytest.approx((0.25, 1 / 12))
    assert (short.stop_distance, short.target_distance) == pytest.approx((0.1, 0.5))


def test_a_level_that_the_price_has_passed_is_at_a_negative_distance():
    assert mark(holding(stop=90.0), 80.0).stop_distance == pytest.approx(-0.125)


def test_without_levels_there_are_no_distances():
    marked = mark(holding(), 120.0)

    assert (marked.stop_distance, marked.target_distance) == (None, None)


@given(price=prices)
def test_what_one_side_wins_the_other_loses(price: float):
    long, short = mark(holding(), price), mark(holding(Side.SHORT), price)

    assert long.unrealized_pnl == -short.unrealized_pnl
    assert long.pnl_fraction == -short.pnl_fraction
