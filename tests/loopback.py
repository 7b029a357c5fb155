"""Servers on a free loopback port: an ASGI app, bytes written by hand, a slow way to another."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn

# For clients that each test makes anew: authorities take longer to read than most tests to ask.
TLS = ssl.create_default_context()


@contextlib.contextmanager
def serve_app(app: Any, *, has_sockets: bool = False) -> Iterator[str]:
    """Run `app` in a thread of its own; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    # No logging of its own: uvicorn would set up the loggers of the whole test run.
    sockets: Literal["websockets-sansio", "none"] = "websockets-sansio" if has_sockets else "none"
    config = uvicorn.Config(app, log_config=None, ws=sockets, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        listener.close()


@dataclass
class ScriptedServer:
    """Answers each request with the next answer: pieces of bytes, sent one by one.

    A piece of None cuts the connection with a reset. Keeps the connection open after an answer,
    as HTTP/1.1 does, unless the answer said `Connection: close`.
    """

    address: str = ""
    answers: list[Sequence[bytes | None]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.address}/api/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await _read_request(reader))
                if not await self._answer(writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        pieces = self.answers.pop(0) if self.answers else [response(500, b"{}")]
        for piece in pieces:
            if piece is None:
                writer.transport.abort()
                return False
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return b"Connection: close" not in (pieces[0] or b"")


@contextlib.asynccontextmanager
async def serve_script() -> AsyncIterator[ScriptedServer]:
    script = ScriptedServer()
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.ensure_future(script.handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    script.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@dataclass
class SlowWay:
    """A TCP port in front of a unix socket, whose answers come `seconds` later."""

    path: str
    seconds: float = 0.0
    address: str = ""

    async def carry(self, near: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        far, ask = await asyncio.open_unix_connection(self.path)
        forth = asyncio.create_task(self._pass_on(near, ask, is_answer=False))
        try:
            await self._pass_on(far, answer, is_answer=True)
        finally:
            forth.cancel()
            ask.close()
            answer.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65_536):
                await asyncio.sleep(self.seconds if is_answer else 0)
                target.write(piece)
                await target.drain()
        target.close()


@contextlib.asynccontextmanager
async def slow_way(path: str) -> AsyncIterator[SlowWay]:
    way = SlowWay(path)
    carriers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carriers.add(asyncio.ensure_future(way.carry(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    way.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield way
    finally:
        server.close()
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)


def response(
    status: int, body: bytes, content_type: str = "application/json", **headers: str
) -> bytes:
    """A whole HTTP answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def stream_head() -> bytes:
    """The head of an event stream that ends with its connection."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Connection: close\r\nX-Generation-Id: gen-from-header\r\n\r\n"
    )


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )
    return head + await reader.readexactly(length)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until the condition holds; fails when it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)
