"""What activities ask of Temporal: a feed for an asset, and that a test hears of a touch."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from trading.candles import Candle


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """A minute that reached a level of a position, as it was seen then.

    `opened_at` (epoch ms) is the opening of candle `candle_index`, which is forming.
    """

    trade_number: int
    candle_index: int
    opened_at: int
    minute: Candle


class PriceFeeds(Protocol):
    """Keeps price feeds alive. Raises `ConnectionError` when Temporal is away."""

    async def want(self, source: str, asset: str) -> None:
        """Start the asset's feed, or tell the one that runs that it is still wanted."""
        ...


class PositionSignals(Protocol):
    """Wakes forward tests. Raises `ConnectionError` when Temporal is away."""

    async def touched(self, session_id: UUID, touch: Touch) -> None:
        """Tell a test that a level of its position was reached; one that has ended is no error."""
        ...


class NoFeeds:
    """For activities that are called without Temporal: nobody is wanted or told."""

    async def want(self, *_: object) -> None:
        return None

    async def touched(self, *_: object) -> None:
        return None
