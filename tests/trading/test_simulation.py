"""The fold: what happens in one candle and in which order, and what must hold for any test."""

import functools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import TypeAdapter

from tests.trading.scenarios import (
    HOUR,
    Scenario,
    decision,
    draw_market,
    hourly,
    make_rules,
    make_series,
    scenarios,
)
from trading.candles import Candle, CandleSeries
from trading.decisions import Decision
from trading.metrics import total_costs
from trading.orders import ExitType, RejectionReason, Trade
from trading.rules import FillTiming, Intrabar, Mode, Rules
from trading.simulation import (
    Replay,
    SimulationState,
    Step,
    Verdict,
    advance,
    close_out,
    decide,
    replay,
    start,
    withdraw,
)

FLAT = (100.0, 101.0, 99.0, 100.0)
DAY = 24 * HOUR


def run(
    candles: list[Candle], decisions: dict[int, Decision], *, ending: Any = None, **changes: Any
) -> Replay:
    series = CandleSeries.from_candles(candles)
    return replay(series, decisions, make_rules(**changes), ending=ending)


def only_trade(result: Replay) -> Trade:
    (trade,) = result.trades
    return trade


def rejections(result: Replay) -> list[tuple[int, str]]:
    return [(rejection.decided_candle, rejection.reason.value) for rejection in result.rejections]


# Fills


def test_a_decision_fills_at_the_next_open_worsened_by_slippage():
    candles = hourly(FLAT, (110, 112, 108, 111), (120, 121, 119, 120), (130, 131, 129, 130))
    decisions = {0: decision("long", size=0.5), 1: decision("close")}
    trade = only_trade(run(candles, decisions, fee_rate=0.001, slippage_rate=0.01))
    assert trade.entry_price == pytest.approx(111.1)
    assert trade.exit_price == pytest.approx(118.8)
    assert (trade.decided_candle, trade.entry_candle, trade.entry_time) == (0, 1, HOUR)
    assert (trade.exit_decided_candle, trade.exit_candle, trade.exit_time) == (1, 2, 2 * HOUR)
    assert trade.exit_type is ExitType.SIGNAL
    size = 5_000 / 111.1
    assert trade.size == pytest.approx(size)
    assert trade.fees == pytest.approx(0.001 * size * (111.1 + 118.8))
    assert trade.slippage_cost == pytest.approx(size * (1.1 + 1.2))
    assert trade.gross_pnl == pytest.approx(size * 10)
    assert trade.pnl_amount == pytest.approx(size * 7.7 - trade.fees)
    assert trade.pnl_fraction == pytest.approx(trade.pnl_amount / 5_000)


def test_a_short_sells_cheaper_and_buys_back_dearer():
    candles = hourly(FLAT, (100, 101, 99, 100), (90, 91, 89, 90))
    decisions = {0: decision("short"), 1: decision("close")}
    trade = only_trade(run(candles, decisions, slippage_rate=0.01))
    assert trade.entry_price == pytest.approx(99)
    assert trade.exit_price == pytest.approx(90.9)
    assert trade.pnl_amount == pytest.approx(10_000 / 99 * (99 - 90.9))


def test_equity_is_cash_and_unrealised_less_the_entry_fee():
    candles = hourly(FLAT, (100, 112, 99, 110), (110, 121, 109, 120))
    result = run(candles, {0: decision("long", size=1.0)}, fee_rate=0.001)
    assert result.equity.tolist() == pytest.approx([10_000, 10_990, 11_990])
    assert result.state.cash == 10_000
    assert result.state.fees_paid == pytest.approx(10)


def test_under_close_timing_an_order_fills_at_the_close_that_decided_it():
    candles = hourly((100, 105, 95, 104), (106, 112, 105, 110), (110, 111, 99, 100))
    decisions = {0: decision("long", size=1.0), 1: decision("close")}
    result = run(candles, decisions, fill_timing=FillTiming.CLOSE, slippage_rate=0.01)
    trade = only_trade(result)
    assert trade.entry_price == pytest.approx(104 * 1.01)
    assert (trade.entry_candle, trade.entry_time) == (0, HOUR)
    assert trade.exit_price == pytest.approx(110 * 0.99)
    assert (trade.exit_candle, trade.exit_time) == (1, 2 * HOUR)
    assert result.equity[0] == 10_000


def test_under_close_timing_the_candle_of_the_fill_protects_nothing():
    candles = hourly((100, 120, 80, 100), (100, 101, 99, 100), (100, 101, 99, 100))
    terms = decision("long", stop_loss_distance=0.1, take_profit_distance=0.1)
    result = run(candles, {0: terms}, fill_timing=FillTiming.CLOSE)
    assert result.state.position is not None


def test_under_close_timing_the_next_open_is_a_gap_like_any_other():
    candles = hourly(FLAT, (90, 95, 85, 92))
    terms = decision("long", stop_loss_distance=0.05)
    trade = only_trade(run(candles, {0: terms}, fill_timing=FillTiming.CLOSE))
    assert (trade.exit_price, trade.exit_time, trade.exit_candle) == (90, HOUR, 1)


@pytest.mark.parametrize(
    ("timing", "time", "price"), [("next_open", 5 * HOUR, 104.0), ("close", HOUR, 100.0)]
)
def test_over_a_gap_an_order_fills_at_the_next_open_that_exists(
    timing: str, time: int, price: float
):
    rows = [(0, *FLAT), (5 * HOUR, 104.0, 105.0, 103.0, 104.0)]
    rules = make_rules(fill_timing=FillTiming(timing))
    state = replay(make_series(rows), {0: decision("long")}, rules, ending=None).state
    assert state.position is not None
    assert (state.position.entry_time, state.position.entry_price) == (time, price)
    assert state.position.entry_candle == (1 if timing == "next_open" else 0)


# Protection


def test_the_entry_candle_protects_too():
    candles = hourly(FLAT, (100, 101, 94, 96))
    trade = only_trade(run(candles, {0: decision("long", stop_loss_distance=0.05)}))
    assert (trade.exit_price, trade.exit_candle, trade.entry_candle) == (95, 1, 1)
    assert (trade.entry_time, trade.exit_time) == (HOUR, 2 * HOUR)
    assert trade.exit_type is ExitType.STOP_LOSS


def test_a_gap_through_the_stop_fills_at_the_open():
    candles = hourly(FLAT, FLAT, (90, 92, 88, 91))
    terms = decision("long", stop_loss_distance=0.05)
    trade = only_trade(run(candles, {0: terms}, slippage_rate=0.01))
    assert trade.exit_price == pytest.approx(90 * 0.99)
    assert trade.exit_time == 2 * HOUR


def test_a_gap_through_the_target_fills_at_the_target():
    candles = hourly(FLAT, FLAT, (120, 122, 118, 121))
    terms = decision("long", take_profit_price=105.0)
    trade = only_trade(run(candles, {0: terms}, slippage_rate=0.01))
    assert (trade.exit_price, trade.exit_type) == (105, ExitType.TAKE_PROFIT)
    assert trade.slippage_cost == pytest.approx(trade.size * 1.0)


def test_a_signal_fills_at_the_open_before_a_stop_that_the_same_candle_touches():
    candles = hourly(FLAT, FLAT, (100, 101, 90, 91))
    decisions = {0: decision("long", stop_loss_distance=0.05), 1: decision("close")}
    trade = only_trade(run(candles, decisions))
    assert (trade.exit_type, trade.exit_price) == (ExitType.SIGNAL, 100)


def test_an_open_beyond_the_liquidation_price_comes_before_a_pending_close():
    candles = hourly(FLAT, FLAT, (70, 71, 69, 70))
    decisions = {0: decision("long", leverage=5.0), 1: decision("close")}
    result = run(candles, decisions, allow_leverage=True)
    trade = only_trade(result)
    assert trade.exit_type is ExitType.LIQUIDATION
    assert trade.exit_price == pytest.approx(80.5)
    assert trade.exit_time == 2 * HOUR
    assert result.rejections == ()
    assert result.state.pending is None


def test_under_close_timing_a_pending_close_comes_before_the_liquidation():
    candles = hourly(FLAT, FLAT, (70, 71, 69, 70))
    decisions = {0: decision("long", leverage=5.0), 1: decision("close")}
    changes: dict[str, Any] = {"allow_leverage": True, "fill_timing": FillTiming.CLOSE}
    trade = only_trade(run(candles, decisions, **changes))
    assert (trade.exit_type, trade.exit_price) == (ExitType.SIGNAL, 100)


def test_a_liquidation_loses_the_margin_at_most():
    candles = hourly(FLAT, (100, 101, 70, 72))
    terms = decision("long", leverage=5.0)
    result = run(candles, {0: terms}, allow_leverage=True, fee_rate=0.01)
    trade = only_trade(result)
    assert trade.margin == pytest.approx(trade.size * 20)
    assert trade.pnl_amount == -trade.margin
    assert trade.pnl_fraction == -1
    assert trade.gross_pnl - trade.fees - trade.slippage_cost == pytest.approx(-trade.margin)
    assert result.equity[-1] == pytest.approx(10_000 - trade.margin)


@pytest.mark.parametrize(
    ("intrabar", "exit_type", "price"),
    [("pessimistic", ExitType.STOP_LOSS, 95), ("optimistic", ExitType.TAKE_PROFIT, 105)],
)
def test_a_candle_that_touches_both_is_ambiguous(intrabar: str, exit_type: ExitType, price: float):
    candles = hourly(FLAT, (100, 105, 95, 100))
    terms = decision("long", stop_loss_price=95.0, take_profit_price=105.0)
    result = run(candles, {0: terms}, intrabar=Intrabar(intrabar))
    trade = only_trade(result)
    assert (trade.exit_type, trade.exit_price, trade.ambiguous) == (exit_type, price, True)
    assert result.state.ambiguous_candles == 1


# Guards and the end


def test_the_drawdown_guard_closes_at_the_close_and_replaces_the_point():
    candles = hourly(FLAT, (100, 101, 88, 90), (90, 95, 85, 92))
    terms = decision("long", size=1.0)
    costs: dict[str, Any] = {"fee_rate": 0.001, "slippage_rate": 0.01}
    result = run(candles, {0: terms}, max_total_drawdown=0.1, ending=ExitType.END_OF_TEST, **costs)
    trade = only_trade(result)
    assert result.state.ended == "max_drawdown_exceeded"
    assert (trade.exit_type, trade.exit_candle, trade.exit_time) == (ExitType.GUARD, 1, 2 * HOUR)
    assert trade.exit_price == pytest.approx(90 * 0.99)
    assert result.equity.tolist() == pytest.approx([10_000, 10_000 + trade.pnl_amount])
    assert result.state.max_drawdown == pytest.approx(-trade.pnl_amount / 10_000)
    assert result.state.exposed_candles == 1


def test_the_drawdown_guard_counts_from_the_highest_equity():
    candles = hourly(FLAT, (100, 150, 100, 150), (150, 150, 130, 134), (134, 140, 134, 140))
    result = run(candles, {0: decision("long", size=1.0)}, max_total_drawdown=0.1)
    assert len(result.equity) == 3
    assert result.state.ended == "max_drawdown_exceeded"


def test_the_loss_guard_counts_from_the_capital():
    candles = hourly(FLAT, (100, 150, 100, 150), (150, 150, 96, 96), (96, 96, 89, 90))
    result = run(candles, {0: decision("long", size=1.0)}, auto_stop_loss=0.1)
    assert len(result.equity) == 4
    assert result.state.ended == "max_loss_exceeded"
    assert only_trade(result).exit_price == 90


def test_the_end_of_the_test_closes_at_the_last_close_and_replaces_the_point():
    candles = hourly(FLAT, (100, 112, 99, 110))
    terms = decision("long", size=1.0)
    result = run(candles, {0: terms}, ending=ExitType.END_OF_TEST, slippage_rate=0.01)
    trade = only_trade(result)
    assert (trade.exit_type, trade.exit_candle, trade.exit_time) == (
        ExitType.END_OF_TEST,
        1,
        2 * HOUR,
    )
    assert trade.exit_price == pytest.approx(110 * 0.99)
    assert result.equity.tolist() == pytest.approx([10_000, 10_000 / 101 * 108.9])
    assert result.state.peak_equity == result.equity.max()


def test_a_peak_that_the_replaced_point_no_longer_reaches_is_taken_back():
    candles = hourly(FLAT, (100, 101, 99, 100.5))
    result = run(
        candles, {0: decision("long", size=1.0)}, ending=ExitType.MANUAL, slippage_rate=0.01
    )
    assert result.equity[-1] < 10_000
    assert result.state.peak_equity == 10_000
    assert result.state.max_drawdown == pytest.approx(1 - result.equity[-1] / 10_000)


def test_a_stop_drops_the_pending_order_and_closes_the_position():
    rules = make_rules()
    candles = hourly(FLAT, FLAT)
    state = advance(start(rules), candles[0], rules).state
    state = decide(state, decision("long"), candles[0], rules, is_last=False).state
    step = close_out(state, candles[0], rules, ExitType.MANUAL)
    assert step.rejected is not None
    assert step.rejected.reason is RejectionReason.STOPPED
    assert step.closed is None
    assert step.state.pending is None
    assert state.pending is not None

    state = advance(state, candles[1], rules).state
    step = close_out(state, candles[1], rules, ExitType.MANUAL)
    assert step.closed is not None
    assert step.closed.exit_type is ExitType.MANUAL
    assert step.candle_index == step.closed.exit_candle == 1


def test_a_stop_may_leave_the_position_open():
    candles = hourly(FLAT, (100, 112, 99, 110))
    decisions = {0: decision("long", size=1.0), 1: decision("close")}
    result = run(candles, decisions, ending=None)
    assert result.state.position is not None
    assert result.equity[-1] == 11_000
    assert rejections(result) == [(1, "stopped")]


def test_withdrawing_nothing_changes_nothing():
    state = start(make_rules())
    assert withdraw(state, RejectionReason.STOPPED) == (state, None)


def test_a_test_without_candles_has_no_points():
    result = run([], {}, ending=ExitType.END_OF_TEST)
    assert result.equity.size == 0
    assert result.state == start(make_rules())


# Decisions


def test_an_order_on_the_last_candle_is_rejected():
    result = run(hourly(FLAT), {0: decision("long")}, ending=ExitType.END_OF_TEST)
    assert rejections(result) == [(0, "end_of_test")]


def test_a_close_on_the_last_candle_is_rejected_too():
    rules = make_rules()
    candles = hourly(FLAT, FLAT)
    state = advance(start(rules), candles[0], rules).state
    state = decide(state, decision("long"), candles[0], rules, is_last=False).state
    state = advance(state, candles[1], rules).state
    verdict = decide(state, decision("close"), candles[1], rules, is_last=True)
    assert verdict.rejection is not None
    assert verdict.rejection.reason is RejectionReason.END_OF_TEST
    assert verdict.state.pending is None


def test_a_trade_that_earned_nothing_is_lost():
    state = run(hourly(FLAT, FLAT, FLAT), {0: decision("long"), 1: decision("close")}).state
    assert (state.trades_total, state.trades_won, state.trades_lost) == (1, 0, 1)


def test_holding_and_closing_nothing_are_no_orders():
    decisions = {0: decision("close"), 1: decision("hold")}
    result = run(hourly(FLAT, FLAT), decisions, ending=ExitType.END_OF_TEST)
    assert (result.trades, result.rejections) == ((), ())


def test_there_is_one_position_at_a_time():
    decisions = {0: decision("long"), 1: decision("long"), 2: decision("short")}
    result = run(hourly(FLAT, FLAT, FLAT, FLAT), decisions)
    assert rejections(result) == [(1, "position_open"), (2, "position_open")]


def test_the_daily_loss_refuses_entries_for_the_rest_of_the_utc_day():
    falling = hourly(FLAT, (100, 100, 90, 95), (95, 100, 95, 100), start=21 * HOUR)
    next_day = hourly(FLAT, FLAT, start=DAY)
    decisions: dict[int, Decision] = {
        0: decision("long", size=1.0),
        1: decision("close"),
        2: decision("long"),
        3: decision("long"),
    }
    result = run(falling + next_day, decisions, max_daily_loss=0.05)
    assert rejections(result) == [(2, "daily_loss")]
    assert result.state.position is not None


def test_the_daily_loss_is_reached_even_when_it_is_won_back():
    candles = hourly(FLAT, (100, 100, 90, 95), (95, 105, 95, 104), FLAT)
    decisions = {0: decision("long", size=1.0), 1: decision("close"), 2: decision("long")}
    result = run(candles, decisions, max_daily_loss=0.05)
    assert rejections(result) == [(2, "daily_loss")]


def test_monk_mode_leaves_four_hours_between_two_fills():
    stop = {"stop_loss_distance": 0.5, "size": 0.01}
    decisions = {i: decision("close" if i % 2 else "long", **stop) for i in range(6)}
    decisions[0] = decision("long", **stop)
    result = run(hourly(*[FLAT] * 7), decisions, mode=Mode.MONK)
    assert rejections(result) == [(2, "frequency")]
    assert [trade.entry_time for trade in result.trades] == [HOUR, 5 * HOUR]


def test_monk_mode_refuses_an_entry_without_a_stop():
    result = run(hourly(FLAT, FLAT), {0: decision("long")}, mode=Mode.MONK)
    assert rejections(result) == [(0, "stop_required")]


def test_safety_mode_supplies_the_stop_that_monk_mode_wants():
    result = run(hourly(FLAT, FLAT), {0: decision("long")}, mode=Mode.MONK, safety_mode=True)
    position = result.state.position
    assert position is not None
    assert position.stop_price == pytest.approx(98)
    assert position.size * 2 == pytest.approx(100)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"stop_loss_price": 103.0}, "wrong_side"),
        ({"take_profit_price": 97.0}, "wrong_side"),
        ({"stop_loss_distance": -0.01}, "wrong_side"),
        ({"take_profit_distance": 1e308}, "wrong_side"),
        ({"take_profit_price": 1e308}, None),
        ({"size": 0.0}, "too_small"),
        ({"size": -1.0}, "too_small"),
        ({"size": 0.0009}, "too_small"),
        ({"size": 0.001}, None),
    ],
)
def test_what_is_refused_when_filling(terms: dict[str, float], reason: str | None):
    result = run(hourly(FLAT, FLAT), {0: decision("long", **terms)})
    assert rejections(result) == ([] if reason is None else [(0, reason)])


def test_a_verdict_shows_the_entry_as_it_would_fill_at_this_close():
    rules = make_rules(slippage_rate=0.01, safety_mode=True, max_loss_per_trade=0.01)
    candle = hourly(FLAT)[0]
    state = advance(start(rules), candle, rules).state
    verdict = decide(state, decision("long", leverage=3.0), candle, rules, is_last=False)
    assert verdict.estimate is not None
    assert verdict.estimate.entry_price == pytest.approx(101)
    assert verdict.estimate.stop_price == pytest.approx(98.98)
    assert verdict.estimate.leverage == 1
    assert [o.rule for o in verdict.overrides] == ["leverage", "safety_mode", "max_loss_per_trade"]
    assert verdict.order is not None
    assert [o.rule for o in verdict.order.overrides] == ["leverage"]
    assert verdict.state.pending is verdict.order
    assert state.pending is None


# Properties


@settings(max_examples=100)
@given(scenario=scenarios())
def test_ten_candles_are_four_and_then_six(scenario: Scenario):
    whole = fold(start(scenario.rules), scenario, 0, len(scenario.series))
    for cut in {0, 1, len(scenario.series) // 2}:
        first = fold(start(scenario.rules), scenario, 0, cut)
        assert fold(first, scenario, cut, len(scenario.series)) == whole


@settings(max_examples=100)
@given(scenario=scenarios())
def test_a_step_changes_nothing_that_it_was_given(scenario: Scenario):
    adapter = TypeAdapter(SimulationState)
    state = start(scenario.rules)
    for index, candle in enumerate(scenario.series):
        before = adapter.dump_json(state)
        first = advance(state, candle, scenario.rules)
        assert advance(state, candle, scenario.rules) == first
        assert adapter.dump_json(state) == before
        state = decided(first.state, scenario, index, candle)


@settings(max_examples=100)
@given(scenario=scenarios())
def test_another_future_changes_nothing_before_it(scenario: Scenario):
    cut = len(scenario.series) // 2
    other = make_series(
        scenario.rows[:cut]
        + [(time, 2 * o, 3 * h, l / 2, c) for time, o, h, l, c in scenario.rows[cut:]]  # noqa: E741
    )
    past = replay(scenario.series.slice(0, cut), scenario.decisions, scenario.rules, ending=None)
    for series in (scenario.series, other):
        whole = replay(series, scenario.decisions, scenario.rules, ending=None)
        assert whole.equity[:cut].tolist() == past.equity.tolist()
        assert whole.trades[: len(past.trades)] == past.trades
        assert all(trade.exit_candle >= cut - 1 for trade in whole.trades[len(past.trades) :])


@settings(max_examples=100)
@given(scenario=scenarios())
def test_a_state_survives_json_to_the_last_bit(scenario: Scenario):
    adapter = TypeAdapter(SimulationState)
    state = carried = start(scenario.rules)
    for index, candle in enumerate(scenario.series):
        if state.ended is not None:
            break
        state = decided(advance(state, candle, scenario.rules).state, scenario, index, candle)
        moved = advance(carried, candle, scenario.rules).state
        text = adapter.dump_json(decided(moved, scenario, index, candle))
        assert len(text) < 2048
        carried = adapter.validate_json(text)
        assert carried == state
        assert adapter.dump_json(carried) == text


@settings(max_examples=50)
@given(scenario=scenarios())
def test_steps_verdicts_and_trades_survive_json(scenario: Scenario):
    state = start(scenario.rules)
    for index, candle in enumerate(scenario.series):
        step = advance(state, candle, scenario.rules)
        assert round_trip(Step, step) == step
        if step.ended is not None:
            break
        verdict = decide(
            step.state,
            scenario.decisions.get(index, decision("hold")),
            candle,
            scenario.rules,
            is_last=False,
        )
        assert round_trip(Verdict, verdict) == verdict
        state = verdict.state
    assert round_trip(Rules, scenario.rules) == scenario.rules


@settings(max_examples=100)
@given(scenario=scenarios())
def test_equity_changes_only_by_profit_and_costs(scenario: Scenario):
    state = start(scenario.rules)
    capital = scenario.rules.starting_capital
    for index, candle in enumerate(scenario.series):
        state = advance(state, candle, scenario.rules).state
        costs = total_costs(state, candle.close)
        explained = capital + costs.gross_pnl - costs.fees - costs.slippage
        assert state.equity == pytest.approx(explained, rel=1e-9, abs=1e-9 * capital)
        if state.ended is not None:
            break
        state = decided(state, scenario, index, candle)


@settings(max_examples=100)
@given(scenario=scenarios())
def test_the_running_numbers_are_those_of_the_curve(scenario: Scenario):
    result = replay(scenario.series, scenario.decisions, scenario.rules)
    points = np.concatenate(([scenario.rules.starting_capital], result.equity))
    peaks = np.maximum.accumulate(points)
    state = result.state
    assert state.equity == points[-1]
    assert state.peak_equity == peaks[-1]
    assert state.max_drawdown == pytest.approx(((peaks - points) / peaks).max(), abs=1e-12)
    assert state.trades_total == len(result.trades)
    assert state.trades_won == sum(trade.pnl_amount > 0 for trade in result.trades)
    assert state.trades_won + state.trades_lost == state.trades_total
    assert [t.trade_number for t in result.trades] == list(range(1, len(result.trades) + 1))


@pytest.mark.parametrize("seed", range(50))
def test_a_short_is_a_long_in_a_mirror(seed: int):
    rng = random.Random(seed)
    rows = draw_market(rng, 15, HOUR, jump=rng.choice([0.5, 3.0]))
    middle = rows[1][1]
    mirrored = [
        (time, 2 * middle - o, 2 * middle - l, 2 * middle - h, 2 * middle - c)
        for time, o, h, l, c in rows  # noqa: E741
    ]
    terms = {
        "stop_loss_distance": rng.choice([None, 0.01, 0.05]),
        "take_profit_distance": rng.choice([None, 0.01, 0.05]),
        "leverage": rng.choice([None, 5.0]),
        "size": 0.3,
    }
    rules = make_rules(allow_leverage=True, max_loss_per_trade=0.02)
    long = replay(make_series(rows), {0: decision("long", **terms)}, rules)
    short = replay(make_series(mirrored), {0: decision("short", **terms)}, rules)
    assert long.equity.tolist() == pytest.approx(short.equity.tolist())
    for one, other in zip(long.trades, short.trades, strict=True):
        assert (one.exit_candle, one.exit_type) == (other.exit_candle, other.exit_type)
        assert one.exit_price == pytest.approx(2 * middle - other.exit_price)


def fold(state: SimulationState, scenario: Scenario, begin: int, end: int) -> SimulationState:
    for index in range(begin, end):
        if state.ended is not None:
            break
        candle = scenario.series.candle(index)
        state = decided(advance(state, candle, scenario.rules).state, scenario, index, candle)
    return state


def decided(
    state: SimulationState, scenario: Scenario, index: int, candle: Candle
) -> SimulationState:
    choice = scenario.decisions.get(index)
    if choice is None or state.ended is not None:
        return state
    return decide(state, choice, candle, scenario.rules, is_last=False).state


@functools.cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def round_trip(kind: Any, value: object) -> object:
    adapter = adapter_of(kind)
    return adapter.validate_json(adapter.dump_json(value))
