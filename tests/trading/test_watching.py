"""What happens between two closes: an order is filled at once, a minute may end the position."""

import random

import pytest
from hypothesis import given, settings

from tests.trading.scenarios import HOUR, Scenario, decision, hourly, make_rules, scenarios
from trading.candles import Candle, CandleSeries
from trading.decisions import Decision
from trading.matching import MINUTE_MS, Sighting
from trading.orders import ExitType, Trade
from trading.rules import FillTiming, Intrabar, Rules
from trading.simulation import (
    SimulationState,
    advance,
    close_out,
    decide,
    fill_at_open,
    replay,
    start,
    watch,
)

FLAT = (100.0, 101.0, 99.0, 100.0)
LONG = decision("long", stop_loss_distance=0.05, take_profit_distance=0.05)


def minute(number: int, *prices: float, candle: int = 1) -> Candle:
    open_, high, low, close = prices
    time = candle * HOUR + number * MINUTE_MS
    return Candle(open_time=time, open=open_, high=high, low=low, close=close, volume=1.0)


def opened(rules: Rules, taken: Decision = LONG) -> SimulationState:
    """A position that was filled at 100, the open of candle 1, which is forming."""
    candle = hourly(FLAT)[0]
    state = decide(advance(start(rules), candle, rules).state, taken, candle, rules, is_last=False)
    return fill_at_open(state.state, minute(0, *FLAT), rules).state


def first_exit(state: SimulationState, minutes: list[Candle], rules: Rules) -> Trade | None:
    for each in minutes:
        step = watch(state, each, rules, opened_at=HOUR)
        if step is not None:
            return step.closed
    return None


def test_an_order_fills_at_the_open_of_the_candle_that_forms():
    rules = make_rules(slippage_rate=0.01)
    position = opened(rules).position
    assert position is not None
    assert (position.entry_price, position.entry_candle, position.entry_time) == (101, 1, HOUR)


def test_the_first_touch_is_the_exit_although_the_candle_touches_both():
    rules = make_rules()
    minutes = [
        minute(3, 101, 104, 100, 103),
        minute(4, 103, 105, 102, 104),
        minute(5, 104, 104, 94, 95),
    ]
    trade = first_exit(opened(rules), minutes, rules)
    assert trade is not None
    assert (trade.exit_type, trade.exit_price) == (ExitType.TAKE_PROFIT, 105)
    assert (trade.exit_candle, trade.exit_time) == (1, HOUR + 5 * MINUTE_MS)
    assert not trade.ambiguous


@pytest.mark.parametrize(
    ("intrabar", "exit_type"),
    [(Intrabar.PESSIMISTIC, ExitType.STOP_LOSS), (Intrabar.OPTIMISTIC, ExitType.TAKE_PROFIT)],
)
def test_a_minute_that_touches_both_is_ambiguous(intrabar: Intrabar, exit_type: ExitType):
    rules = make_rules(intrabar=intrabar)
    trade = first_exit(opened(rules), [minute(3, 100, 106, 94, 100)], rules)
    assert trade is not None
    assert (trade.exit_type, trade.ambiguous) == (exit_type, True)


def test_a_minute_that_opens_beyond_the_stop_is_a_gap():
    rules = make_rules()
    trade = first_exit(opened(rules), [minute(9, 90, 91, 89, 90)], rules)
    assert trade is not None
    assert (trade.exit_price, trade.exit_time) == (90, HOUR + 9 * MINUTE_MS)


def test_minutes_that_touch_nothing_end_nothing():
    rules = make_rules()
    assert first_exit(opened(rules), [minute(0, 100, 104.5, 95.5, 100)], rules) is None
    assert watch(start(rules), minute(0, 1, 1, 1, 1), rules, opened_at=HOUR) is None


def test_a_stop_closes_at_the_close_of_the_minute_seen_last():
    rules = make_rules()
    state, seen = opened(rules), minute(7, 101, 103, 101, 102)
    sighting = Sighting(opened_at=HOUR, opening=100.0, minute=seen)
    step = close_out(state, hourly(FLAT)[0], rules, ExitType.MANUAL, sighting=sighting)
    assert step.closed is not None
    assert (step.closed.exit_price, step.closed.exit_candle) == (102, 1)

    again = replay(
        CandleSeries.from_candles(hourly(FLAT)),
        {0: LONG},
        rules,
        ending=ExitType.MANUAL,
        sightings={1: sighting},
    )
    assert again.trades == (step.closed,)
    assert again.state == step.state


@settings(max_examples=100)
@given(scenario=scenarios())
def test_filling_at_the_open_first_changes_nothing(scenario: Scenario):
    rules, state, early = scenario.rules, start(scenario.rules), start(scenario.rules)
    for index, candle in enumerate(scenario.series):
        filled = fill_at_open(early, candle, rules)
        at_close = advance(filled.state, candle, rules)
        step = advance(state, candle, rules)
        assert at_close.state == step.state
        assert (filled.opened, filled.rejected) == (step.opened, step.rejected)
        assert step.closed in {filled.closed, at_close.closed}
        if step.ended is not None:
            break
        taken = scenario.decisions.get(index)
        state = early = step.state
        if taken is not None:
            state = early = decide(step.state, taken, candle, rules, is_last=False).state


@settings(max_examples=100)
@given(scenario=scenarios())
def test_what_was_seen_folds_to_what_happened(scenario: Scenario):
    """A live test over made-up minutes, and then the fold of what it recorded."""
    rules, rng = scenario.rules, random.Random(len(scenario.series))
    state, trades, sightings = start(rules), [], {}
    for index, candle in enumerate(scenario.series):
        steps = [fill_at_open(state, candle, rules)]
        for each in minutes_of(candle, rng):
            ended = watch(steps[-1].state, each, rules, opened_at=candle.open_time)
            if ended is not None:
                steps.append(ended)
                sightings[index] = Sighting(opened_at=candle.open_time, minute=each)
                break
        steps.append(advance(steps[-1].state, candle, rules))
        state = steps[-1].state
        trades += [step.closed for step in steps if step.closed]
        if state.ended is not None:
            break
        taken = scenario.decisions.get(index)
        if taken is not None:
            state = decide(state, taken, candle, rules, is_last=False).state

    again = replay(scenario.series, scenario.decisions, rules, ending=None, sightings=sightings)
    assert list(again.trades) == trades
    assert again.equity[-1] == state.equity


def minutes_of(candle: Candle, rng: random.Random) -> list[Candle]:
    """Four minutes through the candle's prices, its extremes in either order."""
    ways = [candle.open, *rng.sample([candle.low, candle.high], 2), candle.close]
    return [
        Candle(
            open_time=candle.open_time + number * MINUTE_MS,
            open=before,
            high=max(before, after),
            low=min(before, after),
            close=after,
            volume=1.0,
        )
        for number, (before, after) in enumerate(zip([candle.open, *ways[:-1]], ways, strict=True))
    ]


def test_under_close_timing_the_order_fills_at_the_close_before():
    rules = make_rules(fill_timing=FillTiming.CLOSE)
    position = opened(rules).position
    assert position is not None
    assert (position.entry_price, position.entry_candle) == (100, 0)
