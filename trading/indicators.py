"""An agent's indicators: checked once, then computed over a whole series in one go.

Every value is that of its own candle and of those before it; where it has no value, a column holds
NaN, never an infinity.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.candles import CandleSeries
from trading.errors import TradingError
from trading.formulas import CANDLE_COLUMNS, Formula, evaluate, parse
from trading.indicator_catalog import catalog, resolve, resolve_value
from trading.indicator_functions import Column, Columns, Indicator

__all__ = ["CustomIndicator", "IndicatorPlan", "catalog", "compute_indicators", "plan_indicators"]

MAX_IDENTIFIERS = 40
MAX_FORMULAS = 10
MAX_WARM_UP = 10_000
MAX_NAME_LENGTH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomIndicator:
    """A formula of the user's and the name of its value."""

    name: str
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndicatorPlan:
    """Indicators that are known to be computable, the names of their values in order, and how
    many candles before the first decision make them independent of where the candles start."""

    identifiers: tuple[str, ...]
    custom: tuple[CustomIndicator, ...]
    value_names: tuple[str, ...]
    warm_up: int


def plan_indicators(
    identifiers: Sequence[str], custom: Sequence[CustomIndicator] = ()
) -> IndicatorPlan:
    """Raises `UnknownIndicator`, `InvalidFormula`, or `TradingError` when a limit is passed."""
    _check_count(len(identifiers), MAX_IDENTIFIERS, "indicators")
    _check_count(len(custom), MAX_FORMULAS, "custom indicators")
    indicators = [indicator for identifier in identifiers for indicator in resolve(identifier)]
    names = dict.fromkeys(value for indicator in indicators for value in indicator.values)
    warm_ups = {indicator.name: indicator.warm_up for indicator in indicators}
    for one in custom:
        _check_name(one.name, names)
        warm_ups[one.name] = _parsed(one).warm_up
        names[one.name] = None
    for name, warm_up in warm_ups.items():
        _check_warm_up(name, warm_up)
    return IndicatorPlan(
        identifiers=tuple(identifiers),
        custom=tuple(custom),
        value_names=tuple(names),
        warm_up=max(warm_ups.values(), default=0),
    )


def compute_indicators(plan: IndicatorPlan, series: CandleSeries) -> dict[str, NDArray[np.float64]]:
    """The plan's values by name, one for each candle of the series, NaN where there is none."""
    columns: dict[str, NDArray[np.float64]] = {}
    formulas = {one.name: _parsed(one) for one in plan.custom}
    wanted = [indicator for identifier in plan.identifiers for indicator in resolve(identifier)]
    wanted += [
        resolve_value(name)[0]
        for formula in formulas.values()
        for name in sorted(formula.names.difference(CANDLE_COLUMNS))
    ]
    for indicator in {each.name: each for each in wanted}.values():
        columns.update(zip(indicator.values, _compute(indicator, series), strict=True))
    inputs = _formula_inputs(formulas.values(), columns, series)
    for name, formula in formulas.items():
        columns[name] = evaluate(formula, inputs, len(series))
    return {name: columns[name] for name in plan.value_names}


def _parsed(custom: CustomIndicator) -> Formula:
    return parse(custom.formula, lambda name: resolve_value(name)[0].warm_up)


def _compute(indicator: Indicator, series: CandleSeries) -> Columns:
    with np.errstate(all="ignore"):
        columns = indicator.function(series)
    return tuple(np.where(np.isfinite(column), column, np.nan) for column in columns)


def _formula_inputs(
    formulas: Iterable[Formula], columns: Mapping[str, Column], series: CandleSeries
) -> dict[str, Column]:
    """The columns under the names that the formulas call them by."""
    inputs: dict[str, Column] = {name: getattr(series, name) for name in CANDLE_COLUMNS}
    for formula in formulas:
        for name in formula.names.difference(inputs):
            inputs[name] = columns[resolve_value(name)[1]]
    return inputs


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise TradingError(f"There are {count} {what}; at most {limit} can be used.")


def _check_warm_up(name: str, warm_up: int) -> None:
    if warm_up > MAX_WARM_UP:
        raise TradingError(
            f"{name} needs {warm_up:,} candles before the first; "
            f"at most {MAX_WARM_UP:,} are loaded."
        )


def _check_name(name: str, taken: Container[str]) -> None:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise TradingError(
            f"The name of a custom indicator has 1 to {MAX_NAME_LENGTH} printable characters."
        )
    if name in taken or name in CANDLE_COLUMNS:
        raise TradingError(f"The name {name!r} of a custom indicator is already taken.")
