"""What the no-ops are told, outside of their sandbox as with our workflows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A payload of some size, and the size of the one that is wanted back."""

    content: str
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """What a candle's three activities carry."""

    candles: int
    first: Parcel
    second: Parcel
    third: Parcel


@dataclass(frozen=True, slots=True, kw_only=True)
class Minutes:
    """So many minutes, each begun some seconds late: in its place in line, as a forward test."""

    count: int
    delay: float
