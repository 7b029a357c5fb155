"""What a forward test sees of a market: its clock, its candles and its price."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from trading.candles import Candle, CandleSeries, Timeframe


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketClock:
    """What time it is at the exchange, and how fast it passes there.

    `now_ms` is in epoch milliseconds; `speed` is exchange milliseconds per millisecond here: 1.0 at
    every real exchange, 0.0 at a simulated one that stands still.
    """

    now_ms: int
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticker:
    """The price of an asset and its last 24 hours; None is what the exchange does not tell.

    `change_24h` is in percent, `volume_24h` in base units.
    """

    price: float
    bid: float | None = None
    ask: float | None = None
    change_24h: float | None = None
    high_24h: float | None = None
    low_24h: float | None = None
    volume_24h: float | None = None
    timestamp_ms: int | None = None


class Market(Protocol):
    """One exchange. Assets are written like `BTC/USDT`, times are epoch milliseconds.

    Every method but `close` raises `IntegrationError`: `SymbolUnavailable` for an asset that the
    exchange does not list, `RateLimited` and other `TemporarilyUnavailable` for what passes.
    Nothing is tried twice: whoever calls owns the retries.
    """

    async def clock(self) -> MarketClock:
        """The exchange's time; at a real one never ahead of it."""
        ...

    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries:
        """The candles within `[since_ms, until_ms]` that are closed by the exchange's own clock.

        They open at `since_ms` or later and close at `until_ms` or earlier, ascending and each
        once. A candle that the exchange does not give, or not yet, is a gap; there may be none.
        """
        ...

    async def minutes(self, asset: str, *, since_ms: int) -> list[Candle]:
        """The 1-minute candles from `since_ms` on; the last one may still be forming."""
        ...

    async def forming(self, asset: str, timeframe: Timeframe) -> Candle | None:
        """The candle that is open now, as far as it got; None before its first trade."""
        ...

    async def ticker(self, asset: str) -> Ticker:
        """The price as it is now."""
        ...

    def tickers(self, asset: str) -> AsyncIterator[Ticker]:
        """The price whenever it changes, without end; passing trouble only slows it down."""
        ...

    async def open(self) -> None:
        """Load what the other methods need, so that none of them does; opens no connection.

        Whoever runs Temporal's workflows in the same process does this before: while their sandbox
        is at work, importing compiled modules fails.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection; iterations of `tickers` end."""
        ...
