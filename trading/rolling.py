"""Windows over columns: sums, means, deviations, extremes and averages that only look back.

A value depends on the numbers of its own window alone, added up in an order that the window's
length fixes. So a prefix of a column gives the same values to the last bit, nothing drifts along a
column, and a null spoils its own windows only.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trading.ta_lib import talib

Column = NDArray[np.float64]
_Merge = Callable[[Column, Column, int, int], Column]


def rolling_sum(values: Column, length: int) -> Column:
    return _windows(values, length, lambda left, right, _m, _n: left + right)


def rolling_highest(values: Column, length: int) -> Column:
    return _windows(values, length, lambda left, right, _m, _n: np.maximum(left, right))


def rolling_lowest(values: Column, length: int) -> Column:
    return _windows(values, length, lambda left, right, _m, _n: np.minimum(left, right))


def rolling_mean(values: Column, length: int) -> Column:
    """The mean of each window, exact where all its values are equal."""
    mean: Column = _windows(_moments(values), length, _merge_moments)[0]
    return mean


def rolling_deviation(values: Column, length: int) -> Column:
    """The population's standard deviation, exactly 0 where all values of a window are equal."""
    squares = _windows(_moments(values), length, _merge_moments)[1]
    deviation: Column = np.sqrt(squares / length)
    return deviation


def shifted(values: Column, count: int) -> Column:
    """The values of `count` candles ago."""
    result = np.full(values.shape, np.nan)
    if count < values.size:
        result[count:] = values[: values.size - count]
    return result


def exponential_average(values: Column, length: int) -> Column:
    """Smoothed with alpha 2 / (length + 1) from the mean of the first values on.

    Null where the value is null; the average is held over such a gap, not started anew.
    """
    known = ~np.isnan(values)
    result = np.full(values.shape, np.nan)
    result[known] = talib.EMA(np.ascontiguousarray(values[known]), timeperiod=length)
    return result


def _windows(values: Column, length: int, merge: _Merge) -> Column:
    """Merges the windows of `length` values along the last axis, by doubling their width."""
    result = np.full(values.shape, np.nan)
    if length <= values.shape[-1]:
        result[..., length - 1 :] = _merged(values, length, merge)
    return result


def _merged(values: Column, length: int, merge: _Merge) -> Column:
    block, width = values, 1
    merged, covered = values, 0
    while True:
        if length & width:
            merged = _joined(merged, covered, block, width, merge)
            covered += width
        if covered == length:
            return merged
        block = merge(block[..., :-width], block[..., width:], width, width)
        width *= 2


def _joined(merged: Column, covered: int, block: Column, width: int, merge: _Merge) -> Column:
    if not covered:
        return block
    right = block[..., covered:]
    return merge(merged[..., : right.shape[-1]], right, covered, width)


def _moments(values: Column) -> Column:
    """The mean of each value alone, and its sum of squared deviations."""
    return np.stack((values, values - values))


def _merge_moments(left: Column, right: Column, left_count: int, right_count: int) -> Column:
    """Chan, Golub and LeVeque's pairwise update (1979)."""
    count = left_count + right_count
    step = right[0] - left[0]
    mean = left[0] + step * (right_count / count)
    squares = left[1] + right[1] + step * step * (left_count * right_count / count)
    return np.stack((mean, squares))
