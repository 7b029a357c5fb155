"""An ornament that takes its shape from a certificate's hash: few look alike."""

import math
from dataclasses import dataclass

Point = tuple[float, float]

_STEPS = 360
_STRANDS = 6


def rosette(canonical_sha256: str) -> list[list[Point]]:
    """Return closed strands within the unit circle around the origin.

    Each strand is a circle whose radius swings: how often and how far is told by the hash.

    Raises:
        ValueError: the hash is not hexadecimal.
    """
    digest = bytes.fromhex(canonical_sha256)
    petals = 7 + digest[0] % 8
    pattern = _Pattern(
        petals=petals,
        depth=0.16 + digest[1] / 255 * 0.16,
        ripples=petals * (2 + digest[2] % 4),
        swing=0.03 + digest[3] / 255 * 0.07,
        turn=digest[4] / 255 * math.tau,
    )
    return [pattern.strand(number / _STRANDS * math.tau) for number in range(_STRANDS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    petals: int
    depth: float
    ripples: int
    swing: float
    turn: float

    def strand(self, phase: float) -> list[Point]:
        angles = [step / _STEPS * math.tau for step in range(_STEPS + 1)]
        return [self._at(angle, phase) for angle in angles]

    def _at(self, angle: float, phase: float) -> Point:
        petal = self.depth * math.cos(self.petals * angle + phase)
        ripple = self.swing * math.cos(self.ripples * angle - phase + self.turn)
        radius = 1 - self.depth - self.swing + petal + ripple
        return radius * math.cos(angle), radius * math.sin(angle)
