"""One client of a session's events: knows what it was sent, and sends what comes next.

A watcher is either *live*, fed by its channel through a queue, or *behind*, pulling pages from
the backlog at the socket's own pace. It begins behind; it falls behind again when its queue
overflows, when a number is missing, or when the session's row is ahead of what it heard.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket

from api.realtime.backlog import Backlog
from api.realtime.frames import Frame, frames_of, is_terminal, own_message
from api.realtime.market_view import MarketView
from api.realtime.pulse import STALL_LIMIT_S, Pulse
from api.wire import encode_frame
from events.prices import PriceTick
from events.types import Event

# A page is encoded in a few milliseconds, during which no other socket is served.
PAGE = 250
QUEUE_LIMIT = 4_000
_RETRY_DELAYS_S = (0.1, 0.25, 0.5, 1.0, 2.0)

NORMAL_CLOSURE = 1000

_logger = structlog.get_logger(__name__)


class Deactivated(Exception):
    """The watcher's user was deactivated, and is shown nothing more."""


class Watcher:
    """Sends a session's events to one accepted socket, in order and once."""

    def __init__(
        self,
        socket: WebSocket,
        backlog: Backlog,
        *,
        user_id: UUID,
        session_id: UUID,
        last_seq: int | None,
        stall_limit_s: float = STALL_LIMIT_S,
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.sent = last_seq or 0
        # Clients that count get every candle; the others may be shown a selection.
        self.counts = last_seq is not None
        self._socket = socket
        self._backlog = backlog
        self._queue: deque[Frame] = deque()
        self._messages: deque[str] = deque()
        self._announced = 0
        self._behind = True
        self._closing: tuple[int, str] | None = None
        self._wake = asyncio.Event()
        self._cut = asyncio.Event()
        self._pulse = Pulse(socket, stall_limit_s)
        self._view: MarketView | None = None

    def look_on(self, view: MarketView) -> None:
        """Show the market as well, whenever nothing durable is left to send."""
        self._view = view

    def hear(self, tick: PriceTick) -> None:
        """Take a price; never waits."""
        if self._view is not None:
            self._view.hear(tick)
            self._wake.set()

    def begin_within(self, last_seq: int) -> None:
        """Believe no client that claims to have seen more than there is."""
        self.sent = min(self.sent, last_seq)

    def offer(self, frames: Sequence[Frame], newest: int) -> None:
        """Take a live batch, whose highest number is `newest`; never waits."""
        self._announced = max(self._announced, newest)
        if not self._behind:
            self._queue.extend(frames)
            if len(self._queue) > QUEUE_LIMIT:
                self._fall_behind()
        self._wake.set()

    def expect(self, last_seq: int) -> None:
        """Learn that events up to `last_seq` exist, heard or not."""
        if last_seq > self._announced:
            self._announced = last_seq
            self._fall_behind()
            self._wake.set()

    def say(self, message: str) -> None:
        """Queue a message of the relay's own, ahead of the events."""
        self._messages.append(message)
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Close once everything that was announced has been sent."""
        self._closing = self._closing or (code, reason)
        self._wake.set()

    def cut_off(self) -> None:
        """End at once, whatever is still to be sent: the user was deactivated."""
        self._cut.set()

    async def until_cut_off(self) -> None:
        """Raise Deactivated as soon as that is heard."""
        await self._cut.wait()
        raise Deactivated

    def tick(self, now: float) -> bool:
        """Send a heartbeat when it is due; return False when the client accepts nothing."""
        if self._pulse.is_lost(now):
            return False
        if (heartbeat := self._pulse.beat(now)) is not None:
            self.say(heartbeat)
        if self._view is not None:
            self._wake.set()  # time has passed: a countdown may be due
        return True

    async def run(self) -> None:
        """Send live events until the session or the socket ends. Raises Deactivated."""
        while True:
            self._wake.clear()
            await self._send_messages()
            if self._behind:
                await self._pull()
            elif self._queue:
                await self._send_queued()
            elif self._closing is not None:
                await self._check_owner()
                await self._socket.close(*self._closing)
                return
            elif (seen := self._look()) is not None:
                await self.send(encode_frame(seen))
            else:
                await self._wake.wait()

    def skip(self, event: Event) -> None:
        """Count a durable event as sent that this client need not be shown."""
        if event.seq is None:
            return
        self.sent = event.seq
        if self._view is not None:
            self._view.note(event)

    async def send(self, text: str) -> None:
        """Send at once, and note how long the client keeps us waiting."""
        await self._pulse.send(text)

    async def deliver(self, frame: Frame) -> None:
        """Send a durable event; what follows the last one is the end."""
        if self.counts or not frame.is_optional:
            await self.send(frame.text)
        self.skip(frame.event)
        await self.send_twin(frame.event)
        if is_terminal(frame.event):
            self.close(NORMAL_CLOSURE, "the session is finished")

    async def send_twin(self, event: Event) -> None:
        """Say a `session_error` by the front end's name too; the numbered one is the spec's."""
        if event.event == "session_error":
            await self.send(own_message("error", event.data))

    async def page(self) -> list[Event]:
        """The next durable events after what was sent, however long that takes."""
        for delay in chain(_RETRY_DELAYS_S, repeat(_RETRY_DELAYS_S[-1])):
            await self._send_messages()  # a long replay holds up no answer and no heartbeat
            try:
                return await self._backlog.read_after(
                    self.user_id, self.session_id, self.sent, limit=PAGE
                )
            except (SQLAlchemyError, RedisError, OSError) as e:
                _logger.warning("replay_waits", error=type(e).__name__)
            await asyncio.sleep(delay)
        raise AssertionError("an endless loop ended")

    async def _pull(self) -> None:
        if self.sent < self._announced:
            announced = self._announced
            events = await self.page()
            if not events and self._announced == announced:
                self._announced = self.sent  # announced, but never stored: nobody will see it
            for frame in frames_of(events):
                await self.deliver(frame)
        # Nothing is awaited between this look and the change, so no announcement is overlooked.
        self._behind = self.sent < self._announced

    async def _send_queued(self) -> None:
        while self._queue and not self._messages:
            frame = self._queue.popleft()
            seq = frame.event.seq
            if seq is None or seq == self.sent + 1:
                await self.deliver(frame)
            elif seq > self.sent:
                self._fall_behind()

    async def _send_messages(self) -> None:
        while self._messages:
            await self.send(self._messages.popleft())

    async def _check_owner(self) -> None:
        """Raise Deactivated for a user whose deactivation is what ended the test."""
        try:
            standing = await self._backlog.standing(self.user_id, self.session_id)
        except (SQLAlchemyError, OSError) as e:
            _logger.warning("session_not_compared", error=type(e).__name__)
            return
        if standing is not None and not standing.is_active:
            raise Deactivated

    def _look(self) -> Event | None:
        """What the market has to show now; one event, for a durable one may come meanwhile."""
        return None if self._view is None else self._view.take(datetime.now(tz=UTC))

    def _fall_behind(self) -> None:
        self._behind = True
        self._queue.clear()
