"""What time it is at an exchange."""

import time
from collections.abc import Callable
from typing import Final, Protocol

from integrations.exchanges.connection import Connection
from integrations.exchanges.market import MarketClock

_ASK_AGAIN_S: Final = 60.0


class Clock(Protocol):
    """Tells the time of one exchange."""

    async def read(self) -> MarketClock: ...


class ExchangeClock:
    """A real exchange's time: asked once a minute and carried on in between.

    Never ahead of the exchange, so that nothing counts as closed too early: the time it gave is
    taken to be that of its answer's arrival, and a machine that sleeps falls behind. An exchange
    that does not tell its time is taken to have ours.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._wall = wall
        self._told_ms = 0
        self._told_at = float("-inf")

    async def read(self) -> MarketClock:
        """The time; at most one request. Raises `IntegrationError`."""
        if not await self._connection.has("fetchTime"):
            return MarketClock(now_ms=int(self._wall() * 1000))
        if self._monotonic() - self._told_at > _ASK_AGAIN_S:
            told_ms = int(await self._connection.ask(lambda exchange: exchange.fetch_time()))
            self._told_ms, self._told_at = told_ms, self._monotonic()
        passed_ms = (self._monotonic() - self._told_at) * 1000
        return MarketClock(now_ms=int(self._told_ms + passed_ms))


class SimulatedClock:
    """The time of a simulated exchange, which may be set, stopped and quickened at any moment."""

    def __init__(self, connection: Connection, base_url: str) -> None:
        self._connection = connection
        self._address = f"{base_url.rstrip('/')}/clock"

    async def read(self) -> MarketClock:
        """The time; one request. Raises `IntegrationError`."""
        told = await self._connection.ask(lambda exchange: exchange.fetch(self._address))
        return MarketClock(now_ms=int(told["now_ms"]), speed=float(told["speed"]))
