"""How indicators are written: identifiers, parameters, limits and custom formulas."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import talib

from local.simulators.exchange import simulated_candles
from trading.candles import CandleSeries, Timeframe
from trading.errors import InvalidFormula, TradingError, UnknownIndicator
from trading.indicators import CustomIndicator, compute_indicators, plan_indicators

HOUR = Timeframe.HOUR_1


@cache
def market(count: int = 900) -> CandleSeries:
    return simulated_candles("BTC/USDT", HOUR, start_ms=0, count=count, seed=3)


def compute(identifier: str, series: CandleSeries) -> dict[str, Any]:
    return compute_indicators(plan_indicators([identifier]), series)


UNKNOWN = [
    *(
        "",
        "foo",
        "rsi14",
        "rsi_",
        "_rsi",
        "rsi_14_2",
        "rsi_-3",
        "sma_1.5",
        "bb_20",
        "obv_3",
        "macd_9",
    ),
    *("talib:", "talib:NOPE", "talib:RSI(14", "talib:RSI(14))", "talib_nope", "rsi\0", "x" * 5000),
    *("__import__", "talib:__class__", "rsi_\u0661\u0664", "close"),
]


@pytest.mark.parametrize(
    ("identifier", "names"),
    [
        ("rsi", ["rsi_14"]),
        ("RSI_21 ", ["rsi_21"]),
        ("ema", ["ema_20", "ema_50", "ema_200"]),
        ("sma", ["sma_20", "sma_50", "sma_200"]),
        ("bb", ["bb_upper", "bb_middle", "bb_lower"]),
        ("bbands", ["bb_upper", "bb_middle", "bb_lower"]),
        ("bollinger", ["bb_upper", "bb_middle", "bb_lower"]),
        ("stochastic", ["stoch_k", "stoch_d"]),
        ("ad_line", ["ad"]),
        ("dc", ["donchian_20_upper", "donchian_20_middle", "donchian_20_lower"]),
        ("dc_55", ["donchian_55_upper", "donchian_55_middle", "donchian_55_lower"]),
        ("kc", ["keltner_upper", "keltner_middle", "keltner_lower"]),
        ("aroon_25", ["aroon_25_up", "aroon_25_down", "aroon_25_oscillator"]),
        ("talib:linearreg", ["talib_linearreg"]),
        ("talib:LINEARREG( 14 )", ["talib_linearreg_14"]),
        ("talib:STDDEV(nbdev=0.5)", ["talib_stddev_5_0p5"]),
        ("talib_stddev_5_0p5", ["talib_stddev_5_0p5"]),
        ("talib:AROON(7)", ["talib_aroon_7_aroondown", "talib_aroon_7_aroonup"]),
    ],
)
def test_identifiers_give_values_of_these_names(identifier: str, names: list[str]):
    assert list(plan_indicators([identifier]).value_names) == names


def test_an_indicator_named_twice_is_there_once():
    plan = plan_indicators(["rsi", "rsi_14", "ema", "ema_50", "bb", "bollinger"])
    assert len(plan.value_names) == len(set(plan.value_names)) == 7


@pytest.mark.parametrize("identifier", UNKNOWN)
def test_an_unknown_indicator_is_refused(identifier: str):
    with pytest.raises(UnknownIndicator):
        plan_indicators([identifier])


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("sma_0", "from 1 to 500"),
        ("sma_501", "from 1 to 500"),
        (f"sma_{'9' * 60}", "from 1 to 500"),
        ("rsi_1", "from 2 to 500"),
        ("talib:RSI(501)", "at most 500"),
        ("talib:RSI(1)", r"\(timeperiod=14\)"),
        ("talib:RSI(14, 3)", r"\(timeperiod=14\)"),
        ("talib:RSI(2.5)", "a whole number"),
        ("talib:RSI(price)", r"\(timeperiod=14\)"),
        ("talib:RSI(length=14)", r"\(timeperiod=14\)"),
        ("talib:RSI(14, timeperiod=14)", r"\(timeperiod=14\)"),
        ("talib:BBANDS(20,nan)", "does not take"),
        ("talib:BBANDS(20,1e999)", "does not take"),
        ("talib:MA(20,14)", "does not take"),
        ("talib:AVGPRICE(1)", "takes no parameters"),
        ("talib:ADD", "two series"),
        ("talib:BETA(5)", "two series"),
        ("talib:MAVP", "two series"),
        ("talib:MAXINDEX(5)", "a position"),
        ("adx_300", "12,000 candles"),
        ("talib:T3(500)", "27,000 candles"),
    ],
)
def test_parameters_out_of_range_are_refused_with_what_is_allowed(identifier: str, reason: str):
    with pytest.raises(TradingError, match=reason):
        plan_indicators([identifier])


def test_the_longest_periods_fit_the_warm_up():
    assert plan_indicators(["rsi_500", "ema_500", "adx_250"]).warm_up == 10_000


def test_too_many_indicators_are_refused():
    plan_indicators([f"sma_{n}" for n in range(1, 41)])
    with pytest.raises(TradingError, match="41 indicators; at most 40"):
        plan_indicators([f"sma_{n}" for n in range(1, 42)])


def test_too_many_formulas_are_refused():
    formulas = [CustomIndicator(name=f"f{n}", formula="close") for n in range(11)]
    plan_indicators([], formulas[:10])
    with pytest.raises(TradingError, match="11 custom indicators; at most 10"):
        plan_indicators([], formulas)


def test_a_formula_reads_indicators_that_the_agent_does_not_list():
    series = market()
    formula = CustomIndicator(name="Stretch", formula="(close - sma_50) / atr_14")
    plan = plan_indicators(["rsi"], [formula])
    values = compute_indicators(plan, series)
    expected = (series.close - talib.SMA(series.close, 50)) / talib.ATR(
        series.high, series.low, series.close, 14
    )
    assert plan.value_names == ("rsi_14", "Stretch")
    assert plan.warm_up == 280
    np.testing.assert_array_equal(values["Stretch"], expected)


@pytest.mark.parametrize(
    ("formula", "identifier", "value"),
    [
        ("rsi", "rsi", "rsi_14"),
        ("bb_upper", "bollinger", "bb_upper"),
        ("macd_signal", "macd", "macd_signal"),
        ("macd", "macd", "macd"),
        ("volume_sma", "volume", "volume_sma"),
        ("donchian_55_upper", "dc_55", "donchian_55_upper"),
        ("supertrend_flip", "supertrend", "supertrend_flip"),
        ("talib_linearreg_14", "talib:LINEARREG(14)", "talib_linearreg_14"),
        ("talib_stddev_5_0p5", "talib:STDDEV(5, 0.5)", "talib_stddev_5_0p5"),
        ("talib_aroon_7_aroonup", "talib:AROON(7)", "talib_aroon_7_aroonup"),
    ],
)
def test_a_formula_calls_values_by_their_names(formula: str, identifier: str, value: str):
    plan = plan_indicators([], [CustomIndicator(name="mine", formula=formula)])
    mine = compute_indicators(plan, market())["mine"]
    np.testing.assert_array_equal(mine, compute(identifier, market())[value])


@pytest.mark.parametrize(
    ("formula", "values"),
    [("bb", "bb_upper, bb_middle"), ("kc_upper", "keltner_upper"), ("stochrsi", "stochrsi_k")],
)
def test_a_name_that_is_not_one_value_is_refused_with_those_there_are(formula: str, values: str):
    with pytest.raises(InvalidFormula, match=values):
        plan_indicators([], [CustomIndicator(name="mine", formula=formula)])


def test_the_warm_up_of_a_formula_adds_up():
    formula = "shift(sma(ema(rsi_14, 10), 20), 5) + cross_over(close, ema_50)"
    plan = plan_indicators([], [CustomIndicator(name="x", formula=formula)])
    assert plan.warm_up == max(20 * 14 + 9 * 10 + 19 + 5, 9 * 50 + 1)


@pytest.mark.parametrize("name", ["", "  ", "x" * 51, "a\nb", "rsi_14", "close", "taken"])
def test_a_name_that_cannot_be_used_is_refused(name: str):
    taken = CustomIndicator(name="taken", formula="close")
    with pytest.raises(TradingError, match="name"):
        plan_indicators(["rsi"], [taken, CustomIndicator(name=name, formula="close")])


def test_a_formula_that_needs_too_much_history_is_refused():
    deep = CustomIndicator(name="deep", formula="ema(ema(ema(close, 500), 500), 500)")
    with pytest.raises(TradingError, match="deep needs 13,500 candles"):
        plan_indicators([], [deep])


def test_a_bad_formula_points_at_its_column():
    with pytest.raises(InvalidFormula, match="no indicator 'sna_50'") as refused:
        plan_indicators([], [CustomIndicator(name="x", formula="close - sna_50")])
    assert refused.value.column == 9
