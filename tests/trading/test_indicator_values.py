"""Every indicator is what its definition says."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import talib

from local.simulators.exchange import simulated_candles
from trading.candles import CandleSeries, Timeframe
from trading.indicators import compute_indicators, plan_indicators

HOUR = Timeframe.HOUR_1


@cache
def market(count: int = 900) -> CandleSeries:
    return simulated_candles("BTC/USDT", HOUR, start_ms=0, count=count, seed=3)


def compute(identifier: str, series: CandleSeries) -> dict[str, Any]:
    return compute_indicators(plan_indicators([identifier]), series)


WINDOWED = (
    *("sma_50", "bb", "stoch", "volume", "willr", "roc", "mom", "cmf", "ao", "zscore", "vwap"),
    *("donchian", "keltner", "ichimoku", "stochrsi", "aroon"),
)
OTHERS = (
    *("rsi", "macd", "ema", "wma_9", "atr", "adx", "cci", "mfi", "obv", "ad_line", "psar"),
    *("talib:LINEARREG(14)", "talib:STDDEV(5, 2.5)"),
)


def pandas_values(series: CandleSeries) -> dict[str, pd.Series]:
    """Indicators written again with pandas, from their definitions."""
    frame = pd.DataFrame(
        {n: getattr(series, n) for n in ("open", "high", "low", "close", "volume")}
    )
    high, low, close, volume = frame.high, frame.low, frame.close, frame.volume
    typical = (high + low + close) / 3
    place = ((close - low) - (high - close)) / (high - low)
    middle = (high + low) / 2

    def midpoint(length: int) -> pd.Series:
        return (high.rolling(length).max() + low.rolling(length).min()) / 2

    def percent_k(value: pd.Series, top: pd.Series, bottom: pd.Series) -> pd.Series:
        lowest, highest = bottom.rolling(14).min(), top.rolling(14).max()
        return (100 * (value - lowest) / (highest - lowest)).rolling(3).mean()

    rsi = pd.Series(talib.RSI(series.close, 14))
    atr = pd.Series(talib.ATR(series.high, series.low, series.close, 10))
    ema = pd.Series(talib.EMA(series.close, 20))
    mean, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    stoch, stochrsi = percent_k(close, high, low), percent_k(rsi, rsi, rsi)
    stoch_d, stochrsi_d = stoch.rolling(3).mean(), stochrsi.rolling(3).mean()
    since_high = high.rolling(15).apply(
        lambda window: 14 - np.flatnonzero(window == window.max())[-1]
    )
    since_low = low.rolling(15).apply(
        lambda window: 14 - np.flatnonzero(window == window.min())[-1]
    )
    return {
        "sma_50": close.rolling(50).mean(),
        "bb_upper": mean + 2 * deviation,
        "bb_middle": mean,
        "bb_lower": mean - 2 * deviation,
        "stoch_k": stoch.where(stoch_d.notna()),
        "stoch_d": stoch_d,
        "volume": volume,
        "volume_sma": volume.rolling(20).mean(),
        "willr_14": -100
        * (high.rolling(14).max() - close)
        / (high.rolling(14).max() - low.rolling(14).min()),
        "roc_10": 100 * (close / close.shift(10) - 1),
        "mom_10": close - close.shift(10),
        "cmf": (place * volume).rolling(20).sum() / volume.rolling(20).sum(),
        "ao": middle.rolling(5).mean() - middle.rolling(34).mean(),
        "zscore": (close - mean) / deviation,
        "vwap": (typical * volume).rolling(14).sum() / volume.rolling(14).sum(),
        "donchian_20_upper": high.rolling(20).max(),
        "donchian_20_lower": low.rolling(20).min(),
        "donchian_20_middle": midpoint(20),
        "keltner_upper": ema + 2 * atr,
        "keltner_middle": ema,
        "keltner_lower": ema - 2 * atr,
        "ichimoku_tenkan": midpoint(9),
        "ichimoku_kijun": midpoint(26),
        "ichimoku_senkou_a": ((midpoint(9) + midpoint(26)) / 2).shift(26),
        "ichimoku_senkou_b": midpoint(52).shift(26),
        "stochrsi_k": stochrsi.where(stochrsi_d.notna()),
        "stochrsi_d": stochrsi_d,
        "aroon_14_up": 100 * (14 - since_high) / 14,
        "aroon_14_down": 100 * (14 - since_low) / 14,
        "aroon_14_oscillator": 100 * (since_low - since_high) / 14,
    }


def test_windowed_indicators_are_what_their_definitions_say():
    series = market()
    plan = plan_indicators(WINDOWED)
    computed = compute_indicators(plan, series)
    expected = pandas_values(series)
    assert set(computed) == set(expected)
    for name, values in computed.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_others_are_talibs_with_the_parameters_of_the_rules():
    s = market()
    macd, signal, histogram = talib.MACD(s.close, 12, 26, 9)
    expected = {
        "rsi_14": talib.RSI(s.close, 14),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": histogram,
        "ema_20": talib.EMA(s.close, 20),
        "ema_50": talib.EMA(s.close, 50),
        "ema_200": talib.EMA(s.close, 200),
        "wma_9": talib.WMA(s.close, 9),
        "atr_14": talib.ATR(s.high, s.low, s.close, 14),
        "adx_14": talib.ADX(s.high, s.low, s.close, 14),
        "cci_20": talib.CCI(s.high, s.low, s.close, 20),
        "mfi_14": talib.MFI(s.high, s.low, s.close, s.volume, 14),
        "obv": talib.OBV(s.close, s.volume),
        "ad": talib.AD(s.high, s.low, s.close, s.volume),
        "psar": talib.SAR(s.high, s.low, 0.02, 0.2),
        "talib_linearreg_14": talib.LINEARREG(s.close, 14),
        "talib_stddev_5_2p5": talib.STDDEV(s.close, 5, 2.5),
    }
    computed = compute_indicators(
        plan_indicators(OTHERS),
        s,
    )
    assert list(computed) == list(expected)
    for name, values in computed.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_supertrend_flips_where_its_direction_changes():
    series = market(6000)
    values = compute("supertrend", series)
    line, direction, flip = (
        values[f"supertrend{part}"][11:] for part in ("", "_direction", "_flip")
    )
    close = series.close[11:]
    assert set(np.unique(direction)) == {-1.0, 1.0}
    np.testing.assert_array_equal(direction, np.where(close > line, 1.0, -1.0))
    np.testing.assert_array_equal(flip[1:], np.diff(direction) / 2)
    assert set(np.unique(flip)) == {-1.0, 0.0, 1.0}


def test_whole_numbers_of_talib_are_null_before_their_first_value():
    values = compute("talib:CDLDOJI", market())["talib_cdldoji"]
    assert np.isnan(values[:10]).all()
    assert set(np.unique(values[10:])) == {0.0, 100.0}
