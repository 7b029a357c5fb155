"""Every indicator knows only the past, forgets where the candles start, and is what it says."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from integrations.candle_files import read_candle_file
from local.simulators.exchange import simulated_candles
from trading.candles import CandleSeries, Timeframe
from trading.indicators import (
    CustomIndicator,
    IndicatorPlan,
    catalog,
    compute_indicators,
    plan_indicators,
)

CATALOG = [entry for group in catalog().values() for entry in group]
NAMED = [entry["id"] for entry in CATALOG if not entry["id"].startswith("talib:")]
TALIB = [entry["id"] for entry in CATALOG if entry["id"].startswith("talib:")]
WITH_PERIODS = [
    *(
        "rsi_2",
        "rsi_50",
        "ema_1",
        "ema_7",
        "ema_150",
        "sma_1",
        "sma_130",
        "wma_9",
        "atr_1",
        "atr_40",
    ),
    *(
        "adx_2",
        "adx_30",
        "cci_50",
        "mfi_50",
        "willr_3",
        "roc_1",
        "mom_30",
        "donchian_55",
        "aroon_25",
    ),
]
AVERAGES = [
    f"talib:{call}"
    for kind in range(14)
    for call in (
        f"MA(25,{kind})",
        f"BBANDS(25,2,2,{kind})",
        f"STOCH(14,5,{kind},7,{kind})",
        f"STOCHF(14,5,{kind})",
        f"KDJ(9,5,{kind},7,{kind})",
        f"MACDEXT(10,{kind},20,{kind},7,{kind})",
        f"PPO(10,25,{kind})",
        f"APO(10,25,{kind})",
        f"STOCHRSI(14,9,5,{kind})",
    )
]
TALIB_WITH_PARAMETERS = [
    *("talib:T3(20)", "talib:TEMA(60)", "talib:TRIX(40)", "talib:KC(50,30,2)", "talib:TSI(40,20)"),
    *("talib:SMI(20,5,40,12)", "talib:MASSI(15,40)", "talib:CVI(30,20)", "talib:ADOSC(10,40)"),
    *("talib:MACD(20,60,15)", "talib:ERI(60)", "talib:EFI(60)", "talib:ZLEMA(60)"),
    *("talib:RVI(30,20)", "talib:ADXR(40)", "talib:RMA(60)", "talib:NATR(60)", "talib:DEMA(50)"),
    *("talib:MACDFIX(20)", "talib:KAMA(10)", "talib:MAMA(0.5,0.01)", "talib:FRACTAL(5,3)"),
    *("talib:SAREXT(0,0,0.01)", "talib:HMA(60)", "talib:PVO(10,30)", "talib:PERCENTILE(90,12.5)"),
    *AVERAGES,
]
EVERY = [*NAMED, *TALIB, *WITH_PERIODS, *TALIB_WITH_PARAMETERS]

REMEMBERS_ITS_START = {
    *("obv", "ad", "psar", "supertrend"),
    *("KAMA", "MAMA", "T3", "TRIX", "SAREXT", "HT_DCPERIOD", "HT_DCPHASE", "HT_PHASOR"),
    *("HT_SINE", "HT_TRENDLINE", "HT_TRENDMODE"),
    # TA-Lib's own forms of the above, and its other running totals.
    *("OBV", "AD", "SAR", "SUPERTREND", "CUMSUM", "NVI", "PVI", "PVT", "VWAP", "WAD"),
}
HOUR = Timeframe.HOUR_1


@cache
def market(count: int = 6000, seed: int = 3) -> CandleSeries:
    return simulated_candles("BTC/USDT", HOUR, start_ms=0, count=count, seed=seed)


def constant(count: int = 400, **changes: float) -> CandleSeries:
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 37.1) | changes
    return CandleSeries(
        open_time=np.arange(count) * HOUR.milliseconds,
        **{name: np.full(count, value) for name, value in prices.items()},
    )


def compute(identifier: str, series: CandleSeries) -> dict[str, Any]:
    return compute_indicators(plan_indicators([identifier]), series)


def is_anchored(identifier: str) -> bool:
    name = identifier.removeprefix("talib:").split("(")[0]
    # Averages of kind 6, 7 and 8 are KAMA, MAMA and T3.
    return name in REMEMBERS_ITS_START or (
        identifier in AVERAGES and identifier.rstrip(")").split(",")[-1] in {"6", "7", "8"}
    )


@pytest.mark.parametrize("identifier", EVERY)
def test_a_value_does_not_depend_on_later_candles(identifier: str):
    series = market(900)
    whole = compute(identifier, series)
    for stop in (1, 2, 3, 17, 40, 64, 101, 233, 380, 517, 640, 899):
        for name, values in compute(identifier, series.slice(0, stop)).items():
            np.testing.assert_array_equal(values, whole[name][:stop], strict=True)


@given(st.integers(1, 700), st.integers(0, 2**32), st.lists(st.sampled_from(EVERY), max_size=40))
def test_a_set_of_indicators_does_not_depend_on_later_candles(
    stop: int, seed: int, identifiers: list[str]
):
    series = market(700, seed % 5)
    plan = plan_indicators(identifiers)
    whole = compute_indicators(plan, series)
    for name, values in compute_indicators(plan, series.slice(0, stop)).items():
        np.testing.assert_array_equal(values, whole[name][:stop], strict=True)


@pytest.mark.parametrize("identifier", [each for each in EVERY if not is_anchored(each)])
def test_a_value_after_the_warm_up_does_not_depend_on_where_the_candles_start(identifier: str):
    check_convergence(identifier, market())


def test_real_values_after_the_warm_up_do_not_depend_on_where_the_candles_start(
    candle_files: Path,
):
    for file in ("BTCUSDT_1h.csv", "SOLUSDT_1h.csv"):
        series = read_candle_file(candle_files / file, file, HOUR).slice(0, 6000)
        for identifier in EVERY:
            if not is_anchored(identifier):
                check_convergence(identifier, series)


def check_convergence(identifier: str, series: CandleSeries) -> None:
    plan = plan_indicators([identifier])
    for start in (2 * plan.warm_up, 2 * plan.warm_up + 777):
        assert start < len(series) - 300, "too few candles for the test"
        once = compute_indicators(plan, series.slice(start - plan.warm_up, len(series)))
        twice = compute_indicators(plan, series.slice(start - 2 * plan.warm_up, len(series)))
        for name in plan.value_names:
            short, long = once[name][plan.warm_up :], twice[name][2 * plan.warm_up :]
            np.testing.assert_array_equal(np.isnan(short), np.isnan(long))
            known = ~np.isnan(short)
            scale = np.median(np.abs(long[known])) if known.any() else 0.0
            assert np.all(np.abs(short - long)[known] <= 1e-6 * scale), name


def test_the_catalogue_lists_those_that_remember_their_start():
    listed = {entry["id"].removeprefix("talib:") for entry in CATALOG if entry["anchored"]}
    assert listed == REMEMBERS_ITS_START


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry["id"])
def test_every_line_has_a_value_from_its_history_on_and_one_of_them_no_sooner(
    entry: dict[str, Any],
):
    values = compute(entry["id"], market(900))
    assert list(values) == entry["values"]
    if entry["id"] in {"talib:ACOS", "talib:ASIN", "talib:COSH", "talib:EXP", "talib:SINH"}:
        return  # not of a price of 30,000
    first = [int(np.argmax(~np.isnan(column))) for column in values.values()]
    assert max(first) == entry["min_history"] - 1 <= max(entry["warm_up"], 1)


@pytest.mark.parametrize(
    ("identifier", "warm_up"),
    [("ema_50", 450), ("rsi_14", 280), ("atr_14", 280), ("sma_50", 49), ("adx_14", 560)],
)
def test_the_warm_up_is_the_length_of_convergence(identifier: str, warm_up: int):
    assert plan_indicators([identifier]).warm_up == warm_up
    assert plan_indicators([identifier, "volume", "sma_20"]).warm_up == warm_up


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 14, 15])
def test_a_few_candles_are_enough_to_ask_every_indicator(count: int):
    for identifier in EVERY:
        for values in compute(identifier, market(900).slice(0, count)).values():
            assert (values.shape, values.dtype) == ((count,), np.float64)


QUIET_MARKETS = {
    "constant": constant(),
    "untraded": constant(volume=0.0),
    "tiny": market(900).scaled(1e-10, 1e-6),
    "huge": market(900).scaled(1e9, 1e9),
    "closed": CandleSeries.from_rows(
        [(*row[:5], row[5] if index < 450 else 0.0) for index, row in enumerate(market(900).rows())]
    ),
}


@pytest.mark.parametrize("name", QUIET_MARKETS)
def test_no_market_gives_an_infinity(name: str):
    for identifier in EVERY:
        for values in compute(identifier, QUIET_MARKETS[name]).values():
            assert not np.isinf(values).any(), identifier


@pytest.mark.parametrize(
    "identifier", ["vwap", "cmf", "mfi", "talib:VWMA", "talib:MFI", "talib:CMF", "talib:RVOL"]
)
@pytest.mark.parametrize("name", ["untraded", "closed"])
def test_what_is_weighted_by_volume_is_null_where_nothing_was_traded(name: str, identifier: str):
    for values in compute(identifier, QUIET_MARKETS[name]).values():
        assert np.isnan(values[-1])


def test_a_mean_of_no_volume_is_exactly_zero():
    assert compute("volume", QUIET_MARKETS["closed"])["volume_sma"][-1] == 0.0


def test_a_price_that_stands_still_has_no_score():
    assert np.isnan(compute("zscore", constant())["zscore"]).all()


def test_the_unit_of_price_does_not_matter_to_what_has_none():
    scaled = market(900).scaled(1e-7, 1e-3)
    for identifier in ("rsi", "adx", "stochrsi", "mfi", "cci", "zscore", "cmf", "aroon", "willr"):
        for name, values in compute(identifier, market(900)).items():
            np.testing.assert_allclose(
                compute(identifier, scaled)[name], values, rtol=1e-6, atol=1e-9
            )


TWENTY = [
    *("rsi", "macd", "ema", "sma", "wma_30", "atr", "bb", "stoch", "volume", "adx", "cci", "mfi"),
    *("supertrend", "ichimoku", "psar", "stochrsi", "aroon", "keltner", "zscore", "cmf"),
]


def twenty() -> IndicatorPlan:
    return plan_indicators(
        TWENTY, [CustomIndicator(name="x", formula="highest(close, 100) - talib_linearreg_14")]
    )


def test_threads_do_not_change_the_values():
    alone = [compute_indicators(twenty(), market(2000, seed)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda n: compute_indicators(twenty(), market(2000, n % 4)), range(32))
        )
    for number, values in enumerate(together):
        for name, column in values.items():
            np.testing.assert_array_equal(column, alone[number % 4][name])


def test_talibs_global_settings_are_left_alone():
    compute_indicators(twenty(), market(900))
    stubless: Any = talib
    assert stubless.get_unstable_period("RSI") == 0
    assert stubless.get_compatibility() == 0
