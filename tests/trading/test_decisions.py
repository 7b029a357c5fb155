"""Decisions check themselves; the cadence says when the agent is asked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.decisions import Action, Cadence, Decision, OrderTerms
from trading.errors import InvalidDecision, TradingError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("name", ["leverage", "size", "stop_loss_distance", "take_profit_price"])
def test_terms_are_finite_numbers(name: str, value: float):
    with pytest.raises(InvalidDecision, match=name):
        OrderTerms(**{name: value})


def test_whole_numbers_become_floats():
    assert type(OrderTerms(leverage=3).leverage) is float


@pytest.mark.parametrize(
    ("terms", "has_stop"),
    [
        (OrderTerms(), False),
        (OrderTerms(stop_loss_distance=0.0, stop_loss_price=0.0), False),
        (OrderTerms(stop_loss_distance=0.02), True),
        (OrderTerms(stop_loss_price=90.0), True),
        (OrderTerms(take_profit_distance=0.02), False),
    ],
)
def test_a_stop_of_zero_is_none(terms: OrderTerms, has_stop: bool):
    assert terms.has_stop is has_stop


@pytest.mark.parametrize("confidence", [-0.01, 1.01, math.nan])
def test_confidence_is_a_fraction(confidence: float):
    with pytest.raises(TradingError, match="confidence"):
        Decision(action=Action.HOLD, confidence=confidence)


def test_an_action_is_one_of_four_words():
    with pytest.raises(ValueError, match="buy"):
        Action("buy")


@pytest.mark.parametrize(("first", "interval"), [(-1, 1), (0, 0)])
def test_a_cadence_goes_forward(first: int, interval: int):
    with pytest.raises(InvalidDecision):
        Cadence(first=first, interval=interval)


def test_the_agent_is_asked_at_the_first_candle_and_every_interval_after_it():
    cadence = Cadence(first=5, interval=3)
    assert [i for i in range(15) if cadence.is_due(i)] == [5, 8, 11, 14]


@given(first=st.integers(0, 50), interval=st.integers(1, 50), index=st.integers(0, 200))
def test_the_next_due_candle_is_the_first_one_due(first: int, interval: int, index: int):
    cadence = Cadence(first=first, interval=interval)
    due = cadence.next_due(index)
    assert due >= index
    assert cadence.is_due(due)
    assert not any(cadence.is_due(between) for between in range(index, due))


@given(first=st.integers(0, 50), interval=st.integers(1, 50), total=st.integers(0, 200))
def test_decision_candles_are_counted(first: int, interval: int, total: int):
    cadence = Cadence(first=first, interval=interval)
    assert cadence.count(total) == sum(cadence.is_due(index) for index in range(total))
