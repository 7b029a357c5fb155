"""What a session's activities share: its settings, read once, as the core's own values."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from cachetools import LRUCache
from pydantic import TypeAdapter
from temporalio.exceptions import ApplicationError

from db.engine import Database
from db.market_frames import FrameKey, MarketFrame, MarketFrames
from db.repositories.running_sessions import RunningSessionRepository, SessionSettings
from trading.decisions import Cadence
from trading.simulation import Rules

# A thousand sessions at once are a few megabytes.
CACHED_SESSIONS = 2_000

_RULES = TypeAdapter(Rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """A session's settings; they do not change once it has started."""

    session_id: UUID
    user_id: UUID
    settings: SessionSettings
    rules: Rules
    cadence: Cadence
    frame_key: FrameKey

    @property
    def is_live(self) -> bool:
        """Whether this is a forward test: its candles come one by one, and without an end."""
        return self.settings.type == "forward"

    @property
    def total_candles(self) -> int:
        return self.settings.total_candles


class SessionContexts:
    """Settings and candles of sessions, kept in memory; the database has them too."""

    def __init__(self, database: Database, frames: MarketFrames) -> None:
        self._database = database
        self._frames = frames
        self._cache: LRUCache[UUID, SessionContext] = LRUCache(CACHED_SESSIONS)
        self._loading = asyncio.Lock()

    async def get(self, session_id: str, user_id: str) -> SessionContext:
        key = UUID(session_id)
        if (cached := self._cache.get(key)) is not None:
            return cached
        async with self._loading:
            if (cached := self._cache.get(key)) is None:
                cached = await self._load(key, UUID(user_id))
                self._cache[key] = cached
        return cached

    async def frame(
        self, context: SessionContext, *, until: int = 0, holding: int = 0
    ) -> MarketFrame:
        """The session's candles and indicators, in real prices; see `MarketFrames.get`."""
        return await self._loaded(context.user_id, context.frame_key, until, holding)

    async def seen_frame(
        self, context: SessionContext, *, until: int = 0, holding: int = 0
    ) -> MarketFrame:
        """The candles and indicators as the model sees them: scaled when the test is blind."""
        key = context.frame_key.as_blind() if context.settings.blind else context.frame_key
        return await self._loaded(context.user_id, key, until, holding)

    async def _loaded(self, user_id: UUID, key: FrameKey, until: int, holding: int) -> MarketFrame:
        if (frame := self._frames.cached(key, until=until, holding=holding)) is not None:
            return frame
        # Loaded once for all who wait for it: one of them that is cancelled leaves it running,
        # and its connection is not torn out of the middle of a COPY.
        return await asyncio.shield(self._frames.get(user_id, key, until=until, holding=holding))

    async def _load(self, session_id: UUID, user_id: UUID) -> SessionContext:
        async with self._database.for_user(user_id) as session:
            settings = await RunningSessionRepository(session).settings(session_id)
        if settings is None:
            raise ApplicationError(
                f"session {session_id} does not exist", type="SessionNotFound", non_retryable=True
            )
        return _context(session_id, settings)


def _context(session_id: UUID, settings: SessionSettings) -> SessionContext:
    every = settings.decision_mode == "every_candle"
    return SessionContext(
        session_id=session_id,
        user_id=settings.user_id,
        settings=settings,
        rules=_RULES.validate_python(settings.rules),
        cadence=Cadence(
            first=settings.first_decision_candle,
            interval=1 if every else settings.decision_interval_candles,
        ),
        frame_key=FrameKey.of_session(settings),
    )
