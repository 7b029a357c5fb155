"""The checked tree of a formula: what each node computes from columns, and how far it looks back.

Null is NaN and spreads: what is made of a null is null, comparisons and logic included. What has no
finite value, such as a division by zero, is null. A comparison gives 1 or 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trading.indicator_functions import Column, exponential_memory
from trading.rolling import (
    exponential_average,
    rolling_deviation,
    rolling_highest,
    rolling_lowest,
    rolling_mean,
    shifted,
)

Flags = NDArray[np.bool_]
Columns = Mapping[str, Column]
WarmUps = Mapping[str, int]


def _power(base: Column, exponent: Column) -> Column:
    """Null where either is, which numpy makes 1 when the base is 1 or the exponent 0."""
    unknown = np.isnan(base) | np.isnan(exponent)
    return np.where(unknown, np.nan, np.power(base, exponent))


ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": _power,
    "%": np.mod,
}
COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


class Node(Protocol):
    def evaluate(self, columns: Columns, size: int) -> Column:
        """Its value at each of `size` candles."""

    def warm_up(self, warm_ups: WarmUps) -> int:
        """Candles before its value no longer depends on where they start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    value: float

    def evaluate(self, _columns: Columns, size: int) -> Column:
        return np.broadcast_to(np.float64(self.value), size)

    def warm_up(self, _warm_ups: WarmUps) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    name: str

    def evaluate(self, columns: Columns, _size: int) -> Column:
        return columns[self.name]

    def warm_up(self, warm_ups: WarmUps) -> int:
        return warm_ups[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation:
    operand: Node

    def evaluate(self, columns: Columns, size: int) -> Column:
        return -self.operand.evaluate(columns, size)

    def warm_up(self, warm_ups: WarmUps) -> int:
        return self.operand.warm_up(warm_ups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    operator: str
    left: Node
    right: Node

    def evaluate(self, columns: Columns, size: int) -> Column:
        left, right = self.left.evaluate(columns, size), self.right.evaluate(columns, size)
        return _finite(ARITHMETIC[self.operator](left, right))

    def warm_up(self, warm_ups: WarmUps) -> int:
        return max(self.left.warm_up(warm_ups), self.right.warm_up(warm_ups))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One operator, or a chain of them: `a < b < c`."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]

    def evaluate(self, columns: Columns, size: int) -> Column:
        left = self.operands[0].evaluate(columns, size)
        holds, unknown = np.ones(size, dtype=np.bool_), np.isnan(left)
        for operator, operand in zip(self.operators, self.operands[1:], strict=True):
            right = operand.evaluate(columns, size)
            holds &= COMPARISONS[operator](left, right)
            unknown |= np.isnan(right)
            left = right
        return _truth(holds, unknown)

    def warm_up(self, warm_ups: WarmUps) -> int:
        return max(operand.warm_up(warm_ups) for operand in self.operands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logic:
    """`and`, `or` over all operands, `not` of the only one; anything but 0 is true."""

    operator: str
    operands: tuple[Node, ...]

    def evaluate(self, columns: Columns, size: int) -> Column:
        combine = np.logical_or if self.operator == "or" else np.logical_and
        holds, unknown = np.full(size, self.operator != "or"), np.zeros(size, dtype=np.bool_)
        for operand in self.operands:
            value = operand.evaluate(columns, size)
            holds = combine(holds, value != 0)
            unknown |= np.isnan(value)
        return _truth(~holds if self.operator == "not" else holds, unknown)

    def warm_up(self, warm_ups: WarmUps) -> int:
        return max(operand.warm_up(warm_ups) for operand in self.operands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`chosen if condition else otherwise`; a null on the side not taken does not matter."""

    condition: Node
    chosen: Node
    otherwise: Node

    def evaluate(self, columns: Columns, size: int) -> Column:
        condition = self.condition.evaluate(columns, size)
        chosen = self.chosen.evaluate(columns, size)
        otherwise = self.otherwise.evaluate(columns, size)
        return np.where(np.isnan(condition), np.nan, np.where(condition != 0, chosen, otherwise))

    def warm_up(self, warm_ups: WarmUps) -> int:
        parts = (self.condition, self.chosen, self.otherwise)
        return max(part.warm_up(warm_ups) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of values at a candle; `memory` candles before it count too.

    One that folds is computed from two values at a time, so that many take no more room than two.
    """

    arguments: range
    compute: Callable[..., Any]
    folds: bool = False
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFunction:
    """A function of one column and of a number of candles, which is written as a number."""

    shortest: int
    compute: Callable[[Column, int], Column]
    memory: Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    function: Function
    arguments: tuple[Node, ...]

    def evaluate(self, columns: Columns, size: int) -> Column:
        values = (argument.evaluate(columns, size) for argument in self.arguments)
        compute = self.function.compute
        return _finite(reduce(compute, values) if self.function.folds else compute(*values))

    def warm_up(self, warm_ups: WarmUps) -> int:
        return self.function.memory + max(each.warm_up(warm_ups) for each in self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCall:
    function: WindowFunction
    argument: Node
    length: int

    def evaluate(self, columns: Columns, size: int) -> Column:
        return _finite(self.function.compute(self.argument.evaluate(columns, size), self.length))

    def warm_up(self, warm_ups: WarmUps) -> int:
        return self.function.memory(self.length) + self.argument.warm_up(warm_ups)


def _clip(values: Column, lowest: Column, highest: Column) -> Column:
    return np.minimum(np.maximum(values, lowest), highest)


def _cross_over(left: Column, right: Column) -> Column:
    """1 where the left has just risen above the right."""
    before_left, before_right = shifted(left, 1), shifted(right, 1)
    crossed = (left > right) & (before_left <= before_right)
    unknown = np.isnan(left) | np.isnan(right) | np.isnan(before_left) | np.isnan(before_right)
    return _truth(crossed, unknown)


def _cross_under(left: Column, right: Column) -> Column:
    return _cross_over(right, left)


def _window(length: int) -> int:
    return length - 1


FUNCTIONS: Mapping[str, Function] = {
    "abs": Function(arguments=range(1, 2), compute=np.abs),
    "min": Function(arguments=range(2, 201), compute=np.minimum, folds=True),
    "max": Function(arguments=range(2, 201), compute=np.maximum, folds=True),
    "sqrt": Function(arguments=range(1, 2), compute=np.sqrt),
    "log": Function(arguments=range(1, 2), compute=np.log),
    "exp": Function(arguments=range(1, 2), compute=np.exp),
    "sign": Function(arguments=range(1, 2), compute=np.sign),
    "clip": Function(arguments=range(3, 4), compute=_clip),
    "cross_over": Function(arguments=range(2, 3), compute=_cross_over, memory=1),
    "cross_under": Function(arguments=range(2, 3), compute=_cross_under, memory=1),
}
WINDOW_FUNCTIONS: Mapping[str, WindowFunction] = {
    "shift": WindowFunction(shortest=0, compute=shifted, memory=lambda count: count),
    "sma": WindowFunction(shortest=1, compute=rolling_mean, memory=_window),
    "ema": WindowFunction(shortest=1, compute=exponential_average, memory=exponential_memory),
    "std": WindowFunction(shortest=1, compute=rolling_deviation, memory=_window),
    "highest": WindowFunction(shortest=1, compute=rolling_highest, memory=_window),
    "lowest": WindowFunction(shortest=1, compute=rolling_lowest, memory=_window),
}


def _finite(values: Column) -> Column:
    return np.where(np.isfinite(values), values, np.nan)


def _truth(holds: Flags, unknown: Flags) -> Column:
    return np.where(unknown, np.nan, np.where(holds, 1.0, 0.0))
