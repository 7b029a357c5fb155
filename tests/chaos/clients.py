"""WebSocket clients that come back with `last_seq` whenever they are cut off, and note it all."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

Frame = dict[str, Any]

RETRY_SECONDS = 0.1
OPEN_SECONDS = 10.0
FINISHED = 1000


@dataclass(frozen=True, slots=True)
class Received:
    """A numbered frame and when it came, in seconds since the epoch."""

    at: float
    frame: Frame

    @property
    def seq(self) -> int:
        return int(self.frame["seq"])


@dataclass(slots=True, kw_only=True)
class WatchingClient:
    """One user's socket to one session, over as many connections as it takes.

    `patience` is how long, at most, a restless client keeps a connection before it drops it
    without a word; None is a client that stays until it is cut off.
    """

    api_url: str
    session_id: str
    token: str
    type: Literal["backtest", "forward"] = "backtest"
    patience: float | None = None
    random: Random = field(default_factory=Random)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    ungreeted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def last_seq(self) -> int:
        return self.received[-1].seq if self.received else 0

    @property
    def frames(self) -> list[Frame]:
        return [each.frame for each in self.received]

    async def run(self) -> None:
        """Watch until the server says that the session is finished."""
        while not await self._connection():
            await asyncio.sleep(RETRY_SECONDS)

    async def _connection(self) -> bool:
        """One connection from beginning to end; True when there is nothing more to come."""
        try:
            connection = await connect(
                self._url(), compression=None, open_timeout=OPEN_SECONDS, proxy=None
            )
        except InvalidStatus as e:
            self.refusals[str(e.response.status_code)] += 1
            return False
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError, TimeoutError) as e:
            self.refusals[type(e).__name__] += 1
            return False
        self.connections += 1
        return await self._listen(connection)

    async def _listen(self, connection: ClientConnection) -> bool:
        loop = asyncio.get_running_loop()
        until = None
        if self.patience is not None:
            until = loop.time() + self.random.uniform(0.05, self.patience)
        try:
            async with asyncio.timeout_at(until):
                await self._receive(connection)
        except TimeoutError:
            connection.transport.abort()
            return False
        except ConnectionClosed as closed:
            return closed.rcvd is not None and closed.rcvd.code == FINISHED
        return False

    async def _receive(self, connection: ClientConnection) -> None:
        greeting = orjson.loads(await connection.recv())
        self.ungreeted += greeting["event"] != "session_initialized"
        while True:
            frame = orjson.loads(await connection.recv())
            if "seq" in frame:
                self.received.append(Received(time.time(), frame))

    def _url(self) -> str:
        base = self.api_url.replace("http", "ws", 1)
        query = f"token={self.token}&last_seq={self.last_seq}"
        return f"{base}/ws/{self.type}/{self.session_id}?{query}"
