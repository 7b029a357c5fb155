"""Fans prices out to sockets: one Redis subscription per asset and process, and a feed behind it.

An asset that somebody watches here is *wanted* of Temporal all the while; the feed ends by itself
when nobody is subscribed any more. Without Temporal, whatever Redis has is shown.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from api.realtime.endings import end_tasks
from events.prices import PriceBoard, PriceTick
from events.types import iso_timestamp

# A feed ends half a minute after nobody wants it; a wish that is lost comes again.
WANT_EVERY_S = 30.0
SOCKETS_PER_ADDRESS = 5
# A feed begins with its first price within a second or two; then nothing is known of it.
PATIENCE_S = 5.0
LOOK_EVERY_S = 1.0
_REDIS_PATIENCE_S = 1.0
_RECONNECT_DELAYS_S = (0.05, 0.1, 0.25, 0.5, 1.0)

_logger = structlog.get_logger(__name__)


class TooManySockets(Exception):
    """The client's address watches prices through as many sockets as are allowed."""


class PriceListener(Protocol):
    """Is told each price, and once when the source goes down."""

    def hear(self, tick: PriceTick) -> None:
        """Take a tick, never waiting."""
        ...


class Feeds(Protocol):
    """Keeps price feeds going. Raises `ConnectionError` when that is not possible."""

    async def want(self, source: str, asset: str) -> None: ...


class PriceRelay:
    """The prices of all assets that are watched in this process.

    Without a `source` nothing is wanted of anybody.
    """

    def __init__(self, board: PriceBoard, feeds: Feeds, source: str | None) -> None:
        self._board = board
        self._feeds = feeds
        self._source = source
        self._channels: dict[str, PriceChannel] = {}
        self._sockets: Counter[str] = Counter()

    @contextmanager
    def admitted(self, address: str) -> Iterator[None]:
        """Count one more socket of an address for as long as the block lasts.

        Raises TooManySockets.
        """
        if self.count_sockets(address) >= SOCKETS_PER_ADDRESS:
            raise TooManySockets
        self._sockets[address] += 1
        try:
            yield
        finally:
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]

    @asynccontextmanager
    async def attached(self, asset: str, listener: PriceListener) -> AsyncIterator[None]:
        """Tell the listener of the asset for as long as the block lasts, first what is known."""
        channel = self._channels.get(asset)
        if channel is None:
            channel = self._channels[asset] = PriceChannel(self._board, asset, self._want)
            channel.start()
        channel.add(listener)
        try:
            yield
        finally:
            await self._detach(channel, listener)

    def count_listeners(self, asset: str) -> int:
        """How many sockets of this process are told of an asset."""
        channel = self._channels.get(asset)
        return 0 if channel is None else len(channel.listeners)

    def count_sockets(self, address: str) -> int:
        """How many sockets of this process an address watches prices through."""
        return self._sockets[address]

    async def close(self) -> None:
        """End every subscription."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.stop()

    async def _want(self, asset: str) -> None:
        if self._source is None:
            return
        try:
            await self._feeds.want(self._source, asset)
        except ConnectionError as e:
            _logger.warning("feed_not_wanted", asset=asset, error=type(e).__name__)

    async def _detach(self, channel: "PriceChannel", listener: PriceListener) -> None:
        channel.listeners.discard(listener)
        if not channel.listeners and self._channels.get(channel.asset) is channel:
            del self._channels[channel.asset]
            await channel.stop()


class PriceChannel:
    """One asset in this process: hears its price once, tells all who listen."""

    def __init__(
        self, board: PriceBoard, asset: str, want: Callable[[str], Awaitable[None]]
    ) -> None:
        self.asset = asset
        self.listeners: set[PriceListener] = set()
        self._board = board
        self._want = want
        self._known: PriceTick | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        parts = (self._listen(), self._keep_wanted(), self._look())
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    def add(self, listener: PriceListener) -> None:
        self.listeners.add(listener)
        self._check_age()
        if self._known is not None:
            listener.hear(self._known)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._board.listen(self.asset)) as ticks:
                    async for tick in ticks:
                        failures = 0
                        # Where a subscription begins, what was posted before it.
                        self._hear(await self._latest() if tick is None else tick)
            except (RedisError, OSError) as e:
                _logger.warning("price_subscription_lost", error=type(e).__name__)
            await asyncio.sleep(_RECONNECT_DELAYS_S[min(failures, len(_RECONNECT_DELAYS_S) - 1)])
            failures += 1

    async def _latest(self) -> PriceTick | None:
        async with asyncio.timeout(_REDIS_PATIENCE_S):
            return await self._board.latest(self.asset)

    def _hear(self, tick: PriceTick | None) -> None:
        """Tell a price that is new, and once that there is none."""
        if tick is None or not self._is_news(tick):
            return
        self._known = tick
        for listener in self.listeners:
            listener.hear(tick)

    def _is_news(self, tick: PriceTick) -> bool:
        known = self._known
        if tick.status == "down":
            return known is None or known.status == "live"
        # What was read as the latest price may come through the subscription once more.
        is_later = known is None or known.status == "down" or tick.timestamp > known.timestamp
        return is_later and tick.is_live(_now())

    async def _look(self) -> None:
        """Once a second: whether there is any price, and whether it has become too old."""
        opened_at = monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._known is None and monotonic() - opened_at >= PATIENCE_S:
                self._hear(_down(self.asset))
            self._check_age()

    def _check_age(self) -> None:
        if self._known is not None and not self._known.is_live(_now()):
            self._hear(_down(self.asset))

    async def _keep_wanted(self) -> None:
        while True:
            await self._want(self.asset)
            await asyncio.sleep(WANT_EVERY_S)


def _down(asset: str) -> PriceTick:
    return PriceTick(asset=asset, status="down", timestamp=iso_timestamp(_now()))


def _now() -> datetime:
    return datetime.now(tz=UTC)
