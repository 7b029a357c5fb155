"""How long each TA-Lib function remembers where the candles started."""

import math
from collections.abc import Callable, Mapping

from trading.indicator_functions import exponential_memory, wilder_memory

Parameters = Mapping[str, float]
_Memory = Callable[[Parameters], int]

_HILBERT_CANDLES = 500
_REVERSAL_CANDLES = 300
_HEIKIN_ASHI_CANDLES = 60  # each open keeps half of the one before
_KAMA_CANDLES = 1000  # it may all but stand still

# TA-Lib's numbers for kinds of moving average, as the parameters `…matype` take them.
_EXPONENTIALS_DEEP = {1: 1, 3: 2, 4: 3, 8: 6, 12: 1}  # EMA, DEMA, TEMA, T3, ZLEMA
_KAMA, _MAMA, _FUNCTIONS_OWN, _WILDER = 6, 7, 11, 13
_ANCHORED_AVERAGES = frozenset({_KAMA, _MAMA, 8})

_ANCHORED = frozenset(
    {
        *("AD", "CUMSUM", "KAMA", "MAMA", "NVI", "OBV", "PVI", "PVT", "T3", "TRIX", "VWAP", "WAD"),
        *("SAR", "SAREXT", "SUPERTREND"),
        *("HT_DCPERIOD", "HT_DCPHASE", "HT_PHASOR", "HT_SINE", "HT_TRENDLINE", "HT_TRENDMODE"),
    }
)


def memory(name: str, parameters: Parameters) -> int:
    """Candles after which a function has forgotten the start; 0 for a function of a window."""
    return _MEMORY[name](parameters) if name in _MEMORY else 0


def is_anchored(name: str, parameters: Parameters) -> bool:
    """Whether a function never forgets the start for certain."""
    kinds = {int(value) for key, value in parameters.items() if key.endswith("matype")}
    return name in _ANCHORED or not kinds.isdisjoint(_ANCHORED_AVERAGES)


def _average(parameters: Parameters, period: str, kind: str) -> int:
    length, number = int(parameters[period]), int(parameters[kind])
    if number in _EXPONENTIALS_DEEP:
        return _EXPONENTIALS_DEEP[number] * exponential_memory(length)
    others = {
        _KAMA: _KAMA_CANDLES,
        _MAMA: _HILBERT_CANDLES,
        _FUNCTIONS_OWN: wilder_memory(length),
        _WILDER: wilder_memory(length),
    }
    return others.get(number, length)


def _averages(*pairs: tuple[str, str]) -> _Memory:
    return lambda parameters: sum(_average(parameters, period, kind) for period, kind in pairs)


def _exponential(*periods: str, deep: int = 1) -> _Memory:
    return lambda parameters: deep * exponential_memory(sum(int(parameters[p]) for p in periods))


def _wilder(*periods: str, deep: int = 1) -> _Memory:
    return lambda parameters: deep * wilder_memory(sum(int(parameters[p]) for p in periods))


def _window(*periods: str) -> _Memory:
    return lambda parameters: sum(int(parameters[period]) for period in periods)


def _fixed(candles: int) -> _Memory:
    return lambda _parameters: candles


def _sum(*memories: _Memory) -> _Memory:
    return lambda parameters: sum(each(parameters) for each in memories)


def _mama(parameters: Parameters) -> int:
    return _HILBERT_CANDLES + math.ceil(exponential_memory(2) / parameters["slowlimit"])


_MEMORY: Mapping[str, _Memory] = {
    **dict.fromkeys(("ATR", "CMO", "DX", "NATR", "RMA", "RSI"), _wilder("timeperiod")),
    "RVI": _sum(_wilder("timeperiod"), _window("stddevperiod")),
    **dict.fromkeys(("MINUS_DI", "MINUS_DM", "PLUS_DI", "PLUS_DM"), _wilder("timeperiod")),
    "ADX": _wilder("timeperiod", deep=2),
    "ADXR": _sum(_wilder("timeperiod", deep=2), _window("timeperiod")),
    **dict.fromkeys(("EFI", "EMA", "ERI"), _exponential("timeperiod")),
    "CVI": _sum(_exponential("timeperiod"), _window("rocperiod")),
    "ZLEMA": _sum(_exponential("timeperiod"), _window("timeperiod")),
    "DEMA": _exponential("timeperiod", deep=2),
    **dict.fromkeys(("TEMA", "TRIX"), _exponential("timeperiod", deep=3)),
    "T3": _exponential("timeperiod", deep=6),
    "TSI": _exponential("firstperiod", "secondperiod"),
    "MACD": _exponential("fastperiod", "slowperiod", "signalperiod"),
    "SMI": _sum(_exponential("fastperiod", "slowperiod", "signalperiod"), _window("timeperiod")),
    "MACDFIX": _sum(_fixed(exponential_memory(12 + 26)), _exponential("signalperiod")),
    "MACDEXT": _averages(
        ("fastperiod", "fastmatype"), ("slowperiod", "slowmatype"), ("signalperiod", "signalmatype")
    ),
    "MASSI": _sum(_exponential("fastperiod", deep=2), _window("slowperiod")),
    "ADOSC": _exponential("fastperiod", "slowperiod"),
    **dict.fromkeys(
        ("APO", "PPO", "PVO"), _averages(("fastperiod", "matype"), ("slowperiod", "matype"))
    ),
    **dict.fromkeys(("BBANDS", "MA"), _averages(("timeperiod", "matype"))),
    "STOCHF": _sum(_window("fastk_period"), _averages(("fastd_period", "fastd_matype"))),
    "STOCHRSI": _sum(
        _wilder("timeperiod"),
        _window("fastk_period"),
        _averages(("fastd_period", "fastd_matype")),
    ),
    **dict.fromkeys(
        ("KDJ", "STOCH"),
        _sum(
            _window("fastk_period"),
            _averages(("slowk_period", "slowk_matype"), ("slowd_period", "slowd_matype")),
        ),
    ),
    "KC": _sum(_exponential("timeperiod"), _wilder("atrperiod")),
    "KAMA": _fixed(_KAMA_CANDLES),
    "MAMA": _mama,
    **dict.fromkeys(
        (name for name in _ANCHORED if name.startswith("HT_")), _fixed(_HILBERT_CANDLES)
    ),
    **dict.fromkeys(("SAR", "SAREXT"), _fixed(_REVERSAL_CANDLES)),
    "SUPERTREND": _sum(_wilder("timeperiod"), _fixed(_REVERSAL_CANDLES)),
    "HA": _fixed(_HEIKIN_ASHI_CANDLES),
}
