"""The identifiers of indicators: which there are, their parameters, and what each means."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any

from trading import indicator_functions as functions
from trading.candles import CandleSeries
from trading.errors import TradingError, UnknownIndicator
from trading.indicator_functions import (
    MAX_PERIOD,
    Columns,
    Indicator,
    exponential_memory,
    wilder_memory,
)
from trading.talib_functions import default_parameters, resolve_talib, usable_functions

_IDENTIFIER = re.compile(r"([a-z]+(?:_[a-z]+)*)(?:_(\d+))?", re.ASCII)
_MAX_IDENTIFIER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Indicators that differ by their period only; without `periods` there is just the one."""

    name: str
    group: str
    label: str
    function: Callable[[CandleSeries, int], Columns]
    lookback: Callable[[int], int]
    memory: Callable[[int], int] = field(default=lambda _period: 0)  # lookback included
    aliases: tuple[str, ...] = ()
    periods: tuple[int, ...] = ()
    shortest: int = 1
    values: tuple[str, ...] = ("",)
    parameters: Mapping[str, float] = field(default_factory=dict)
    anchored: bool = False

    def indicators(self) -> tuple[Indicator, ...]:
        """What the name alone stands for."""
        if not self.periods:
            return (self._indicator(self.name, 0),)
        return tuple(self.with_period(period) for period in self.periods)

    def with_period(self, period: int) -> Indicator:
        if not self.shortest <= period <= MAX_PERIOD:
            raise TradingError(
                f"{self.name}_{period}: the period of {self.name} is from {self.shortest} "
                f"to {MAX_PERIOD}."
            )
        return self._indicator(f"{self.name}_{period}", period)

    def _indicator(self, name: str, period: int) -> Indicator:
        lookback = self.lookback(period)
        return Indicator(
            name=name,
            values=tuple(f"{name}_{value}" if value else name for value in self.values),
            lookback=lookback,
            warm_up=max(lookback, self.memory(period)),
            anchored=self.anchored,
            function=partial(_computed, self.function, period),
        )


def _computed(
    function: Callable[[CandleSeries, int], Columns], period: int, series: CandleSeries
) -> Columns:
    return function(series, period)


def _always(candles: int) -> Callable[[int], int]:
    return lambda _period: candles


def _window(period: int) -> int:
    return period - 1


def _difference(period: int) -> int:
    return period


_FAMILIES = (
    _Family(
        name="ema",
        group="trend",
        label="Exponential moving average",
        function=functions.ema,
        periods=(20, 50, 200),
        lookback=_window,
        memory=exponential_memory,
    ),
    _Family(
        name="sma",
        group="trend",
        label="Simple moving average",
        function=functions.sma,
        periods=(20, 50, 200),
        lookback=_window,
    ),
    _Family(
        name="wma",
        group="trend",
        label="Weighted moving average",
        function=functions.wma,
        periods=(20, 50, 200),
        lookback=_window,
    ),
    _Family(
        name="macd",
        group="trend",
        label="Moving average convergence divergence",
        function=functions.macd,
        values=("", "signal", "histogram"),
        parameters={"fast": 12, "slow": 26, "signal": 9},
        lookback=_always(33),
        memory=_always(exponential_memory(12 + 26 + 9)),
    ),
    _Family(
        name="adx",
        group="trend",
        label="Average directional index",
        function=functions.adx,
        periods=(14,),
        shortest=2,
        lookback=lambda period: 2 * period - 1,
        memory=lambda period: 2 * wilder_memory(period),
    ),
    _Family(
        name="aroon",
        group="trend",
        label="Aroon",
        function=functions.aroon,
        periods=(14,),
        shortest=2,
        values=("up", "down", "oscillator"),
        lookback=_difference,
    ),
    _Family(
        name="supertrend",
        group="trend",
        label="Supertrend, its direction and where it flips",
        function=functions.supertrend,
        values=("", "direction", "flip"),
        parameters={"period": 10, "multiplier": 3},
        lookback=_always(11),
        memory=_always(wilder_memory(10) + 300),
        anchored=True,
    ),
    _Family(
        name="psar",
        group="trend",
        label="Parabolic stop and reverse",
        function=functions.psar,
        parameters={"acceleration": 0.02, "maximum": 0.2},
        lookback=_always(1),
        memory=_always(300),
        anchored=True,
    ),
    _Family(
        name="ichimoku",
        group="trend",
        label="Ichimoku lines and the cloud over the candle",
        function=functions.ichimoku,
        values=("tenkan", "kijun", "senkou_a", "senkou_b"),
        parameters={"tenkan": 9, "kijun": 26, "senkou_b": 52, "displacement": 26},
        lookback=_always(77),
    ),
    _Family(
        name="rsi",
        group="momentum",
        label="Relative strength index",
        function=functions.rsi,
        periods=(14,),
        shortest=2,
        lookback=_difference,
        memory=wilder_memory,
    ),
    _Family(
        name="stoch",
        group="momentum",
        label="Stochastic",
        aliases=("stochastic",),
        function=functions.stochastic,
        values=("k", "d"),
        parameters={"k": 14, "slow_k": 3, "slow_d": 3},
        lookback=_always(17),
    ),
    _Family(
        name="stochrsi",
        group="momentum",
        label="Stochastic of the relative strength index",
        function=functions.stochastic_rsi,
        values=("k", "d"),
        parameters={"rsi": 14, "k": 14, "slow_k": 3, "slow_d": 3},
        lookback=_always(31),
        memory=_always(wilder_memory(14) + 14 + 3 + 3),
    ),
    _Family(
        name="cci",
        group="momentum",
        label="Commodity channel index",
        function=functions.cci,
        periods=(20,),
        shortest=2,
        lookback=_window,
    ),
    _Family(
        name="willr",
        group="momentum",
        label="Williams %R",
        function=functions.willr,
        periods=(14,),
        shortest=2,
        lookback=_window,
    ),
    _Family(
        name="roc",
        group="momentum",
        label="Rate of change",
        function=functions.roc,
        periods=(10,),
        lookback=_difference,
    ),
    _Family(
        name="mom",
        group="momentum",
        label="Momentum",
        function=functions.mom,
        periods=(10,),
        lookback=_difference,
    ),
    _Family(
        name="ao",
        group="momentum",
        label="Awesome oscillator",
        function=functions.awesome,
        parameters={"fast": 5, "slow": 34},
        lookback=_always(33),
    ),
    _Family(
        name="atr",
        group="volatility",
        label="Average true range",
        function=functions.atr,
        periods=(14,),
        lookback=_difference,
        memory=wilder_memory,
    ),
    _Family(
        name="bb",
        group="volatility",
        label="Bollinger bands",
        aliases=("bbands", "bollinger"),
        function=functions.bollinger,
        values=("upper", "middle", "lower"),
        parameters={"period": 20, "deviations": 2},
        lookback=_always(19),
    ),
    _Family(
        name="keltner",
        group="volatility",
        label="Keltner channel",
        aliases=("kc",),
        function=functions.keltner,
        values=("upper", "middle", "lower"),
        parameters={"ema": 20, "atr": 10, "multiplier": 2},
        lookback=_always(19),
        memory=_always(exponential_memory(20) + wilder_memory(10)),
    ),
    _Family(
        name="donchian",
        group="volatility",
        label="Donchian channel",
        aliases=("dc",),
        function=functions.donchian,
        periods=(20,),
        shortest=2,
        values=("upper", "middle", "lower"),
        lookback=_window,
    ),
    _Family(
        name="zscore",
        group="volatility",
        label="Distance from the mean in standard deviations",
        function=functions.zscore,
        parameters={"period": 20},
        lookback=_always(19),
    ),
    _Family(
        name="volume",
        group="volume",
        label="Volume and its average",
        function=functions.volume,
        values=("", "sma"),
        parameters={"period": 20},
        lookback=_always(19),
    ),
    _Family(
        name="mfi",
        group="volume",
        label="Money flow index",
        function=functions.mfi,
        periods=(14,),
        shortest=2,
        lookback=_difference,
    ),
    _Family(
        name="obv",
        group="volume",
        label="On-balance volume",
        function=functions.obv,
        lookback=_always(0),
        anchored=True,
    ),
    _Family(
        name="ad",
        group="volume",
        label="Accumulation and distribution line",
        aliases=("ad_line",),
        function=functions.accumulation,
        lookback=_always(0),
        anchored=True,
    ),
    _Family(
        name="cmf",
        group="volume",
        label="Chaikin money flow",
        function=functions.money_flow,
        parameters={"period": 20},
        lookback=_always(19),
    ),
    _Family(
        name="vwap",
        group="volume",
        label="Volume-weighted average price, rolling",
        function=functions.vwap,
        parameters={"period": 14},
        lookback=_always(13),
    ),
)
_BY_NAME = {name: family for family in _FAMILIES for name in (family.name, *family.aliases)}


@lru_cache(maxsize=4096)
def resolve(identifier: str) -> tuple[Indicator, ...]:
    """The indicators that an identifier stands for, in any case.

    Raises `UnknownIndicator`, or `TradingError` for one with parameters that it cannot have.
    """
    text = identifier.strip().lower()
    if len(text) > _MAX_IDENTIFIER:
        raise UnknownIndicator(identifier[:_MAX_IDENTIFIER], "An indicator's name is shorter.")
    found = _resolve_family(text)
    if found:
        return found
    other = resolve_talib(text)
    if other is None:
        raise UnknownIndicator(identifier, _unknown(identifier, text))
    return (other,)


def resolve_value(name: str) -> tuple[Indicator, str]:
    """The indicator that has the value a formula names, and which of its values it is.

    The name of an indicator with one value stands for that value. Raises as `resolve` does.
    """
    parts = name.split("_")
    for count in range(len(parts), 0, -1):
        try:
            found = resolve("_".join(parts[:count]))
        except UnknownIndicator:
            continue
        return _choose_value(name, found, whole=count == len(parts))
    raise UnknownIndicator(name, _unknown(name, name))


def catalog() -> dict[str, list[dict[str, Any]]]:
    """Every indicator by group. `min_history` candles give the first value of each line."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for family in _FAMILIES:
        groups.setdefault(family.group, []).append(_family_entry(family))
    groups["talib"] = [
        _entry(resolve(f"talib:{name}"), f"talib:{name}", label, default_parameters(name))
        | {"category": category}
        for name, label, category in usable_functions()
    ]
    return groups


def _resolve_family(text: str) -> tuple[Indicator, ...]:
    if text in _BY_NAME:
        return _BY_NAME[text].indicators()
    match = _IDENTIFIER.fullmatch(text)
    family = _BY_NAME.get(match[1]) if match else None
    if match is None or family is None or match[2] is None or not family.periods:
        return ()
    return (family.with_period(int(match[2])),)


def _choose_value(name: str, found: tuple[Indicator, ...], *, whole: bool) -> tuple[Indicator, str]:
    values = [(indicator, value) for indicator in found for value in indicator.values]
    if whole and len(values) == 1:
        return values[0]
    for indicator, value in values:
        if value == name:
            return indicator, value
    listed = ", ".join(value for _, value in values)
    raise UnknownIndicator(name, f"{name[:50]} is not one value; there are {listed}.")


def _unknown(identifier: str, text: str) -> str:
    family = _BY_NAME.get(text.rstrip("0123456789").rstrip("_"))
    if family is not None and not family.periods:
        return f"{family.name} has fixed parameters and takes no period."
    close = get_close_matches(text, _BY_NAME, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no indicator {identifier!r}.{hint}"


def _family_entry(family: _Family) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(family.parameters)
    if family.periods:
        default = family.periods[0] if len(family.periods) == 1 else list(family.periods)
        parameters = {"period": default, "period_min": family.shortest, "period_max": MAX_PERIOD}
    entry = _entry(family.indicators(), family.name, family.label, parameters)
    return entry | {"aliases": list(family.aliases)}


def _entry(
    indicators: tuple[Indicator, ...], identifier: str, label: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": label,
        "values": [value for indicator in indicators for value in indicator.values],
        "min_history": 1 + max(indicator.lookback for indicator in indicators),
        "warm_up": max(indicator.warm_up for indicator in indicators),
        "anchored": any(indicator.anchored for indicator in indicators),
        "params": parameters,
    }
