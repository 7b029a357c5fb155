"""A session's durable events after any number: from Redis, or from the database, which has all."""

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic
from typing import cast
from uuid import UUID

import structlog
from cachetools import LRUCache
from redis.exceptions import RedisError

from db.engine import Database
from db.market_frames import FrameKey, MarketFrame, MarketFrames
from db.repositories.running_sessions import RunningSessionRepository
from db.repositories.steps import StepRepository, StoredStep
from db.repositories.watching import Standing, WatchingRepository
from events.payloads import Payload, candle_payload, was_missed
from events.records import StepRecord, step_events
from events.subscriber import SessionSubscriber
from events.types import Event

_CACHED_WINDOWS = 1_000
# Redis that hangs is as good as none: the database has the same events.
_REDIS_PATIENCE_S = 1.0
# After a failure, so that a long replay does not wait for Redis at every page.
_REDIS_LEFT_ALONE_S = 2.0
# The controls that are looked through for the last pause or the end.
_CONTROLS_READ = 20

_logger = structlog.get_logger(__name__)


class Backlog:
    """Reads what was published and what was stored; writes nothing."""

    def __init__(
        self, database: Database, subscriber: SessionSubscriber, frames: MarketFrames
    ) -> None:
        self._database = database
        self._subscriber = subscriber
        self._frames = frames
        self._redis_away_until = 0.0
        self._windows: LRUCache[UUID, FrameKey] = LRUCache(_CACHED_WINDOWS)

    def listen(self, session_id: UUID) -> AsyncGenerator[list[Event], None]:
        """Live batches as they are published; an empty one whenever a subscription begins."""
        listening = self._subscriber.listen(session_id)
        return cast("AsyncGenerator[list[Event], None]", listening)

    async def standing(self, user_id: UUID, session_id: UUID) -> Standing | None:
        async with self._database.for_user(user_id) as session:
            return await WatchingRepository(session).standing(session_id)

    async def read_after(
        self, user_id: UUID, session_id: UUID, seq: int, *, limit: int
    ) -> list[Event]:
        """Return events `seq + 1`, `seq + 2`, …; none when there are no more.

        They may be fewer than `limit`, and somewhat more when they come out of the database.
        """
        published = await self._read_published(session_id, seq, limit)
        return published or await self._read_stored(user_id, session_id, seq, limit)

    async def recent(self, user_id: UUID, session_id: UUID, *, seq: int) -> list[Event]:
        """Stats and controls up to `seq`, the newest first: how things stood there."""
        async with self._database.for_user(user_id) as session:
            watching = WatchingRepository(session)
            rows = await watching.latest(session_id, "step", seq=seq)
            rows += await watching.latest(session_id, "control", seq=seq, limit=_CONTROLS_READ)
        # No candle is wanted, so none is loaded.
        events = [event for row in rows for event in _events(row, {}) if event.event != "candle"]
        return sorted(events, key=lambda event: event.seq or 0, reverse=True)

    async def _read_published(self, session_id: UUID, seq: int, limit: int) -> list[Event]:
        if monotonic() < self._redis_away_until:
            return []
        try:
            async with asyncio.timeout(_REDIS_PATIENCE_S):
                return await self._subscriber.backlog(session_id, after=seq, limit=limit)
        except (RedisError, OSError) as e:
            _logger.warning("backlog_unreachable", error=type(e).__name__)
            self._redis_away_until = monotonic() + _REDIS_LEFT_ALONE_S
            return []

    async def _read_stored(
        self, user_id: UUID, session_id: UUID, seq: int, limit: int
    ) -> list[Event]:
        async with self._database.for_user(user_id) as session:
            rows = await StepRepository(session).rows_after(session_id, seq, limit)
        if not rows:
            return []
        frame = await self._frame(user_id, session_id, rows)
        events = [event for row in rows for event in _events(row, _candle(row, frame))]
        return [event for event in events if event.seq is not None and event.seq > seq]

    async def _frame(
        self, user_id: UUID, session_id: UUID, rows: list[StoredStep]
    ) -> MarketFrame | None:
        """The session's candles, unless none of the rows needs one."""
        if all(row.phase != "step" for row in rows):
            return None
        window = self._windows.get(session_id)
        if window is None:
            async with self._database.for_user(user_id) as session:
                settings = await RunningSessionRepository(session).settings(session_id)
            if settings is None:
                raise LookupError(f"session {session_id} lost its agent version or its data set")
            window = self._windows[session_id] = FrameKey.of_session(settings)
        return await self._frames.get(user_id, window)


def _candle(row: StoredStep, frame: MarketFrame | None) -> Payload | None:
    if row.phase != "step" or frame is None:
        return None
    index = row.candle_number
    is_live = any(each["event"] == "candle_closed" for each in row.events)
    return candle_payload(
        frame.candles.candle(index),
        frame.values(index),
        index=index,
        total=0 if is_live else len(frame),
        missed=was_missed(row.events),
    )


def _events(row: StoredStep, candle: Payload | None) -> list[Event]:
    return step_events(
        StepRecord(
            candle_number=row.candle_number,
            phase=row.phase,
            first_seq=row.first_seq,
            happened_at=row.happened_at,
            events=row.events,
            stats=row.stats,
        ),
        candle,
    )
