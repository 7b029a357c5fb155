"""uvicorn's WebSocket protocol, opened a little: what a slow client has accepted, and a hard end.

ASGI lets a server wait until a client reads on, but neither see whether it reads at all nor
close a socket whose buffer is full. Both are what the promise about slow clients needs.
"""

import socket
import termios
from asyncio import BaseTransport
from fcntl import ioctl
from typing import Any, cast

from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request

# The kernel would grow this to megabytes for each client that does not keep up.
SEND_BUFFER_BYTES = 128 * 1024

_EXTENSION = "alphalab.transport"
# How long the close frame may wait behind what the client has not read.
_ABORT_AFTER_S = 5.0


class SocketTransport:
    """The transport under one WebSocket."""

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol

    def unsent_bytes(self) -> int:
        """Return how much the client has not yet accepted, here and in the kernel."""
        transport = self._protocol.transport
        return transport.get_write_buffer_size() + _kernel_unsent(transport)

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
        # Whoever waits to send finds the client gone.
        protocol.disconnected = True
        protocol.writable.set()
        # The protocol cancels this timer when the connection ends by itself.
        protocol.close_timer = protocol.loop.call_later(_ABORT_AFTER_S, protocol.transport.abort)


class RelayProtocol(WebSocketsSansIOProtocol):
    """Hands the application its transport, as an ASGI extension."""

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

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


def _kernel_unsent(transport: BaseTransport) -> int:
    """Return how much of what was written has not been acknowledged; 0 where nobody knows."""
    found = transport.get_extra_info("socket")
    if found is None:
        return 0
    try:
        answer = ioctl(found.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return 0
    return int.from_bytes(answer, "little")
