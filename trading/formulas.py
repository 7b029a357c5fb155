"""Formulas that users write over candles and indicators: parsed to a checked tree, never run.

    (close - sma_50) / atr_14
    1 if cross_over(ema_20, ema_50) and volume > 2 * volume_sma else 0

What is not in the grammar of `formula_tree` does not parse: there is no way from a formula to
Python. Columns in errors count characters from 1.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod

import numpy as np
from numpy.typing import NDArray

from trading import formula_tree as tree
from trading.errors import InvalidFormula, TradingError
from trading.indicator_functions import MAX_PERIOD

CANDLE_COLUMNS = ("open", "high", "low", "close", "volume")

MAX_LENGTH = 500
MAX_NODES = 200
MAX_DEPTH = 20

_FOREIGN = re.compile(r"[^A-Za-z0-9_ .,+\-*/%<>=!()]")
_LETTER_AFTER_NUMBER = re.compile(
    r"(?<![\w.])(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?=[A-Za-z_])", re.ASCII
)
_ARITHMETIC: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Mod: "%",
}
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}

WarmUpOf = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A formula that can be evaluated: the names it reads and the candles it needs before."""

    tree: tree.Node
    names: frozenset[str]
    warm_up: int


def parse(text: str, warm_up_of: WarmUpOf) -> Formula:
    """Checks a formula; `warm_up_of` says for a name that is no candle column how many candles its
    values need before, or raises `TradingError`. Raises `InvalidFormula`.
    """
    reader = _Reader(warm_up_of)
    node = reader.read(_syntax(_checked_text(text)))
    return Formula(
        tree=node, names=frozenset(reader.warm_ups), warm_up=node.warm_up(reader.warm_ups)
    )


def evaluate(
    formula: Formula, columns: Mapping[str, NDArray[np.float64]], size: int
) -> NDArray[np.float64]:
    """The formula's value at each of `size` candles; NaN where it has none, never an infinity."""
    with np.errstate(all="ignore"):
        values = formula.tree.evaluate(columns, size)
        return np.where(np.isfinite(values), values, np.nan)


def _checked_text(text: str) -> str:
    if len(text) > MAX_LENGTH:
        raise InvalidFormula(f"A formula has at most {MAX_LENGTH} characters.", MAX_LENGTH + 1)
    flat = re.sub(r"[\t\r\n]", " ", text)
    if not flat.strip():
        raise InvalidFormula("The formula is empty.", 1)
    if foreign := _FOREIGN.search(flat):
        raise InvalidFormula(
            f"A formula cannot contain the character {foreign[0]!a}.", foreign.start() + 1
        )
    if number := _LETTER_AFTER_NUMBER.search(flat):
        raise InvalidFormula("A number ends in a letter.", number.end() + 1)
    return flat


def _syntax(text: str) -> ast.expr:
    stripped = text.lstrip(" ")
    indent = len(text) - len(stripped)
    try:
        body = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        column = min(indent + (error.offset or len(text)), len(text))  # 0: at its end
        raise InvalidFormula(f"The formula does not parse: {error.msg}.", column) from None
    except (MemoryError, RecursionError, ValueError):
        raise InvalidFormula(f"A formula is at most {MAX_DEPTH} levels deep.", 1) from None
    for node in ast.walk(body):
        if isinstance(node, ast.expr):
            node.col_offset += indent
    return body


class _Reader:
    """Turns Python's syntax tree into the checked one, and refuses all that is not in it."""

    def __init__(self, warm_up_of: WarmUpOf) -> None:
        self.warm_ups: dict[str, int] = {}
        self._warm_up_of = warm_up_of
        self._nodes = 0
        self._depth = 0

    def read(self, node: ast.expr) -> tree.Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _invalid(node, f"A formula has at most {MAX_NODES} parts")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _invalid(node, f"A formula is at most {MAX_DEPTH} levels deep")
        result = self._read(node)
        self._depth -= 1
        return result

    @singledispatchmethod
    def _read(self, node: ast.expr) -> tree.Node:
        what = _FOREIGN_NODES.get(type(node), "this")
        raise _invalid(node, f"A formula cannot contain {what}")

    @_read.register
    def _constant(self, node: ast.Constant) -> tree.Node:
        return tree.Number(value=_number(node))

    @_read.register
    def _name(self, node: ast.Name) -> tree.Node:
        if node.id in _CALLABLE:
            raise _invalid(node, f"{node.id} is a function: write {node.id}(...)")
        if node.id not in self.warm_ups:
            self.warm_ups[node.id] = self._warm_up(node)
        return tree.Name(name=node.id)

    @_read.register
    def _unary(self, node: ast.UnaryOp) -> tree.Node:
        operand = self.read(node.operand)
        match node.op:
            case ast.USub():
                return tree.Negation(operand=operand)
            case ast.UAdd():
                return operand
            case ast.Not():
                return tree.Logic(operator="not", operands=(operand,))
            case _:
                raise _invalid(node, "There is no such operator in a formula")

    @_read.register
    def _binary(self, node: ast.BinOp) -> tree.Node:
        operator = _ARITHMETIC.get(type(node.op))
        if operator is None:
            raise _invalid(node, "The operators are + - * / ** and %")
        return tree.Arithmetic(
            operator=operator, left=self.read(node.left), right=self.read(node.right)
        )

    @_read.register
    def _comparison(self, node: ast.Compare) -> tree.Node:
        operators = [_COMPARISONS.get(type(operator)) for operator in node.ops]
        operands = tuple(self.read(operand) for operand in (node.left, *node.comparators))
        if None in operators:
            raise _invalid(node, "The comparisons are < <= > >= == and !=")
        return tree.Comparison(
            operators=tuple(operator for operator in operators if operator), operands=operands
        )

    @_read.register
    def _logic(self, node: ast.BoolOp) -> tree.Node:
        operator = "and" if isinstance(node.op, ast.And) else "or"
        return tree.Logic(
            operator=operator, operands=tuple(self.read(value) for value in node.values)
        )

    @_read.register
    def _choice(self, node: ast.IfExp) -> tree.Node:
        return tree.Choice(
            condition=self.read(node.test),
            chosen=self.read(node.body),
            otherwise=self.read(node.orelse),
        )

    @_read.register
    def _call(self, node: ast.Call) -> tree.Node:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords:
            raise _invalid(node.keywords[0].value, "Arguments are not named")
        if name in tree.WINDOW_FUNCTIONS:
            return self._window_call(node, name)
        if name not in tree.FUNCTIONS:
            raise _invalid(node, f"The functions are {', '.join(_CALLABLE)}")
        function = tree.FUNCTIONS[name]
        if len(node.args) not in function.arguments:
            raise _invalid(node, f"{name} takes {_count(function.arguments)}")
        return tree.Call(function=function, arguments=tuple(self.read(each) for each in node.args))

    def _window_call(self, node: ast.Call, name: str) -> tree.Node:
        function = tree.WINDOW_FUNCTIONS[name]
        if len(node.args) != 2:  # noqa: PLR2004 - written as name(x, n)
            raise _invalid(node, f"{name} takes 2 arguments, a value and a number of candles")
        argument, length = node.args
        return tree.WindowCall(
            function=function,
            argument=self.read(argument),
            length=self._length(length, name, function.shortest),
        )

    def _length(self, node: ast.expr, name: str, shortest: int) -> int:
        self._nodes += 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            raise _invalid(node, f"{name} cannot look ahead: its number of candles is not negative")
        value = node.value if isinstance(node, ast.Constant) else None
        if type(value) is not int or not shortest <= value <= MAX_PERIOD:
            raise _invalid(
                node,
                f"The number of candles of {name} is a whole number from {shortest} "
                f"to {MAX_PERIOD}, written out",
            )
        return value

    def _warm_up(self, node: ast.Name) -> int:
        if node.id in CANDLE_COLUMNS:
            return 0
        try:
            return self._warm_up_of(node.id)
        except TradingError as error:
            raise InvalidFormula(str(error), node.col_offset + 1) from None


_CALLABLE = (*tree.FUNCTIONS, *tree.WINDOW_FUNCTIONS)
_FOREIGN_NODES: Mapping[type[ast.AST], str] = {
    ast.Attribute: "attributes (a.b)",
    ast.Tuple: "tuples (a, b)",
    ast.Starred: "starred arguments",
    ast.GeneratorExp: "generators",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


def _number(node: ast.Constant) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise _invalid(node, f"{node.value!r} is not a number")
    try:
        value = float(node.value)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise _invalid(node, "The number is too large")
    return value


def _count(allowed: range) -> str:
    if len(allowed) > 1:
        return f"at least {allowed.start} arguments"
    return f"{allowed.start} argument{'s' if allowed.start > 1 else ''}"


def _invalid(node: ast.expr, reason: str) -> InvalidFormula:
    return InvalidFormula(f"{reason}.", node.col_offset + 1)
