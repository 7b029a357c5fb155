"""What a client gets before anything live: the session, what it missed, and how things stand."""

from collections.abc import Callable
from typing import Any

from api.realtime.backlog import Backlog
from api.realtime.frames import (
    Frame,
    is_terminal,
    own_event,
    own_message,
    without_seq,
)
from api.realtime.market_view import cadence_of
from api.realtime.watcher import NORMAL_CLOSURE, Watcher
from api.wire import encode_frame
from db.models.sessions import SessionRecord
from events.shapes import (
    ReplayComplete,
    SessionConfig,
    SessionInitialized,
    SessionStarted,
    Trouble,
)
from events.types import Event, iso_timestamp

FINISHED = frozenset({"completed", "failed", "stopped"})
_PAUSING = frozenset({"session_paused", "session_resumed"})

# A client that does not count its events draws a chart; more candles than this it cannot show.
CANDLES_REPLAYED = 5_000


class Opening:
    """The first part of a conversation; afterwards the watcher goes on by itself."""

    def __init__(self, watcher: Watcher, backlog: Backlog, session: SessionRecord) -> None:
        self._watcher = watcher
        self._backlog = backlog
        self._session = session
        self._stats: Event | None = None
        self._last_word: Event | None = None

    async def send(self) -> None:
        """Send everything up to `replay_complete`; `session` is as read after subscribing."""
        self._watcher.begin_within(self._session.last_seq)
        await self._watcher.send(encode_frame(session_initialized(self._session)))
        if self._session.type == "forward":
            await self._watcher.send(encode_frame(session_started(self._session)))
        await self._send_missed()
        await self._repeat_standing()
        complete: ReplayComplete = {"last_seq": self._watcher.sent}
        await self._watcher.send(own_message("replay_complete", complete))

    async def _send_missed(self) -> None:
        is_shown = _everything if self._watcher.counts else coalesced(self._session)
        while self._watcher.sent < self._session.last_seq:
            events = await self._watcher.page()
            if not events:
                return
            for event in events:
                self._note(event)
                if is_shown(event):
                    await self._watcher.deliver(Frame(event))
                else:
                    self._watcher.skip(event)

    def _note(self, event: Event) -> None:
        if event.event == "stats_update":
            self._stats = event
        elif event.event in _PAUSING or is_terminal(event):
            self._last_word = event

    async def _repeat_standing(self) -> None:
        """Say how things stand: the figures, and that the session is paused or over.

        A client that counts has the last word already when it was among the missed events.
        """
        is_told = self._watcher.counts and self._last_word is not None
        if self._stats is None or (self._last_word is None and self._is_standing):
            await self._look_back()
        if self._stats is not None:
            await self._repeat(self._stats)
        if self._last_word is not None and not is_told:
            await self._repeat_last_word(self._last_word)

    @property
    def _is_standing(self) -> bool:
        return self._session.status == "paused" or self._session.status in FINISHED

    async def _look_back(self) -> None:
        recent = await self._backlog.recent(
            self._watcher.user_id, self._session.id, seq=self._watcher.sent
        )
        for event in reversed(recent):
            self._note(event)
        if self._last_word is None and self._session.status in FINISHED:
            self._last_word = _failure(self._session)

    async def _repeat_last_word(self, event: Event) -> None:
        if event.event == "session_resumed":
            return
        await self._repeat(event)
        if is_terminal(event):
            self._watcher.close(NORMAL_CLOSURE, "the session is finished")

    async def _repeat(self, event: Event) -> None:
        # To a client that counts, a number is a delivery, and each is made once.
        repeated = without_seq(event) if self._watcher.counts else event
        await self._watcher.send(encode_frame(repeated))
        await self._watcher.send_twin(event)


def coalesced(session: SessionRecord) -> Callable[[Event], bool]:
    """Choose what a client that starts from nothing needs to draw the session so far."""
    opened_at = (session.open_position or {}).get("opened_at")
    stride = -(-session.cursor // CANDLES_REPLAYED)
    cadence = cadence_of(session)

    def is_shown(event: Event) -> bool:
        match event.event:
            case "candle" | "candle_closed":
                left = session.cursor - 1 - int(event.data["candle_index"])
                return left % max(stride, 1) == 0 or cadence.is_due(event.data["candle_index"])
            case "position_opened" | "position_closed" if session.type == "forward":
                return False  # its front end has them from REST, and would show old ones twice
            case "position_opened":
                return bool(event.data["entry_time"] == opened_at)
            case name:
                return name in {"ai_decision", "position_closed"}

    return is_shown


def session_initialized(session: SessionRecord) -> Event:
    """Return the greeting; its time is the session's own, so that it is the same every time."""
    data: SessionInitialized = {
        "session_id": str(session.id),
        "agent_name": session.agent_name,
        "asset": session.asset,
        "timeframe": session.timeframe,
        "total_candles": session.total_candles,
        "start_date": _iso(session.start_date),
        "end_date": _iso(session.end_date),
        "starting_capital": session.starting_capital,
        "playback_speed": session.playback_speed,
        "test_type": session.type,
        "config": _config(session),
    }
    return Event(
        seq=None,
        event="session_initialized",
        data=data,
        timestamp=iso_timestamp(session.created_at),
    )


def session_started(session: SessionRecord) -> Event:
    """What a forward test says right after its greeting."""
    data: SessionStarted = {
        "session_id": str(session.id),
        "started_at": _iso(session.started_at),
    }
    return Event(
        seq=None,
        event="session_started",
        data=data,
        timestamp=iso_timestamp(session.started_at or session.created_at),
    )


def _config(session: SessionRecord) -> SessionConfig:
    return {
        "total_candles": session.total_candles,
        "asset": session.asset,
        "timeframe": session.timeframe,
        "mode": session.mode,
        "starting_capital": session.starting_capital,
        "safety_mode": session.safety_mode,
        "allow_leverage": session.allow_leverage,
        "decision_mode": session.decision_mode,
        "decision_interval_candles": session.decision_interval_candles,
        "first_decision_candle": session.first_decision_candle,
        "fee_bps": session.fee_bps,
        "slippage_bps": session.slippage_bps,
        "fill_timing": session.fill_timing,
        "intrabar": session.intrabar,
        "blind": session.blind,
        "max_cost_usd": session.max_cost_usd,
        "data_source": session.data_source,
    }


def _failure(session: SessionRecord) -> Event:
    """Say that a session is over which ended before it could say so itself."""
    error = session.error or {}
    trouble: Trouble = {
        "error_code": error.get("error_code", "INTERNAL_ERROR"),
        "message": error.get("message", "The test ended without a result."),
        "candle_index": session.current_candle,
        "recoverable": False,
    }
    return own_event("error", trouble)


def _everything(_: Event) -> bool:
    return True


def _iso(at: Any) -> str | None:
    return None if at is None else iso_timestamp(at)
