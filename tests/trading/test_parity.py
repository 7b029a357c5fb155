"""A recording folds to what it recorded, and whatever was changed in it is found and named."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.trading.scenarios import HOUR, Scenario, decision, hourly, make_rules, scenarios
from trading.candles import Candle, CandleSeries
from trading.decisions import Decision
from trading.orders import ExitType, Side, Trade
from trading.parity import Difference, Parity, Recording, check_parity
from trading.rules import Rules
from trading.simulation import Sighting, replay

LONG = decision("long", stop_loss_distance=0.05, take_profit_distance=0.05)
RISING = CandleSeries.from_candles(
    hourly((100, 101, 99, 100), (100, 103, 99, 102), (102, 106, 101, 104), (104, 105, 98, 99))
)
RULES = make_rules(fee_rate=0.001, slippage_rate=0.0005)


def recorded(
    series: CandleSeries,
    decisions: Mapping[int, Decision],
    rules: Rules = RULES,
    *,
    ending: ExitType | None = ExitType.END_OF_TEST,
    sightings: Mapping[int, Sighting] | None = None,
) -> Recording:
    """What a test over these candles would leave behind."""
    sightings = sightings or {}
    told = replay(series, decisions, rules, ending=ending, sightings=sightings)
    stepped = series.slice(0, told.equity.size)
    position = told.state.position
    return Recording(
        candles=stepped,
        window=series,
        fingerprint=series.fingerprint(),
        decisions=decisions,
        sightings=sightings,
        rules=rules,
        ending=ending,
        trades=told.trades,
        left_open=[] if position is None else [position],
        open_times=stepped.open_time,
        equity=told.equity,
        ending_equity=told.state.equity,
        seen_at=np.arange(len(stepped)),
        seen=stepped,
        live_prices={},
    )


def found(parity: Parity) -> list[tuple[int | None, int | None, str]]:
    return [(each.trade_number, each.candle, each.field) for each in parity.differences]


def with_candle(series: CandleSeries, index: int, **changes: Any) -> CandleSeries:
    candles = list(series)
    candles[index] = replace(candles[index], **changes)
    return CandleSeries.from_candles(candles)


@settings(max_examples=60)
@given(scenario=scenarios())
def test_a_recording_folds_to_what_it_recorded(scenario: Scenario):
    for ending in (ExitType.END_OF_TEST, ExitType.MANUAL, None):
        recording = recorded(scenario.series, scenario.decisions, scenario.rules, ending=ending)
        parity = check_parity(recording)
        assert parity.is_equal
        assert parity.max_equity_difference == 0
        assert parity.recorded_equity == parity.refolded_equity


COMPARED = [
    field.name
    for field in fields(Trade)
    if field.name not in {"trade_number", "pnl_fraction", "overrides"}
]
OTHER: Mapping[str, Any] = {"side": Side.SHORT, "exit_type": ExitType.GUARD, "ambiguous": True}
ROW_NAMES = {"side": "type", "stop_price": "stop_loss", "target_price": "take_profit"}


@pytest.mark.parametrize("name", COMPARED)
def test_each_field_of_a_trade_is_compared_to_its_last_bit(name: str):
    recording = recorded(RISING, {0: LONG})
    (trade,) = recording.trades
    was = getattr(trade, name)
    wrong = OTHER.get(name, np.nextafter(was, 0).item() if isinstance(was, float) else 7)
    parity = check_parity(replace(recording, trades=[replace(trade, **{name: wrong})]))
    assert parity.differences == (
        Difference(trade_number=1, field=ROW_NAMES.get(name, name), recorded=wrong, refolded=was),
    )


def test_a_trade_that_one_side_lacks_is_named():
    recording = recorded(RISING, {0: LONG})
    (trade,) = recording.trades
    gone = check_parity(replace(recording, trades=[]))
    added = check_parity(replace(recording, trades=[trade, replace(trade, trade_number=2)]))
    assert gone.differences == (
        Difference(trade_number=1, field="trade", recorded=None, refolded="long from candle 1"),
    )
    assert added.differences == (
        Difference(trade_number=2, field="trade", recorded="long from candle 1", refolded=None),
    )
    assert (added.trades_recorded, added.trades_refolded) == (2, 1)


def test_a_position_that_was_left_open_is_compared_as_well():
    recording = recorded(RISING.slice(0, 3), {1: LONG}, ending=None)
    (position,) = recording.left_open
    assert check_parity(recording).is_equal
    parity = check_parity(replace(recording, left_open=[replace(position, entry_fee=1.0)]))
    assert found(parity) == [(1, None, "fees")]


def test_a_changed_decision_shows_in_the_trades():
    recording = recorded(RISING, {0: LONG, 1: decision("hold")})
    parity = check_parity(replace(recording, decisions={0: decision("short")}))
    assert (1, None, "type") in found(parity)
    assert (None, 1, "equity") in found(parity)
    assert parity.max_equity_difference > 1


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_a_changed_candle_is_named_even_where_it_moves_no_trade(name: str):
    recording = recorded(RISING, {})
    was = float(getattr(RISING, name)[2])
    changed = with_candle(RISING, 2, **{name: was * 1.001})
    parity = check_parity(replace(recording, candles=changed, window=changed))
    assert found(parity) == [(None, 2, name), (None, None, "data_fingerprint")]
    assert parity.differences[0].recorded == was


def test_a_candle_that_nobody_kept_is_known_by_the_fingerprint():
    recording = recorded(RISING, {})
    unseen = CandleSeries.from_candles([])
    changed = with_candle(RISING, 2, volume=2.0)
    blind = replace(recording, seen=unseen, seen_at=np.array([], dtype=np.int64))
    parity = check_parity(replace(blind, candles=changed, window=changed))
    assert found(parity) == [(None, None, "data_fingerprint")]


def test_a_candle_that_is_gone_is_named_and_those_behind_it_are_not():
    recording = replace(recorded(RISING, {}), fingerprint=None)
    candles = list(RISING)
    shorter = CandleSeries.from_candles([*candles[:1], *candles[2:]])
    parity = check_parity(replace(recording, candles=shorter))
    assert parity.differences[0] == Difference(
        candle=1, field="open_time", recorded=HOUR, refolded=2 * HOUR
    )
    assert {each.candle for each in parity.differences} == {1, 3}  # 3: the last point of equity
    cut = check_parity(replace(recording, candles=RISING.slice(0, 3)))
    assert cut.differences[0] == Difference(
        candle=3, field="open_time", recorded=3 * HOUR, refolded=None
    )


def test_of_the_equity_curve_the_first_point_that_differs_is_told():
    recording = recorded(RISING, {0: LONG})
    curve = recording.equity.copy()
    curve[1:] += 0.25
    parity = check_parity(replace(recording, equity=curve))
    assert found(parity) == [(None, 1, "equity")]
    assert parity.max_equity_difference == pytest.approx(0.25)
    richer = check_parity(replace(recording, ending_equity=recording.ending_equity + 1))
    assert found(richer) == [(None, 3, "equity"), (None, None, "ending_equity")]


def test_an_exit_between_closes_is_folded_by_the_minute_that_was_seen():
    minute = Candle(open_time=2 * HOUR, open=102, high=105.5, low=102, close=105, volume=1.0)
    sighting = Sighting(opened_at=2 * HOUR, minute=minute)
    recording = recorded(RISING, {0: LONG}, sightings={2: sighting})
    parity = check_parity(recording)
    assert (parity.is_equal, parity.sightings) == (True, 1)
    (trade,) = recording.trades
    assert trade.exit_type is ExitType.TAKE_PROFIT
    lost = check_parity(replace(recording, sightings={}))
    assert (1, None, "exit_time") in found(lost)


def test_the_drift_is_what_the_market_had_gone_on_against_the_entry():
    short = decision("short", stop_loss_distance=0.5)
    recording = recorded(RISING, {0: LONG, 1: decision("close"), 2: short})
    assert [trade.side for trade in recording.trades] == [Side.LONG, Side.SHORT]
    opens = {0: 100.0, 2: 104.0}
    live = {0: opens[0] * 1.002, 1: 500.0, 2: opens[2] * 1.001}
    drift = check_parity(replace(recording, live_prices=live)).drift
    assert drift.entries == 2
    assert drift.worst == pytest.approx(0.002)
    assert drift.mean == pytest.approx((0.002 - 0.001) / 2)
    assert check_parity(recording).drift.mean is None


def test_a_test_without_a_candle_equals_itself():
    parity = check_parity(recorded(RISING.slice(0, 0), {}))
    assert (parity.is_equal, parity.candles, parity.max_equity_difference) == (True, 0, 0)
