"""What a forward test's watcher sees between its durable events: price, position, countdown."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from api.realtime.frames import own_event
from db.models.sessions import SessionRecord
from events.payloads import (
    countdown_payload,
    holding_of,
    position_update_payload,
    price_status_payload,
    price_update_payload,
)
from events.prices import PriceTick
from events.types import Event
from trading.candles import Timeframe
from trading.countdown import LiveSeries
from trading.decisions import Cadence

# An eye follows a few prices a second; of more only the newest are shown.
SHOW_EVERY = timedelta(milliseconds=250)
COUNT_EVERY = timedelta(seconds=1)


class SourceStanding:
    """How the client believes the source to stand; a price alone says that it is live."""

    def __init__(self) -> None:
        self._is_down = False

    def news(self, tick: PriceTick) -> Event | None:
        """Return what the client is told before `tick`, where it believes otherwise."""
        is_down = tick.status == "down"
        if is_down == self._is_down:
            return None
        self._is_down = is_down
        return own_event("price_status", price_status_payload(tick))


class MarketView:
    """The market beside one forward test, as far as its watcher has been told of the test.

    `session` is the row as read after subscribing; what happened later comes through `note`.
    """

    def __init__(self, session: SessionRecord) -> None:
        self._timeframe_ms = Timeframe.parse(session.timeframe).milliseconds
        self._cadence = cadence_of(session)
        self._known_seq = session.last_seq
        self._next_candle = session.cursor
        self._newest_open: int | None = None
        self._position: Mapping[str, Any] | None = session.open_position
        self._opened_at = (session.open_position or {}).get("opened_at")
        self._is_paused = session.status == "paused"
        self._is_over = False
        self._standing = SourceStanding()
        self._tick: PriceTick | None = None
        self._told_time: PriceTick | None = None
        self._pending: set[str] = set()
        self._shown_at: dict[str, datetime] = {}

    def hear(self, tick: PriceTick) -> None:
        """Take a price; the one before it is forgotten, shown or not."""
        self._tick = tick
        self._pending |= {"price_update", "position_update"}
        if tick.exchange_ms is not None:
            self._told_time = tick

    def note(self, event: Event) -> None:
        """Learn of a durable event that the watcher has just been sent, or need not be."""
        if event.event == "candle":
            self._note_candle(event.data)
        if event.seq is None or event.seq <= self._known_seq:
            return  # the row says what came of it
        match event.event:
            case "position_opened":
                self._hold(event.data, event.data["entry_time"])
            case "position_closed" if event.data["entry_time"] == self._opened_at:
                self._hold(None, None)
            case "session_paused" | "session_resumed":
                self._is_paused = event.event == "session_paused"
            case "session_stopped" | "auto_stopped" | "session_completed":
                self._is_over = True
            case _:
                pass

    def take(self, now: datetime) -> Event | None:
        """Return the next thing to show, if any is due; what was taken is shown."""
        if self._is_over:
            return None
        return self._status() or self._price(now) or self._held(now) or self._countdown(now)

    def _note_candle(self, data: Mapping[str, Any]) -> None:
        if data["candle_index"] >= self._next_candle - 1:
            self._next_candle = data["candle_index"] + 1
            self._newest_open = data["open_time"]

    def _hold(self, position: Mapping[str, Any] | None, opened_at: str | None) -> None:
        self._position, self._opened_at = position, opened_at
        self._pending.add("position_update")

    def _status(self) -> Event | None:
        return None if self._tick is None else self._standing.news(self._tick)

    def _price(self, now: datetime) -> Event | None:
        tick = self._due_tick("price_update", now)
        return None if tick is None else own_event("price_update", price_update_payload(tick))

    def _held(self, now: datetime) -> Event | None:
        if self._position is None:
            return None
        tick = self._due_tick("position_update", now)
        if tick is None or not tick.price:
            return None
        holding = holding_of(self._position)
        return own_event("position_update", position_update_payload(holding, tick.price))

    def _due_tick(self, name: str, now: datetime) -> PriceTick | None:
        """Return the price that is to be shown under a name now, and count it as shown."""
        tick = self._tick
        if tick is None or name not in self._pending or not tick.is_live(now):
            return None
        if not self._is_due(name, now, SHOW_EVERY):
            return None
        self._pending.discard(name)
        return tick

    def _countdown(self, now: datetime) -> Event | None:
        told = self._told_time
        if told is None or told.exchange_ms is None or told.speed <= 0:
            return None
        if not self._is_due("countdown_update", now, COUNT_EVERY):
            return None
        # Time passes at the exchange whether or not it tells a price.
        passed = max(told.age(now), timedelta()) * told.speed
        now_ms = told.exchange_ms + round(passed / timedelta(milliseconds=1))
        series = LiveSeries(
            timeframe_ms=self._timeframe_ms,
            next_candle=self._next_candle,
            newest_open=self._newest_open,
        )
        decision = None if self._is_paused else series.next_decision(now_ms, self._cadence)
        payload = countdown_payload(
            now_ms=now_ms,
            next_close=series.next_close(now_ms),
            next_decision=decision,
            speed=told.speed,
        )
        return own_event("countdown_update", payload)

    def _is_due(self, name: str, now: datetime, every: timedelta) -> bool:
        shown_at = self._shown_at.get(name)
        if shown_at is not None and shown_at <= now < shown_at + every:
            return False
        self._shown_at[name] = now
        return True


def cadence_of(session: SessionRecord) -> Cadence:
    """The candles at which the session's agent is asked."""
    every = session.decision_mode == "every_candle"
    return Cadence(
        first=session.first_decision_candle,
        interval=1 if every else session.decision_interval_candles,
    )
