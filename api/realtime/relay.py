"""Fans sessions' events out to sockets: one Redis subscription per session and process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.realtime.backlog import Backlog
from api.realtime.endings import end_tasks
from api.realtime.frames import frames_of
from api.realtime.opening import FINISHED
from api.realtime.prices import PriceRelay
from api.realtime.watcher import NORMAL_CLOSURE, Watcher
from events.types import Event

WATCHERS_PER_SESSION = 10
# Silence is compared with the session's row this often.
LOOK_EVERY_S = 1.0
# However much is heard: only the row tells that its owner was deactivated.
COMPARE_EVERY_S = 2.0
# How long a new client waits for the subscription before it is served from the database.
SUBSCRIBE_PATIENCE_S = 1.0
_RECONNECT_DELAYS_S = (0.05, 0.1, 0.25, 0.5, 1.0)

_logger = structlog.get_logger(__name__)


class TooManyWatchers(Exception):
    """The user already watches this session through as many sockets as are allowed."""


class Relay:
    """All channels of this process."""

    def __init__(self, backlog: Backlog, prices: PriceRelay) -> None:
        self.backlog = backlog
        self.prices = prices
        self._channels: dict[UUID, Channel] = {}

    @asynccontextmanager
    async def attached(self, watcher: Watcher) -> AsyncIterator[None]:
        """Feed the watcher for as long as the block lasts; it is subscribed on entry.

        Raises TooManyWatchers.
        """
        if self.count_watchers(watcher.session_id) >= WATCHERS_PER_SESSION:
            raise TooManyWatchers
        channel = self._channel(watcher)
        channel.watchers.add(watcher)
        try:
            await channel.wait_until_subscribed()
            yield
        finally:
            await self._detach(channel, watcher)

    def count_watchers(self, session_id: UUID) -> int:
        """How many sockets of this process are fed with a session's events."""
        channel = self._channels.get(session_id)
        return 0 if channel is None else len(channel.watchers)

    async def close(self) -> None:
        """End every subscription."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.stop()
        await self.prices.close()

    def _channel(self, watcher: Watcher) -> "Channel":
        channel = self._channels.get(watcher.session_id)
        if channel is None:
            channel = Channel(self.backlog, watcher.user_id, watcher.session_id)
            self._channels[watcher.session_id] = channel
            channel.start()
        return channel

    async def _detach(self, channel: "Channel", watcher: Watcher) -> None:
        channel.watchers.discard(watcher)
        if not channel.watchers and self._channels.get(channel.session_id) is channel:
            del self._channels[channel.session_id]
            await channel.stop()


class Channel:
    """One session in this process: hears it once, tells all who watch it."""

    def __init__(self, backlog: Backlog, user_id: UUID, session_id: UUID) -> None:
        self.session_id = session_id
        self.watchers: set[Watcher] = set()
        self._user_id = user_id
        self._backlog = backlog
        self._subscribed = asyncio.Event()
        self._heard_at = monotonic()
        self._compared_at = monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    async def wait_until_subscribed(self) -> None:
        """Wait for the subscription, but not long: without Redis, the database serves."""
        try:
            async with asyncio.timeout(SUBSCRIBE_PATIENCE_S):
                await self._subscribed.wait()
        except TimeoutError:
            _logger.warning("not_subscribed", session_id=str(self.session_id))

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._backlog.listen(self.session_id)) as batches:
                    async for batch in batches:
                        failures = 0
                        await self._receive(batch)
            except (RedisError, OSError) as e:
                _logger.warning("subscription_lost", error=type(e).__name__)
            self._subscribed.clear()
            await asyncio.sleep(_RECONNECT_DELAYS_S[min(failures, len(_RECONNECT_DELAYS_S) - 1)])
            failures += 1

    async def _receive(self, batch: list[Event]) -> None:
        if batch:
            self._fan_out(batch)
        else:  # subscribed, for the first time or again: something may have been missed
            self._subscribed.set()
            await self._compare()

    def _fan_out(self, batch: list[Event]) -> None:
        frames = frames_of(batch)
        newest = max((event.seq for event in batch if event.seq is not None), default=0)
        if newest:
            self._heard_at = monotonic()
        for watcher in self.watchers:
            watcher.offer(frames, newest)

    async def _look(self) -> None:
        """Once a second: heartbeats, clients that stopped reading, and what silence may hide."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            for watcher in list(self.watchers):
                if not watcher.tick(now):
                    self.watchers.discard(watcher)
            is_silent = now - self._heard_at >= LOOK_EVERY_S
            if is_silent or now - self._compared_at >= COMPARE_EVERY_S:
                await self._compare()

    async def _compare(self) -> None:
        """Tell the watchers what the session's row knows and nobody heard."""
        self._compared_at = monotonic()
        try:
            standing = await self._backlog.standing(self._user_id, self.session_id)
        except (SQLAlchemyError, OSError) as e:
            _logger.warning("session_not_compared", error=type(e).__name__)
            return
        for watcher in self.watchers:
            if standing is None:
                watcher.close(NORMAL_CLOSURE, "the session was removed")
                continue
            if not standing.is_active:
                watcher.cut_off()
                continue
            watcher.expect(standing.last_seq)
            if standing.status in FINISHED:
                watcher.close(NORMAL_CLOSURE, "the session is finished")
