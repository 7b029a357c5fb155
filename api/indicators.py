"""Checks indicators and formulas of a request, saying where they are wrong."""

from collections.abc import Sequence

from api.errors import Invalid, translate_trading_error
from api.schemas.agents import CustomIndicatorBody
from trading.errors import InvalidFormula, TradingError
from trading.indicators import (
    MAX_FORMULAS,
    MAX_IDENTIFIERS,
    CustomIndicator,
    IndicatorPlan,
    plan_indicators,
)


def checked_plan(
    identifiers: Sequence[str], custom: Sequence[CustomIndicatorBody], *, part: str = "body"
) -> IndicatorPlan:
    """Return the plan, or raise Invalid with the place of the first thing that is wrong.

    `part` is where the request has them: in its body or in its query.
    """
    _check_count(identifiers, MAX_IDENTIFIERS, [part, "indicators"])
    _check_count(custom, MAX_FORMULAS, [part, "custom_indicators"])
    formulas = [CustomIndicator(name=each.name, formula=each.formula) for each in custom]
    for position, identifier in enumerate(identifiers):
        _check([part, "indicators", position], [identifier])
    for position, formula in enumerate(formulas):
        _check([part, "custom_indicators", position, "formula"], identifiers, [formula])
    return _check([part, "indicators"], identifiers, formulas)


def _check_count(given: Sequence[object], limit: int, location: list[str | int]) -> None:
    """Before anything is parsed, so that a long list costs nothing."""
    if len(given) > limit:
        sentence = f"{location[-1]}: there are {len(given)}; at most {limit} can be used."
        raise Invalid(sentence, location)


def _check(
    location: list[str | int],
    identifiers: Sequence[str],
    custom: Sequence[CustomIndicator] = (),
) -> IndicatorPlan:
    try:
        return plan_indicators(identifiers, custom)
    except TradingError as error:
        is_formula = isinstance(error, InvalidFormula)
        in_formula = is_formula or not custom
        raise translate_trading_error(error, location if in_formula else location[:-1]) from None
