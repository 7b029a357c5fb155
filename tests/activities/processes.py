"""A worker process as far as its activities are concerned: what it holds open dies with it."""

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from redis.asyncio import Redis
from sqlalchemy import QueuePool, event
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.live_candles import LiveCandles, Market
from db.engine import Database
from integrations.openrouter.client import OpenRouterClient
from tests.activities.interruptions import GRAVEYARD
from tests.laboratory import Laboratory
from worker import Activities, FernetKeyRing, build_activities


@dataclass(slots=True, kw_only=True, repr=False)  # asyncio shows what a task came to, often
class Machine:
    """Runs processes on one engine; the connections of a process are its own."""

    laboratory: Laboratory
    database: Database
    server: psycopg.AsyncConnection[Any]
    redis_url: str
    market: Market
    connections: list[Any] = field(default_factory=list)
    processes: list["Process"] = field(default_factory=list)

    def __post_init__(self) -> None:
        for engine in self.engines:
            event.listen(engine.sync_engine, "connect", self._connected)

    @property
    def engines(self) -> list[AsyncEngine]:
        return [each for each in vars(self.database).values() if isinstance(each, AsyncEngine)]

    @property
    def busy_connections(self) -> int:
        """Connections that are not in a pool: a bug when nothing runs."""
        pools = [engine.pool for engine in self.engines]
        return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool))

    def _connected(self, connection: Any, _record: object) -> None:
        self.connections.append(connection.driver_connection)

    def process(self) -> "Process":
        redis = Redis.from_url(self.redis_url)
        sent: list[str] = []

        async def note(request: httpx.Request) -> None:
            if request.method == "POST":
                sent.append(request.url.path)

        http = httpx.AsyncClient(verify=False, event_hooks={"request": [note]})
        laboratory = self.laboratory
        process = Process(
            machine=self,
            sent=sent,
            redis=redis,
            http=http,
            activities=build_activities(
                self.database,
                redis,
                OpenRouterClient(http, laboratory.openrouter_url),
                FernetKeyRing((laboratory.fernet_key,)),
                LiveCandles(self.database, self.market, "simulated"),
                storage=laboratory.storage,
                issuer=laboratory.issuer,
            ),
        )
        self.processes.append(process)
        return process

    async def end(self) -> None:
        """End every process that still runs."""
        for process in [*self.processes]:
            await process.end()

    async def lose_connections(self) -> None:
        """Cut every connection to PostgreSQL, as the kernel does for a process that is killed."""
        loop, backends = asyncio.get_running_loop(), []
        for connection in self.connections:
            if connection.closed:
                continue
            backends.append(connection.pgconn.backend_pid)
            file = connection.pgconn.socket
            loop.remove_reader(file)
            loop.remove_writer(file)
            with socket.fromfd(file, socket.AF_UNIX, socket.SOCK_STREAM) as shared:
                shared.shutdown(socket.SHUT_RDWR)
            connection.pgconn.finish()
        self.connections.clear()
        for engine in self.engines:
            await engine.dispose(close=False)
        # What was on its way is still carried out; only then is it known what came of it.
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        while (await (await self.server.execute(alive, (backends,))).fetchone()) != (0,):
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Process:
    """Activities with caches and connections of their own; `sent` has its requests to models."""

    machine: Machine
    sent: list[str]
    redis: Redis
    http: httpx.AsyncClient
    activities: Activities

    async def warm_up(self) -> None:
        """Open what an activity uses, so that its own awaits are what can be interrupted."""
        async with self.machine.database.for_user(self.machine.laboratory.user_id):
            pass
        await self.redis.ping()

    async def kill(self) -> None:
        """Cut every connection; nothing of the process runs any more."""
        GRAVEYARD.append(self)
        self.machine.processes.remove(self)
        pool: Any = self.redis.connection_pool
        for connection in [*pool._available_connections, *pool._in_use_connections]:
            if connection._writer is not None:
                connection._writer.transport.abort()
        transport: Any = self.http._transport
        for connection in transport._pool._connections:
            if connection._connection is not None:
                connection._connection._network_stream._stream._transport.abort()
        await self.machine.lose_connections()

    async def end(self) -> None:
        """Close every connection of its own in order."""
        self.machine.processes.remove(self)
        await self.redis.aclose()
        await self.http.aclose()
