"""Parity: a test's recording beside its second fold."""

from typing import Self

from pydantic import Field

from api.schemas.base import Shape
from trading.parity import Difference, Parity, TimingDrift

DIFFERENCES_SHOWN = 100


class DifferenceOut(Shape):
    """A value of a trade, of a candle, or of the whole test.

    A trade that one side lacks is the field `trade`; a candle that has changed shows what it was
    when the test met it, and what is stored now. Of the equity curve only the first point that
    differs is told.
    """

    trade_number: int | None
    candle: int | None
    field: str
    recorded: bool | int | float | str | None
    refolded: bool | int | float | str | None

    @classmethod
    def of(cls, difference: Difference) -> Self:
        return cls.model_validate(difference)


class EndingEquity(Shape):
    recorded: float
    refolded: float


class TimingDriftOut(Shape):
    """How much dearer than the open that it filled at an entry was when its order was placed.

    Negative where it was cheaper. Of the entries that filled while their candle was forming.
    """

    entries: int
    mean_pct: float | None
    worst_pct: float | None

    @classmethod
    def of(cls, drift: TimingDrift) -> Self:
        mean, worst = drift.mean, drift.worst
        return cls(
            entries=drift.entries,
            mean_pct=None if mean is None else mean * 100,
            worst_pct=None if worst is None else worst * 100,
        )


class ParityOut(Shape):
    equal: bool
    candles: int
    decisions: int
    sightings: int = Field(description="Exits within a forming candle, by a minute seen of it.")
    trades_recorded: int
    trades_refolded: int
    differences: list[DifferenceOut] = Field(max_length=DIFFERENCES_SHOWN)
    differences_total: int
    ending_equity: EndingEquity
    max_equity_difference: float
    timing_drift: TimingDriftOut

    @classmethod
    def of(cls, parity: Parity) -> Self:
        shown = parity.differences[:DIFFERENCES_SHOWN]
        return cls(
            equal=parity.is_equal,
            candles=parity.candles,
            decisions=parity.decisions,
            sightings=parity.sightings,
            trades_recorded=parity.trades_recorded,
            trades_refolded=parity.trades_refolded,
            differences=[DifferenceOut.of(each) for each in shown],
            differences_total=len(parity.differences),
            ending_equity=EndingEquity(
                recorded=parity.recorded_equity, refolded=parity.refolded_equity
            ),
            max_equity_difference=parity.max_equity_difference,
            timing_drift=TimingDriftOut.of(parity.drift),
        )


class ParityAnswer(Shape):
    parity: ParityOut
