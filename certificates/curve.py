"""The equity curve, fitted to the frame that somebody draws it in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from certificates.face import CertificateFace

Point = tuple[float, float]

# The least height of a frame, as a share of its middle: rounding must not look like a mountain.
_LEAST_SPAN = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points in a frame whose origin is at the top left; `start_y` is the starting capital's."""

    points: tuple[Point, ...]
    start_y: float
    highest: float
    lowest: float


def fit_curve(face: CertificateFace, *, width: float, height: float) -> Curve:
    """Return the curve from edge to edge; a test of one candle or none is a level line.

    The starting capital always lies within the frame. Values that are no numbers are left out.
    """
    known = [point for point in face.equity if math.isfinite(point.value)]
    values = [point.value for point in known] or [face.starting_capital]
    lowest, highest = _bounds([*values, face.starting_capital])

    def y(value: float) -> float:
        return height * ((highest - value) / (highest - lowest))

    across = _across([point.time for point in known], width)
    points = [(x, y(value)) for x, value in zip(across, values, strict=False)]
    return Curve(
        points=tuple(points) if len(points) > 1 else ((0.0, y(values[0])), (width, y(values[0]))),
        start_y=y(face.starting_capital),
        highest=highest,
        lowest=lowest,
    )


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    least = max(abs(low), abs(high), 1.0) * _LEAST_SPAN
    lacking = max(0.0, least - (high - low)) / 2
    return low - lacking, high + lacking


def _across(times: Sequence[int], width: float) -> list[float]:
    if not times:
        return []
    first, span = times[0], max(times[-1] - times[0], 1)
    return [width * (time - first) / span for time in times]
