"""The named indicators as functions of candles, in TA-Lib where it has them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.candles import CandleSeries
from trading.rolling import (
    rolling_deviation,
    rolling_mean,
    rolling_sum,
    shifted,
)
from trading.ta_lib import talib

Column = NDArray[np.float64]
Columns = tuple[Column, ...]

MAX_PERIOD = 500

# How long an average remembers its start: after 9 N candles an exponential average keeps e^-18 of
# it, after 20 N Wilder's keeps e^-20.
_EXPONENTIAL_MEMORY = 9
_WILDER_MEMORY = 20

_VOLUME_LENGTH = 20
_MONEY_FLOW_LENGTH = 20
_SCORE_LENGTH = 20
_VWAP_LENGTH = 14
_ICHIMOKU_LENGTHS = (9, 26, 52)
_ICHIMOKU_DISPLACEMENT = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One indicator with its parameters: the names of its values and how to compute them.

    `lookback` candles come before its first value, `warm_up` before one that no longer depends on
    where the candles start. An `anchored` indicator never forgets its start, whatever the warm-up.
    """

    name: str
    values: tuple[str, ...]
    lookback: int
    warm_up: int
    anchored: bool
    function: Callable[[CandleSeries], Columns]


def exponential_memory(period: int) -> int:
    """Candles after which an exponential average has forgotten its start."""
    return _EXPONENTIAL_MEMORY * period


def wilder_memory(period: int) -> int:
    """Candles after which Wilder's average has forgotten its start."""
    return _WILDER_MEMORY * period


def rsi(series: CandleSeries, period: int) -> Columns:
    return (talib.RSI(series.close, timeperiod=period),)


def macd(series: CandleSeries, _period: int) -> Columns:
    return _lines(talib.MACD(series.close, fastperiod=12, slowperiod=26, signalperiod=9))


def ema(series: CandleSeries, period: int) -> Columns:
    return (talib.EMA(series.close, timeperiod=period),)


def sma(series: CandleSeries, period: int) -> Columns:
    return (talib.SMA(series.close, timeperiod=period),)


def wma(series: CandleSeries, period: int) -> Columns:
    return (talib.WMA(series.close, timeperiod=period),)


def atr(series: CandleSeries, period: int) -> Columns:
    return (talib.ATR(series.high, series.low, series.close, timeperiod=period),)


def bollinger(series: CandleSeries, _period: int) -> Columns:
    return _lines(talib.BBANDS(series.close, timeperiod=20, nbdevup=2, nbdevdn=2))


def stochastic(series: CandleSeries, _period: int) -> Columns:
    return _stochastic(series.high, series.low, series.close)


def volume(series: CandleSeries, _period: int) -> Columns:
    return series.volume, rolling_mean(series.volume, _VOLUME_LENGTH)


def adx(series: CandleSeries, period: int) -> Columns:
    return (talib.ADX(series.high, series.low, series.close, timeperiod=period),)


def cci(series: CandleSeries, period: int) -> Columns:
    return (talib.CCI(series.high, series.low, series.close, timeperiod=period),)


def mfi(series: CandleSeries, period: int) -> Columns:
    """Null where nothing was traded in the window, which TA-Lib calls 0."""
    flow = talib.MFI(series.high, series.low, series.close, series.volume, timeperiod=period)
    return (np.where(rolling_sum(series.volume, period) > 0, flow, np.nan),)


def willr(series: CandleSeries, period: int) -> Columns:
    return (talib.WILLR(series.high, series.low, series.close, timeperiod=period),)


def roc(series: CandleSeries, period: int) -> Columns:
    return (talib.ROC(series.close, timeperiod=period),)


def mom(series: CandleSeries, period: int) -> Columns:
    return (talib.MOM(series.close, timeperiod=period),)


def obv(series: CandleSeries, _period: int) -> Columns:
    return (talib.OBV(series.close, series.volume),)


def accumulation(series: CandleSeries, _period: int) -> Columns:
    return (talib.AD(series.high, series.low, series.close, series.volume),)


def money_flow(series: CandleSeries, _period: int) -> Columns:
    """Chaikin's: where in its range each candle closed, weighted by volume."""
    span = series.high - series.low
    place = (series.close - series.low) - (series.high - series.close)
    flow = np.divide(place, span, out=np.zeros(len(series)), where=span > 0) * series.volume
    traded = rolling_sum(series.volume, _MONEY_FLOW_LENGTH)
    return (_ratio(rolling_sum(flow, _MONEY_FLOW_LENGTH), traded),)


def awesome(series: CandleSeries, _period: int) -> Columns:
    return (talib.AO(series.high, series.low, fastperiod=5, slowperiod=34),)


def zscore(series: CandleSeries, _period: int) -> Columns:
    distance = series.close - rolling_mean(series.close, _SCORE_LENGTH)
    return (_ratio(distance, rolling_deviation(series.close, _SCORE_LENGTH)),)


def vwap(series: CandleSeries, _period: int) -> Columns:
    typical = (series.high + series.low + series.close) / 3
    traded = rolling_sum(series.volume, _VWAP_LENGTH)
    return (_ratio(rolling_sum(typical * series.volume, _VWAP_LENGTH), traded),)


def donchian(series: CandleSeries, period: int) -> Columns:
    return _lines(talib.DONCHIAN(series.high, series.low, timeperiod=period))


def keltner(series: CandleSeries, _period: int) -> Columns:
    middle = talib.EMA(series.close, timeperiod=20)
    width = 2 * talib.ATR(series.high, series.low, series.close, timeperiod=10)
    return middle + width, middle, middle - width


def supertrend(series: CandleSeries, _period: int) -> Columns:
    """The line, its direction (1 up, -1 down), and 1 or -1 where it has just flipped."""
    line, trend = talib.SUPERTREND(
        series.high, series.low, series.close, timeperiod=10, multiplier=3
    )
    direction = np.where(np.isnan(line), np.nan, trend)
    return line, direction, (direction - shifted(direction, 1)) / 2


def ichimoku(series: CandleSeries, _period: int) -> Columns:
    """Tenkan, kijun and the cloud that stands over the candle, drawn 26 candles before it."""
    tenkan, kijun, slow = (
        talib.MIDPRICE(series.high, series.low, timeperiod=length) for length in _ICHIMOKU_LENGTHS
    )
    first = shifted((tenkan + kijun) / 2, _ICHIMOKU_DISPLACEMENT)
    return tenkan, kijun, first, shifted(slow, _ICHIMOKU_DISPLACEMENT)


def psar(series: CandleSeries, _period: int) -> Columns:
    return (talib.SAR(series.high, series.low, acceleration=0.02, maximum=0.2),)


def stochastic_rsi(series: CandleSeries, _period: int) -> Columns:
    strength = talib.RSI(series.close, timeperiod=14)
    known = ~np.isnan(strength)
    lines = np.full((2, len(series)), np.nan)
    values = strength[known]
    lines[:, known] = _stochastic(values, values, values)
    return _lines(lines)


def aroon(series: CandleSeries, period: int) -> Columns:
    down, up = talib.AROON(series.high, series.low, timeperiod=period)
    return up, down, up - down


def _stochastic(high: Column, low: Column, close: Column) -> Columns:
    return _lines(
        talib.STOCH(
            high,
            low,
            close,
            fastk_period=14,
            slowk_period=3,
            slowd_period=3,
        )
    )


def _ratio(numerator: Column, denominator: Column) -> Column:
    """Null where the denominator is 0."""
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _lines(values: Columns | list[Column] | Column) -> Columns:
    return tuple(values)
