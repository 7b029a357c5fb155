"""Limits, stops and the risk cap, in numbers worked out by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trading.scenarios import make_rules
from trading.decisions import OrderTerms, Override
from trading.errors import InvalidRules
from trading.orders import RejectionReason, Side
from trading.risk import Entry, Refusal, limit_terms, needs_stop, plan_entry
from trading.rules import Mode, Rules

ANY_NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def plan(
    side: Side = Side.LONG, *, rules: dict[str, Any] | None = None, **terms: float
) -> Entry | Refusal:
    settings = make_rules(**{"allow_leverage": True} | (rules or {}))
    limited, _ = limit_terms(OrderTerms(**terms), settings)
    return plan_entry(side, limited, reference=100.0, equity=10_000.0, rules=settings)


def entry(side: Side = Side.LONG, **asked: Any) -> Entry:
    planned = plan(side, **asked)
    assert isinstance(planned, Entry)
    return planned


@pytest.mark.parametrize(
    ("asked", "most", "leverage"),
    [
        (None, 5, 1),
        (1.0, 5, 1),
        (2.7, 5, 2),
        (0.0, 5, 1),
        (-3.0, 5, 1),
        (9.0, 10, 5),
        (4.0, 3.5, 3),
        (1e308, 5, 5),
    ],
)
def test_leverage_is_whole_and_within_the_limits(asked: float | None, most: float, leverage: float):
    rules = make_rules(allow_leverage=True, max_leverage=most)
    terms, overrides = limit_terms(OrderTerms(leverage=asked), rules)
    assert terms.leverage == leverage
    is_changed = asked is not None and asked != leverage
    assert [o.rule for o in overrides] == (["leverage"] if is_changed else [])


def test_leverage_is_one_unless_the_test_allows_it():
    terms, overrides = limit_terms(OrderTerms(leverage=3.0), make_rules())
    assert terms.leverage == 1
    assert overrides == (Override(rule="leverage", before=3.0, after=1.0),)


def test_size_is_the_users_most_unless_less_is_asked_for():
    rules = make_rules(max_position_size=0.25)
    assert limit_terms(OrderTerms(), rules)[0].size == 0.25
    assert limit_terms(OrderTerms(size=0.1), rules)[0].size == 0.1
    terms, overrides = limit_terms(OrderTerms(size=0.5), rules)
    assert terms.size == 0.25
    assert overrides == (Override(rule="max_position_size", before=0.5, after=0.25),)


def test_size_is_the_share_of_equity_times_leverage_over_the_fill_price():
    planned = entry(size=0.5, leverage=3, rules={"slippage_rate": 0.01})
    assert planned.price == pytest.approx(101)
    assert planned.size == pytest.approx(10_000 * 0.5 * 3 / 101)
    assert planned.margin == pytest.approx(5_000)
    assert planned.overrides == ()


def test_levels_are_distances_from_the_fill_price():
    long = entry(stop_loss_distance=0.1, take_profit_distance=0.2, rules={"slippage_rate": 0.01})
    assert (long.stop_price, long.target_price) == pytest.approx((90.9, 121.2))
    short = entry(
        Side.SHORT,
        stop_loss_distance=0.1,
        take_profit_distance=0.2,
        rules={"slippage_rate": 0.01},
    )
    assert (short.stop_price, short.target_price) == pytest.approx((108.9, 79.2))


def test_a_price_wins_over_a_distance_and_zero_is_neither():
    planned = entry(
        stop_loss_price=95.0,
        stop_loss_distance=0.01,
        take_profit_price=0.0,
        take_profit_distance=0.2,
    )
    assert (planned.stop_price, planned.target_price) == pytest.approx((95, 120))


def test_the_loss_at_the_stop_is_capped_costs_included():
    rules = {"fee_rate": 0.001, "slippage_rate": 0.01, "max_loss_per_trade": 0.02}
    planned = entry(stop_loss_price=91.0, rules=rules)
    sold = 91 * 0.99
    loss_of_one = 101 - sold + 0.001 * (101 + sold)
    assert planned.size == pytest.approx(200 / loss_of_one)
    (override,) = planned.overrides
    assert (override.rule, override.before) == ("max_loss_per_trade", 1.0)
    assert override.after == pytest.approx(planned.size * 101 / 10_000)


def test_the_cap_of_a_short_mirrors_it():
    rules = {"fee_rate": 0.001, "slippage_rate": 0.01, "max_loss_per_trade": 0.02}
    planned = entry(Side.SHORT, stop_loss_price=109.0, rules=rules)
    bought = 109 * 1.01
    assert planned.size == pytest.approx(200 / (bought - 99 + 0.001 * (99 + bought)))


def test_with_leverage_the_nearer_of_stop_and_liquidation_counts():
    rules = {"max_loss_per_trade": 0.02, "slippage_rate": 0.0}
    assert entry(leverage=5, rules=rules).size == pytest.approx(200 / 19.5)
    assert entry(leverage=5, stop_loss_price=70.0, rules=rules).size == pytest.approx(200 / 19.5)
    assert entry(leverage=5, stop_loss_price=90.0, rules=rules).size == pytest.approx(20)


def test_without_a_stop_and_leverage_nothing_is_capped():
    assert entry(rules={"max_loss_per_trade": 0.01}).size == pytest.approx(100)


def test_a_stop_below_zero_risks_all_there_is():
    planned = entry(stop_loss_distance=1.5, rules={"max_loss_per_trade": 0.02})
    assert planned.size == pytest.approx(2)


@pytest.mark.parametrize(("limit", "loss"), [(0.05, 100.0), (0.005, 50.0)])
def test_monk_mode_risks_one_percent_at_most(limit: float, loss: float):
    rules = {"mode": Mode.MONK, "max_loss_per_trade": limit}
    assert entry(stop_loss_distance=0.1, rules=rules).size == pytest.approx(loss / 10)


@pytest.mark.parametrize(
    ("side", "stop", "tightened"),
    [
        (Side.LONG, None, 98),
        (Side.LONG, 90.0, 98),
        (Side.LONG, 99.0, 99),
        (Side.SHORT, None, 102),
        (Side.SHORT, 110.0, 102),
        (Side.SHORT, 101.0, 101),
    ],
)
def test_safety_mode_allows_a_stop_of_two_percent(side: Side, stop: float | None, tightened: float):
    terms = {} if stop is None else {"stop_loss_price": stop}
    planned = entry(side, rules={"safety_mode": True}, **terms)
    assert planned.stop_price == pytest.approx(tightened)
    if stop == tightened:
        assert planned.overrides == ()
        return
    (override,) = planned.overrides
    assert (override.rule, override.after) == ("safety_mode", 0.02)
    assert override.before == (None if stop is None else pytest.approx(0.1))


@pytest.mark.parametrize(
    ("side", "terms"),
    [
        (Side.LONG, {"stop_loss_price": 100.0}),
        (Side.LONG, {"stop_loss_price": 101.0}),
        (Side.LONG, {"take_profit_price": 100.0}),
        (Side.LONG, {"take_profit_distance": -0.1}),
        (Side.LONG, {"take_profit_price": -5.0}),
        (Side.SHORT, {"stop_loss_price": 99.0}),
        (Side.SHORT, {"stop_loss_distance": -0.1}),
        (Side.SHORT, {"take_profit_price": 101.0}),
    ],
)
def test_a_level_on_the_wrong_side_is_refused_even_in_safety_mode(
    side: Side, terms: dict[str, float]
):
    for safety_mode in (False, True):
        refusal = plan(side, rules={"safety_mode": safety_mode}, **terms)
        assert isinstance(refusal, Refusal)
        assert refusal.reason is RejectionReason.WRONG_SIDE
        assert "wrong side" in refusal.detail


@pytest.mark.parametrize(
    ("size", "is_refused"), [(0.00099, True), (0.001, False), (0.0, True), (-0.5, True)]
)
def test_an_order_is_worth_ten_units_at_least(size: float, is_refused: bool):
    planned = plan(size=size)
    assert isinstance(planned, Refusal) is is_refused


def test_a_stop_of_exactly_two_percent_is_left_alone():
    planned = entry(stop_loss_distance=0.02, rules={"safety_mode": True})
    assert planned.overrides == ()


def test_debt_times_a_negative_size_is_no_order():
    rules = make_rules()
    terms, _ = limit_terms(OrderTerms(size=-5.0), rules)
    refusal = plan_entry(Side.LONG, terms, reference=100.0, equity=-2_000.0, rules=rules)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RejectionReason.TOO_SMALL


def test_an_order_that_the_cap_cut_below_ten_units_is_refused():
    refusal = plan(stop_loss_distance=0.5, rules={"max_loss_per_trade": 0.0004})
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RejectionReason.TOO_SMALL


def test_only_monk_mode_without_safety_mode_needs_a_stop():
    terms = OrderTerms()
    assert needs_stop(terms, make_rules(mode=Mode.MONK))
    assert not needs_stop(terms, make_rules(mode=Mode.MONK, safety_mode=True))
    assert not needs_stop(terms, make_rules(mode=Mode.OMNI))
    assert not needs_stop(OrderTerms(stop_loss_distance=0.1), make_rules(mode=Mode.MONK))


@given(
    side=st.sampled_from(Side),
    equity=st.floats(-1e6, 1e9),
    terms=st.builds(
        OrderTerms,
        leverage=ANY_NUMBER,
        size=ANY_NUMBER,
        stop_loss_distance=ANY_NUMBER,
        take_profit_distance=ANY_NUMBER,
        stop_loss_price=ANY_NUMBER,
        take_profit_price=ANY_NUMBER,
    ),
    safety_mode=st.booleans(),
)
def test_whatever_is_asked_for_an_entry_is_sane(
    side: Side, equity: float, terms: OrderTerms, safety_mode: bool
):
    rules = make_rules(
        allow_leverage=True, safety_mode=safety_mode, max_loss_per_trade=0.02, fee_rate=0.001
    )
    limited, _ = limit_terms(terms, rules)
    planned = plan_entry(side, limited, reference=100.0, equity=equity, rules=rules)
    if isinstance(planned, Refusal):
        return
    assert 10 * (1 - 1e-9) <= planned.size * planned.price <= equity * 5 * (1 + 1e-9)
    assert planned.leverage in {1, 2, 3, 4, 5}
    for level in (planned.stop_price, planned.target_price, planned.liquidation_price):
        assert level is None or abs(level) < float("inf")
    if safety_mode:
        assert planned.stop_price is not None
        assert abs(planned.stop_price / planned.price - 1) <= 0.02 + 1e-9


@pytest.mark.parametrize(
    "changes",
    [
        {"starting_capital": 0.0},
        {"starting_capital": float("nan")},
        {"timeframe_ms": 0},
        {"max_leverage": 0.5},
        {"max_leverage": float("nan")},
        {"fee_rate": -0.001},
        {"max_position_size": 25.0},
        {"max_daily_loss": float("nan")},
    ],
)
def test_rules_check_themselves(changes: dict[str, float]):
    with pytest.raises(InvalidRules, match=next(iter(changes))):
        make_rules(**changes)


def test_a_guard_of_zero_percent_that_is_switched_off_is_no_guard():
    rules: Rules = make_rules(auto_stop_loss=None)
    assert rules.auto_stop_loss is None
