"""A formula means what it says, knows only the past, and leads nowhere else."""

import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.simulators.exchange import simulated_candles
from trading.candles import CandleSeries, Timeframe
from trading.errors import InvalidFormula, UnknownIndicator
from trading.formulas import Formula, evaluate, parse
from trading.indicators import CustomIndicator, compute_indicators, plan_indicators

NAN = math.nan
MARKET = simulated_candles("BTC/USDT", Timeframe.HOUR_1, start_ms=0, count=600, seed=2)


def parsed(text: str, **warm_ups: int) -> Formula:
    def warm_up_of(name: str) -> int:
        if name not in warm_ups:
            raise UnknownIndicator(name)
        return warm_ups[name]

    return parse(text, warm_up_of)


def calculate(text: str, **columns: Sequence[float]) -> list[float]:
    arrays = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    size = max((len(values) for values in columns.values()), default=1)
    names = dict.fromkeys(columns, 0)
    values: list[float] = evaluate(parsed(text, **names), arrays, size).tolist()
    return values


def same(left: Sequence[float], right: Sequence[float]) -> bool:
    return bool(np.array_equal(np.array(left), np.array(right), equal_nan=True))


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("a + b * 2", [21, 42, 63]),
        ("(a + b) * 2", [22, 44, 66]),
        ("b - a - 1", [8, 17, 26]),
        ("a / 2", [0.5, 1.0, 1.5]),
        ("2 ** a ** 2", [2, 16, 512]),
        ("-a ** 2", [-1, -4, -9]),
        ("+a", [1, 2, 3]),
        ("-7 % 3", [2, 2, 2]),
        ("b % 7", [3, 6, 2]),
        ("a > 1", [0, 1, 1]),
        ("a >= 2", [0, 1, 1]),
        ("a == 2", [0, 1, 0]),
        ("a != 2", [1, 0, 1]),
        ("1 < a <= 2", [0, 1, 0]),
        ("a < 2 or a > 2", [1, 0, 1]),
        ("a and not (a == 2)", [1, 0, 1]),
        ("not a", [0, 0, 0]),
        ("10 if a < 2 else b", [10, 20, 30]),
        ("1 if a < 2 else 2 if a < 3 else 3", [1, 2, 3]),
        ("(a > 1) + (b > 20)", [0, 1, 2]),
        ("abs(a - 2)", [1, 0, 1]),
        ("min(a, 2)", [1, 2, 2]),
        ("max(a, 2, b / 10)", [2, 2, 3]),
        ("sqrt(a ** 2)", [1, 2, 3]),
        ("log(exp(a))", [1, 2, 3]),
        ("sign(a - 2)", [-1, 0, 1]),
        ("clip(a, 1.5, 2.5)", [1.5, 2, 2.5]),
        ("1e2 + .5 + 1.", [101.5] * 3),
    ],
)
def test_operators_and_functions_mean_what_they_say(formula: str, expected: list[float]):
    values = calculate(formula, a=[1, 2, 3], b=[10, 20, 30])
    np.testing.assert_allclose(values, np.array(expected, dtype=float), rtol=1e-15)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("shift(x, 0)", [1, 2, 4, 8, 4]),
        ("shift(x, 2)", [NAN, NAN, 1, 2, 4]),
        ("shift(x, 9)", [NAN] * 5),
        ("sma(x, 2)", [NAN, 1.5, 3, 6, 6]),
        ("sma(x, 1)", [1, 2, 4, 8, 4]),
        ("std(x, 2)", [NAN, 0.5, 1, 2, 2]),
        ("std(x, 1)", [0] * 5),
        ("highest(x, 3)", [NAN, NAN, 4, 8, 8]),
        ("lowest(x, 3)", [NAN, NAN, 1, 2, 4]),
        ("ema(x, 3)", [NAN, NAN, 7 / 3, 31 / 6, 55 / 12]),
        ("sma(x, 9)", [NAN] * 5),
        ("cross_over(x, 3)", [NAN, 0, 1, 0, 0]),
        ("cross_over(x, 4)", [NAN, 0, 0, 1, 0]),
        ("cross_under(x, 5)", [NAN, 0, 0, 0, 1]),
        ("highest(shift(x, 1), 2)", [NAN, NAN, 2, 4, 8]),
    ],
)
def test_functions_of_the_past_look_back(formula: str, expected: list[float]):
    np.testing.assert_allclose(calculate(formula, x=[1, 2, 4, 8, 4]), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "formula",
    [
        *("1 / 0", "0 / 0", "-1 / 0", "1 % 0", "0 ** -1", "(-8) ** 0.5", "10 ** 10 ** 10"),
        *("1e308 * 10", "exp(1000)", "log(0)", "log(-1)", "sqrt(-1)", "1 / 0 > 0", "not (1 / 0)"),
        *("1 / 0 and 0", "1 or 1 / 0", "1 / 0 == 1 / 0", "1 if 1 / 0 else 2", "min(1, 1 / 0)"),
        *(
            "clip(1, 0, 1 / 0)",
            "sign(0 / 0)",
            "cross_over(1 / 0, 1)",
            "sma(1 / 0, 1)",
            "(1 / 0) ** 0",
            "1 ** (1 / 0)",
        ),
    ],
)
def test_what_has_no_finite_value_is_null_and_spreads(formula: str):
    assert same(calculate(formula, x=[1.0, 2.0]), [NAN, NAN])


def test_a_null_on_the_side_not_taken_does_not_matter():
    assert calculate("1 / x if x != 0 else 0", x=[2, 0, 4]) == [0.5, 0.0, 0.25]


def test_a_null_spoils_the_windows_it_is_in_and_no_more():
    x = [1.0, 1, 0, 1, 1, 1]
    assert same(calculate("sma(1 / x, 2)", x=x), [NAN, 1, NAN, NAN, 1, 1])
    assert same(calculate("highest(1 / x, 2)", x=x), [NAN, 1, NAN, NAN, 1, 1])
    assert same(calculate("std(1 / x, 2)", x=x), [NAN, 0, NAN, NAN, 0, 0])
    assert same(calculate("ema(1 / x, 2)", x=x), [NAN, 1, NAN, 1, 1, 1])


def test_windows_do_not_drift_after_large_values():
    x = [1e15, 3.0, 0.1, 0.1, 0.1]
    assert calculate("sma(x, 2)", x=x)[3:] == [0.1, 0.1]
    assert calculate("std(x, 2)", x=x)[3:] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("formula", "warm_up"),
    [
        ("close", 0),
        ("1", 0),
        ("slow - quick", 90),
        ("shift(slow, 5)", 95),
        ("sma(sma(close, 10), 20)", 28),
        ("ema(quick, 10)", 100),
        ("std(close, 30) if slow > 0 else lowest(quick, 500)", 509),
        ("cross_over(slow, close)", 91),
        ("not cross_under(highest(quick, 3), shift(close, 7)) and -quick < 1", 13),
    ],
)
def test_the_warm_up_adds_up_along_the_deepest_way(formula: str, warm_up: int):
    assert parsed(formula, slow=90, quick=10).warm_up == warm_up


@pytest.mark.parametrize(
    ("formula", "column", "reason"),
    [
        ("close - sna_50", 9, "sna_50"),
        ("  sna_50", 3, "sna_50"),
        ("close +", 7, "does not parse"),
        ("(close", 1, "never closed"),
        ("close close", 7, "does not parse"),
        ("close = 2", 7, "does not parse"),
        ("close == == 2", 10, "does not parse"),
        ("1 if close", 1, "expected 'else'"),
        ("", 1, "empty"),
        (" \t\n ", 1, "empty"),
        ("shift(close, -1)", 14, "cannot look ahead"),
        ("shift(close, - 1)", 14, "cannot look ahead"),
        ("shift(close, 0 - 1)", 14, "written out"),
        ("shift(close, 1.0)", 14, "written out"),
        ("shift(close, volume)", 14, "written out"),
        ("shift(close, 501)", 14, "from 0 to 500"),
        ("shift(close)", 1, "takes 2 arguments"),
        ("sma(close, 0)", 12, "from 1 to 500"),
        ("sma(close, 501)", 12, "from 1 to 500"),
        ("ema(close, True)", 12, "written out"),
        ("highest(close, -3)", 16, "cannot look ahead"),
        ("min(close)", 1, "at least 2 arguments"),
        ("abs()", 1, "takes 1 argument"),
        ("clip(close, 1)", 1, "takes 3 arguments"),
        ("2 * exp", 5, "is a function"),
        ("2 * foo(close)", 5, "The functions are abs, min"),
        ("close(1)", 1, "The functions are"),
        ("abs(close)(1)", 1, "The functions are"),
        ("close // 2", 1, "The operators are"),
        ("close is open", 1, "The comparisons are"),
        ("1 in close", 1, "The comparisons are"),
        ("True", 1, "True is not a number"),
        ("None", 1, "None is not a number"),
        ("...", 1, "not a number"),
        ("1e999", 1, "too large"),
        ("9" * 400, 1, "too large"),
        ("1j", 2, "ends in a letter"),
        ("0x10 + 1", 2, "ends in a letter"),
        ("1_000", 2, "ends in a letter"),
        ("1if close else 2", 2, "ends in a letter"),
        ("close, open", 1, "tuples"),
        ("()", 1, "tuples"),
        ("close # note", 7, "character '#'"),
        ("close\0", 6, "character"),
        ("\uff43lose", 1, "character"),
        ("close \u2212 1", 7, "character"),
    ],
)
def test_a_bad_formula_is_refused_with_its_column(formula: str, column: int, reason: str):
    with pytest.raises(InvalidFormula, match=reason) as refused:
        parsed(formula)
    assert refused.value.column == column


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').system('true')",
        "__import__",
        "__builtins__",
        "eval(close)",
        "exec(close)",
        "compile(close, close, close)",
        "open(close)",
        "print(close)",
        "getattr(close, close)",
        "close.__class__",
        "close.tofile",
        "close.__class__.__mro__[1].__subclasses__()",
        "(1).__class__",
        "1..real",
        "sma.func_globals",
        "close[0]",
        "close[::-1]",
        "[close]",
        "[x for x in close]",
        "{close}",
        "{close: 1}",
        "abs(x for x in close)",
        "abs(*close)",
        "abs(**close)",
        "abs(x=close)",
        "lambda: close",
        "(lambda x: x)(close)",
        "(x := close)",
        "f'{close}'",
        "'close'",
        '"close"',
        "b'close'",
        "`close`",
        "close; close",
        "close\nimport os",
        "import os",
        "del close",
        "close = open",
        "await close",
        "yield close",
        "(yield close)",
        "(yield)",
        "yield from close",
        "async def f(): pass",
        "close @ open",
        "close & open",
        "close | open",
        "close ^ open",
        "~close",
        "close << 3",
        "close >> 3",
        "close -> open",
        "\\close",
        "$close",
        "close?",
        "close!",
        "globals()",
        "vars()",
        "self",
        "tree",
        "np",
        "numpy.load(close)",
    ],
)
def test_a_formula_does_not_reach_python(attack: str):
    with pytest.raises(InvalidFormula) as refused:
        plan_indicators(["rsi"], [CustomIndicator(name="x", formula=attack)])
    assert 1 <= refused.value.column <= len(attack)


@pytest.mark.parametrize(
    "huge",
    [
        "(" * 250 + "1" + ")" * 249,
        "(" * 90 + "1" + ")" * 90 + " +",
        "-" * 499 + "1",
        "not " * 124 + "1",
        "+".join(["1"] * 250),
        "**".join(["9"] * 160),
        "1<" * 249 + "1",
        "a" * 500,
        "abs(" * 100 + "1" + ")" * 99,
        "1 if 1 else " * 41 + "1",
        "1and " * 99 + "1",
    ],
)
@pytest.mark.timeout(30)  # what would be computed while it is read takes for ever
def test_a_huge_formula_is_refused_at_once(huge: str):
    with pytest.raises(InvalidFormula):
        parsed(huge)


def test_the_limits_are_those_of_the_rules():
    assert calculate("1" + " " * 499) == [1.0]
    with pytest.raises(InvalidFormula, match="at most 500 characters"):
        parsed("1" + " " * 500)
    assert calculate("max(" + ",".join(["1"] * 198) + ")") == [1.0]
    with pytest.raises(InvalidFormula, match="at most 200 parts"):
        parsed("max(" + ",".join(["1"] * 200) + ")")
    assert calculate("+".join(["1"] * 20)) == [20.0]
    with pytest.raises(InvalidFormula, match="20 levels deep"):
        parsed("+".join(["1"] * 21))


NAMES = ["open", "high", "low", "close", "volume", "rsi", "ema_9", "macd_signal", "stoch_k", "obv"]
ARITHMETIC = ["+", "-", "*", "/", "%", "**"]
COMPARISONS = ["<", "<=", ">", ">=", "==", "!="]
WINDOWS = ["shift", "sma", "ema", "std", "highest", "lowest"]


def formulas(depth: int = 3) -> st.SearchStrategy[str]:
    """Any formula of the grammar, a few levels deep."""
    leaf = st.sampled_from([*NAMES, "0", "1", "2.5", "100"])
    if not depth:
        return leaf
    part = formulas(depth - 1)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, part, st.sampled_from(ARITHMETIC), part),
        st.builds("({} {} {})".format, part, st.sampled_from(COMPARISONS), part),
        st.builds("({} {} {})".format, part, st.sampled_from(["and", "or"]), part),
        st.builds("({} if {} else {})".format, part, part, part),
        st.builds("(not {})".format, part),
        st.builds("(-{})".format, part),
        st.builds("{}({})".format, st.sampled_from(["abs", "sqrt", "log", "exp", "sign"]), part),
        st.builds(
            "{}({}, {})".format,
            st.sampled_from(["min", "max", "cross_over", "cross_under"]),
            part,
            part,
        ),
        st.builds("clip({}, {}, {})".format, part, part, part),
        st.builds("{}({}, {})".format, st.sampled_from(WINDOWS), part, st.integers(1, 60)),
    )


def values_of(formula: str, series: CandleSeries) -> Any:
    plan = plan_indicators([], [CustomIndicator(name="x", formula=formula)])
    return compute_indicators(plan, series)["x"]


@settings(max_examples=300)
@given(formulas().filter(lambda text: len(text) <= 500), st.integers(1, 600))
def test_no_formula_sees_later_candles_or_gives_an_infinity(formula: str, stop: int):
    whole = values_of(formula, MARKET)
    assert not np.isinf(whole).any()
    np.testing.assert_array_equal(values_of(formula, MARKET.slice(0, stop)), whole[:stop])


CONSTANTS = st.one_of(st.integers(0, 9).map(str), st.sampled_from(["0.5", "2.25", "10"]))


def sums(depth: int) -> st.SearchStrategy[str]:
    if not depth:
        return CONSTANTS
    part = sums(depth - 1)
    comparison = st.builds("({} {} {})".format, CONSTANTS, st.sampled_from(COMPARISONS), CONSTANTS)
    return st.one_of(
        CONSTANTS,
        st.builds("({} {} {})".format, part, st.sampled_from(ARITHMETIC[:-1]), part),
        st.builds("({} ** {})".format, part, st.integers(0, 3)),
        st.builds("({} {} {})".format, comparison, st.sampled_from(["and", "or"]), comparison),
        st.builds("(not {})".format, comparison),
        st.builds("({} if {} else {})".format, part, comparison, part),
        st.builds("{} - -{} * {}".format, part, part, part),
    )


@given(sums(3).filter(lambda text: len(text) <= 500))
def test_arithmetic_of_constants_is_pythons(formula: str):
    try:
        expected = float(eval(formula))
    except ZeroDivisionError:
        expected = NAN
    np.testing.assert_allclose(calculate(formula), [expected], rtol=1e-12)


@given(st.text(alphabet="()+-*/%<>=!., 0123456789abcdefilnorst_", max_size=60))
def test_no_text_whatever_raises_anything_else(text: str):
    try:
        parsed(text)
    except InvalidFormula as refused:
        column = refused.column
    else:
        column = 1
    assert 1 <= column <= max(len(text), 1)


def test_the_worst_formulas_come_to_an_end():
    series = simulated_candles("BTC/USDT", Timeframe.HOUR_1, start_ms=0, count=50_000, seed=1)
    formula = "max(" + ",".join(f"std(close,{n})" for n in range(467, 500)) + ")"
    assert len(formula) < 500
    plan = plan_indicators([], [CustomIndicator(name="worst", formula=formula)])
    assert np.isfinite(compute_indicators(plan, series)["worst"][-1])


@pytest.mark.parametrize(
    "formula",
    [
        "min(" + ",".join(["1"] * 198) + ")",
        "max(" + ",".join(["-low"] * 98) + ")",
        "<".join(["1"] * 199),
        "<".join(["-low"] * 99),
        " and ".join(["-low"] * 55),
    ],
)
def test_many_operands_take_no_more_memory_than_a_few(formula: str):
    size = 100_000
    checked, columns = parsed(formula, low=0), {"low": np.ones(size)}
    tracemalloc.start()
    try:
        evaluate(checked, columns, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * size * 8  # eight columns
