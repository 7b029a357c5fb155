"""What an open position is worth at a price, and how far the price is from its levels."""

from dataclasses import dataclass

from trading.orders import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """An open position as it is shown: `size` in base units, levels None where there are none."""

    side: Side
    entry_price: float
    size: float
    leverage: float
    stop_price: float | None
    target_price: float | None

    @property
    def margin(self) -> float:
        return self.entry_price * self.size / self.leverage


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A position at a price: its result before fees, also as a fraction of the margin.

    Distances are fractions of the price, and negative beyond their level.
    """

    unrealized_pnl: float
    pnl_fraction: float
    stop_distance: float | None
    target_distance: float | None


def mark(holding: Holding, price: float) -> Mark:
    """Return the position at `price`, which is positive."""
    direction = 1.0 if holding.side is Side.LONG else -1.0
    pnl = direction * (price - holding.entry_price) * holding.size
    stop, target = holding.stop_price, holding.target_price
    return Mark(
        unrealized_pnl=pnl,
        pnl_fraction=pnl / holding.margin,
        stop_distance=None if stop is None else direction * (price - stop) / price,
        target_distance=None if target is None else direction * (target - price) / price,
    )
