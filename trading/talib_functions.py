"""Any TA-Lib function by its name, `talib:LINEARREG(14)`, where it is a value at a candle.

The same can be written as a plain name, `talib_linearreg_14`, with `p` for a decimal point and `m`
for a minus; so formulas write it, and so its values are named.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading.candles import CandleSeries
from trading.errors import TradingError, UnknownIndicator
from trading.indicator_functions import MAX_PERIOD, Column, Columns, Indicator
from trading.rolling import rolling_sum, shifted
from trading.ta_lib import talib
from trading.talib_memory import Parameters, is_anchored, memory

_WRITTEN = re.compile(r"talib:\s*([a-z0-9_]+)\s*(?:\(([^()]*)\))?", re.ASCII)
_NAMED = re.compile(r"talib_([a-z0-9_]+)", re.ASCII)
_NAMED_NUMBER = re.compile(r"m?\d+(p\d+)?(em?\d+)?", re.ASCII)
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)

_TALIB: Any = talib  # its stubs leave out the abstract interface
_POSITIONS = frozenset({"MAXINDEX", "MININDEX", "MINMAXINDEX"})


def resolve_talib(identifier: str) -> Indicator | None:
    """The indicator of a lower-case identifier, None when it is not written as a TA-Lib function.

    Raises `UnknownIndicator` for a function that there is not, and `TradingError` for one that is
    no value at a candle, or for parameters that it does not take.
    """
    if match := _WRITTEN.fullmatch(identifier):
        name = match[1].upper()
        if name not in _functions():
            raise UnknownIndicator(identifier, f"TA-Lib has no function {name[:40]}.")
        return _indicator(name, _written_arguments(name, match[2] or ""))
    return _resolve_named(identifier)


def usable_functions() -> Iterator[tuple[str, str, str]]:
    """Every function that can be used: its name, what people call it, and TA-Lib's group."""
    for group, names in _TALIB.get_function_groups().items():
        for name in names:
            if _refusal(name) is None:
                yield name, str(_TALIB.abstract.Function(name).info["display_name"]), group


def default_parameters(name: str) -> dict[str, float]:
    """The parameters of a function in its order."""
    return dict(_TALIB.abstract.Function(name).parameters)


@cache
def _functions() -> frozenset[str]:
    return frozenset(_TALIB.get_functions())


def _refusal(name: str) -> str | None:
    """Why a function is no indicator of candles."""
    inputs = _TALIB.abstract.Function(name).input_names
    if "price0" in inputs or "periods" in inputs:
        return "takes two series of its own; write it as a formula"
    if name in _POSITIONS:
        return "gives a position in the data, not a value"
    return None


def _resolve_named(identifier: str) -> Indicator | None:
    match = _NAMED.fullmatch(identifier)
    parts = match[1].split("_") if match else []
    for count in range(len(parts), 0, -1):
        name, numbers = "_".join(parts[:count]).upper(), parts[count:]
        if name in _functions() and all(_NAMED_NUMBER.fullmatch(number) for number in numbers):
            return _indicator(name, [n.replace("m", "-").replace("p", ".") for n in numbers])
    return None


def _written_arguments(name: str, text: str) -> list[str]:
    """The arguments in the function's order, defaults standing in for those left out between."""
    defaults = {key: str(value) for key, value in default_parameters(name).items()}
    given: dict[str, str] = {}
    for position, part in enumerate(text.split(",") if text.strip() else []):
        key, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals and position < len(defaults):
            key = list(defaults)[position]
        if key not in defaults or key in given:
            raise _wrong_parameters(name)
        given[key] = value
    count = 1 + max((list(defaults).index(key) for key in given), default=-1)
    return list((defaults | given).values())[:count]


def _indicator(name: str, arguments: Sequence[str]) -> Indicator:
    refusal = _refusal(name)
    if refusal is not None:
        raise TradingError(f"talib:{name} {refusal}.")
    given = _checked(name, arguments)
    parameters = default_parameters(name) | given
    lookback = _lookback(name, parameters)
    key = "_".join(("talib", name.lower(), *map(_in_a_name, given.values())))
    outputs = _TALIB.abstract.Function(name).output_names
    return Indicator(
        name=key,
        values=tuple(f"{key}_{output}" for output in outputs) if len(outputs) > 1 else (key,),
        lookback=lookback,
        warm_up=max(lookback, memory(name, parameters)),
        anchored=is_anchored(name, parameters),
        function=partial(_compute, name, parameters, lookback),
    )


def _checked(name: str, arguments: Sequence[str]) -> dict[str, float]:
    defaults = default_parameters(name)
    if len(arguments) > len(defaults) or not all(_NUMBER.fullmatch(text) for text in arguments):
        raise _wrong_parameters(name)
    given: dict[str, float] = {}
    for (key, default), text in zip(defaults.items(), arguments, strict=False):
        value = float(text)
        if isinstance(default, int):
            given[key] = _whole(name, key, value)
        else:
            given[key] = value
    return given


def _whole(name: str, key: str, value: float) -> int:
    if not value.is_integer() or not 0 <= value <= MAX_PERIOD:
        raise TradingError(f"talib:{name}: {key} is a whole number of at most {MAX_PERIOD}.")
    return int(value)


def _lookback(name: str, parameters: Parameters) -> int:
    function = _TALIB.abstract.Function(name)
    function.parameters = dict(parameters)
    lookback = int(function.lookback)
    if lookback < 0:
        raise _wrong_parameters(name)
    return lookback


def _wrong_parameters(name: str) -> TradingError:
    written = ", ".join(f"{key}={value}" for key, value in default_parameters(name).items())
    return TradingError(
        f"talib:{name} does not take these parameters; its own are ({written})."
        if written
        else f"talib:{name} takes no parameters."
    )


def _in_a_name(value: float) -> str:
    text = repr(value).removesuffix(".0")
    return text.replace("+", "").replace("-", "m").replace(".", "p")


def _compute(name: str, parameters: Parameters, lookback: int, series: CandleSeries) -> Columns:
    columns = {
        "open": series.open,
        "high": series.high,
        "low": series.low,
        "close": series.close,
        "volume": series.volume,
    }
    outputs = _TALIB.abstract.Function(name)(columns, **parameters)
    defined = _is_traded(name, parameters, series.volume)
    defined[:lookback] = False  # where functions of whole numbers say 0
    return tuple(
        np.where(defined, output, np.nan)
        for output in (outputs if isinstance(outputs, list) else [outputs])
    )


def _is_traded(name: str, parameters: Parameters, volume: Column) -> NDArray[np.bool_]:
    """Where an average weighted by volume has any, which TA-Lib's running sums do not tell."""
    if name in {"CMF", "MFI", "VWMA"}:
        return rolling_sum(volume, int(parameters["timeperiod"])) > 0
    if name == "RVOL":
        return shifted(rolling_sum(volume, int(parameters["timeperiod"])), 1) > 0
    if name == "VWAP":
        return np.cumsum(volume) > 0
    return np.ones(volume.shape, dtype=np.bool_)
