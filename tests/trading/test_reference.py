"""The engine gives what an independent reading of the rules gives, and what a peer gives."""

import math
from typing import Any

from hypothesis import given, settings

from tests.trading.reference import ReferenceTest
from tests.trading.scenarios import Scenario, scenarios
from trading.orders import Trade
from trading.simulation import replay

TRADE_FIELDS = {
    "side": "side",
    "entry_price": "entry",
    "entry_time": "entry_time",
    "entry_candle": "entry_candle",
    "exit_price": "exit",
    "exit_time": "exit_time",
    "exit_candle": "exit_candle",
    "exit_type": "why",
    "size": "size",
    "leverage": "leverage",
    "stop_price": "stop",
    "target_price": "target",
    "fees": "fees",
    "gross_pnl": "gross",
    "pnl_amount": "net",
    "pnl_fraction": "on_margin",
    "ambiguous": "ambiguous",
}


@settings(max_examples=600)
@given(scenario=scenarios())
def test_trades_equity_and_costs_are_those_of_the_reference(scenario: Scenario):
    compare(scenario)


def compare(scenario: Scenario) -> None:
    expected = ReferenceTest(scenario.settings).run(scenario.rows, scenario.words)
    result = replay(scenario.series, scenario.decisions, scenario.rules)
    state, capital = result.state, scenario.settings["capital"]
    assert [(r.decided_candle, r.reason) for r in result.rejections] == expected.rejections
    assert len(result.trades) == len(expected.trades)
    for trade, words in zip(result.trades, expected.trades, strict=True):
        assert_same_trade(trade, words, capital)
    assert_close(result.equity.tolist(), expected.curve, capital)
    actual = [state.fees_paid, state.slippage_paid, state.max_drawdown]
    wanted = [expected.costs["fees"], expected.costs["slippage"], expected.worst_drawdown()]
    assert_close(actual, wanted, capital)
    assert state.ended == expected.ended
    assert state.ambiguous_candles == expected.ambiguous
    assert state.exposed_candles == expected.exposed


def assert_same_trade(trade: Trade, words: dict[str, Any], scale: float) -> None:
    for field, word in TRADE_FIELDS.items():
        actual, wanted = getattr(trade, field), words[word]
        if isinstance(wanted, float):
            assert math.isclose(actual, wanted, rel_tol=1e-9, abs_tol=1e-9 * scale), field
        else:
            assert actual == wanted, field


def assert_close(actual: list[float], wanted: list[float], scale: float) -> None:
    assert len(actual) == len(wanted)
    for one, other in zip(actual, wanted, strict=True):
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9 * scale)
