"""The pulse of one accepted socket: heartbeats, and what its client has accepted."""

from datetime import UTC, datetime
from time import monotonic

from starlette.websockets import WebSocket

from api.realtime.frames import own_message
from api.realtime.transport import SocketTransport, transport_of
from events.shapes import Heartbeat
from events.types import iso_timestamp

HEARTBEAT_S = 30.0
STALL_LIMIT_S = 30.0

TRY_AGAIN_LATER = 1013


class Pulse:
    """Sends one text after the other and notices a client that accepts none."""

    def __init__(self, socket: WebSocket, stall_limit_s: float = STALL_LIMIT_S) -> None:
        self._socket = socket
        self._beats_at = monotonic() + HEARTBEAT_S
        self._stall = _Stall(transport_of(socket.scope), stall_limit_s)

    async def send(self, text: str) -> None:
        """Send at once, and note how long the client keeps us waiting."""
        self._stall.begin()
        await self._socket.send({"type": "websocket.send", "text": text})
        self._stall.end()

    def beat(self, now: float) -> str | None:
        """Return the heartbeat when it is due."""
        if now < self._beats_at:
            return None
        self._beats_at = now + HEARTBEAT_S
        alive: Heartbeat = {"server_time": iso_timestamp(datetime.now(tz=UTC))}
        return own_message("heartbeat", alive)

    def is_lost(self, now: float) -> bool:
        """Whether the client accepts nothing any more; its connection is then ended."""
        if self._stall.is_over(now):
            self._stall.fail()
            return True
        return False


class _Stall:
    """Notices a client that accepts no byte, as against one that is slow."""

    def __init__(self, transport: SocketTransport | None, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        self._since: float | None = None
        self._unsent = 0

    def begin(self) -> None:
        self._since = monotonic()
        self._unsent = 0

    def end(self) -> None:
        self._since = None

    def is_over(self, now: float) -> bool:
        if self._since is None or self._transport is None:
            return False
        unsent = self._transport.unsent_bytes()
        if unsent < self._unsent or self._unsent == 0:
            self._since = now
        self._unsent = unsent
        return now - self._since > self._limit_s

    def fail(self) -> None:
        if self._transport is not None:
            self._transport.fail(TRY_AGAIN_LATER, "the client is too slow")
