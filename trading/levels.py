"""Where a position ends, as two prices, and the first minute that reaches one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from trading.candles import Candle
from trading.execution import nearer_level
from trading.orders import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A position ends at or below `floor` and at or above `ceiling`; None is no such price."""

    floor: float | None
    ceiling: float | None

    @classmethod
    def of(
        cls, side: Side, *, stop: float | None, target: float | None, liquidation: float | None
    ) -> Self:
        adverse, _ = nearer_level(side, stop, liquidation)
        if side is Side.LONG:
            return cls(floor=adverse, ceiling=target)
        return cls(floor=target, ceiling=adverse)

    def first_touch(self, minutes: Sequence[Candle], *, since: int, until: int) -> Candle | None:
        """The first of `minutes` that opens within `[since, until)` (epoch ms) and touches one."""
        for minute in minutes:
            if since <= minute.open_time < until and self._is_touched(minute):
                return minute
        return None

    def _is_touched(self, minute: Candle) -> bool:
        floor, ceiling = self.floor, self.ceiling
        return (floor is not None and minute.low <= floor) or (
            ceiling is not None and minute.high >= ceiling
        )
