"""uvicorn's WebSocket protocol, opened a little: what a slow client has accepted, and a hard end.

ASGI lets a server wait until a client reads on, but neither see whether it reads at all nor
close a socket whose buffer is full. Both are what the promise about slow clients needs.
"""

from typing import Any, cast

from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request

_EXTENSION = "alphalab.transport"
# How long the close frame may wait behind what the client has not read.
_ABORT_AFTER_S = 5.0


class SocketTransport:
    """The transport under one WebSocket."""

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol

    def unsent_bytes(self) -> int:
        """Return how much the client has not yet accepted."""
        return self._protocol.transport.get_write_buffer_size()

    def fail(self, code: int, reason: str) -> None:
        """Close without waiting for the client to read what came before."""
        protocol = self._protocol
        if protocol.close_sent or protocol.transport.is_closing():
            return
        try:
            protocol.conn.send_close(code, reason)
        except InvalidState:
            return
        protocol.close_sent = True
        protocol.transport.write(b"".join(protocol.conn.data_to_send()))
        protocol.loop.call_later(_ABORT_AFTER_S, protocol.transport.abort)


class RelayProtocol(WebSocketsSansIOProtocol):
    """Hands the application its transport, as an ASGI extension."""

    @override
    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope = cast("dict[str, Any] | None", getattr(self, "scope", None))
        if scope is not None:
            # The application starts at the next turn of the loop, so it finds this in place.
            scope["extensions"][_EXTENSION] = SocketTransport(self)


def transport_of(scope: Scope) -> SocketTransport | None:
    """Return the transport; None under a server other than ours."""
    found: SocketTransport | None = scope.get("extensions", {}).get(_EXTENSION)
    return found
