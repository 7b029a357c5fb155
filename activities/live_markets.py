"""Where a forward test stands against its market: its data set, its candles, the next close."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from temporalio import activity

from activities.contexts import SessionContexts
from activities.departures import Close, Departures
from activities.failures import activity_failures, market_failures
from activities.heartbeats import heartbeating
from activities.live_candles import LiveCandles, series_of
from db.engine import Database
from db.repositories.forward_sessions import ForwardSessionRepository
from trading.candles import Candle, Timeframe
from trading.schedule import outlook

# A fast clock must not make a busy loop of a late candle.
_SHORTEST_WAIT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardInput:
    """Names a forward test, and the candle that it steps next."""

    session_id: str
    user_id: str
    next_candle: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the market has for a test.

    `closed` counts the candles since its start; `next_close` is when the forming one closes (epoch
    ms of the exchange), and `seconds` how long to wait, by our clock, until it is worth looking
    again; `delay` more leaves a moment between tests that look at the same close. `candle` is the
    one that the test steps next, if it has closed.
    """

    closed: int
    next_close: int
    seconds: float
    candle: Candle | None = None
    delay: float = 0.0


class LiveMarketActivities:
    """Looks at live markets."""

    def __init__(self, database: Database, contexts: SessionContexts, live: LiveCandles) -> None:
        self._database = database
        self._contexts = contexts
        self._live = live
        self._departures = Departures()

    @activity.defn
    async def prepare_market(self, input: ForwardInput) -> None:
        """Give the test its data set, with what its indicators need, and its first candle; once."""
        with activity_failures(), market_failures(at_start=True), heartbeating():
            session_id, user_id = UUID(input.session_id), UUID(input.user_id)
            async with self._database.for_user(user_id) as session:
                waiting = await ForwardSessionRepository(session).unprepared(session_id)
            if waiting is None:
                return
            series, start = await self._live.prepare(
                waiting.asset, Timeframe.parse(waiting.timeframe), warm_up=waiting.warm_up_candles
            )
            async with self._database.for_user(user_id) as session:
                await ForwardSessionRepository(session).prepare(
                    session_id,
                    data_set_id=series.data_set_id,
                    source=self._live.source,
                    start=datetime.fromtimestamp(start / 1000, tz=UTC),
                )

    @activity.defn
    async def observe_market(self, input: ForwardInput) -> Observation:
        """Fetch what has closed, and say when the next candle does."""
        with activity_failures(), market_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            key, length = context.frame_key, context.rules.timeframe_ms
            now = await self._live.now_ms()
            newest = await self._live.catch_up(series_of(context), now, since=key.start_ms)
            # What lies before the test is in no frame of its own.
            until = newest if newest is not None and newest >= key.start_ms else 0
            frame = await self._contexts.frame(context, until=until)
            ahead = outlook(now, length, newest_open=newest)
            second_ms = 1000 * max(await self._live.speed(), 1e-9)
            delay = self._departures.delay(
                Close(at=ahead.look_at, timeframe_ms=length),
                user_id=context.user_id,
                session_id=context.session_id,
                now=now,
                longest=length / 2 / second_ms,  # the other half is for deciding
            )
            index = input.next_candle
            return Observation(
                closed=len(frame),
                candle=frame.candles.candle(index) if index < len(frame) else None,
                next_close=ahead.next_close,
                seconds=max((ahead.look_at - now) / second_ms, _SHORTEST_WAIT_S),
                delay=delay,
            )
