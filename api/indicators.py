"""Checks indicators and formulas of a request, saying where they are wrong."""

from collections.abc import Sequence

from api.errors import translate_trading_error
from api.schemas.agents import CustomIndicatorBody
from trading.errors import InvalidFormula, TradingError
from trading.indicators import CustomIndicator, IndicatorPlan, plan_indicators


def checked_plan(
    identifiers: Sequence[str], custom: Sequence[CustomIndicatorBody]
) -> IndicatorPlan:
    """Return the plan, or raise Invalid with the place of the first thing that is wrong."""
    formulas = [CustomIndicator(name=each.name, formula=each.formula) for each in custom]
    for position, identifier in enumerate(identifiers):
        _check(["body", "indicators", position], [identifier])
    for position, formula in enumerate(formulas):
        _check(["body", "custom_indicators", position, "formula"], identifiers, [formula])
    return _check(["body", "indicators"], identifiers, formulas)


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
