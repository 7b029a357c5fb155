"""Real sockets to a real server, and sessions whose events a test writes as a worker would."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any, Literal
from uuid import UUID

import orjson
import pytest
import uvicorn
from redis.asyncio import Redis
from sqlalchemy import text
from typing_extensions import override
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from db.engine import Database
from events.payloads import candle_payload
from events.publisher import EventPublisher
from events.records import Phase, StepRecord, count_events, step_events
from events.shapes import CandleStepped
from events.types import Event
from server import uvicorn_config
from tests.api.world import Person, World, api_settings, created, upload
from tests.laboratory import walk
from trading.candles import CandleSeries
from trading.indicators import compute_indicators, plan_indicators

Frame = dict[str, Any]

SET_STATUS = text(
    "UPDATE trading_sessions SET status = :status, paused_at = now(), completed_at = now()"
    " WHERE id = :id"
)


class QuietServer(uvicorn.Server):
    """A server that leaves the test run's signals alone."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(world: World, **settings: Any) -> AsyncIterator["Address"]:
    """Serve the world's app as `server.py` does, on a free port."""
    config = uvicorn_config(world.app, api_settings(**(SETTINGS | settings)))
    config.port = 0
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield Address(port=server.servers[0].sockets[0].getsockname()[1], server=server)
    finally:
        server.should_exit = True
        await task


# Only what the server itself reads: the services are those of the world.
SETTINGS = {
    "database_url": "postgresql://unused",
    "redis_url": "redis://unused",
    "temporal_address": "unused",
    "encryption_key": "Z" * 43 + "=",
    "clerk_jwks_url": "http://unused",
    "storage_bucket": "s3://unused",
    "link_signing_key": "unused" * 6,
    "certificate_public_keys": "A" * 43 + "=",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens."""

    port: int
    server: uvicorn.Server

    def url(self, session_id: UUID | str, query: str = "", type: str = "backtest") -> str:
        return f"ws://127.0.0.1:{self.port}/ws/{type}/{session_id}?{query}"

    @asynccontextmanager
    async def watch(
        self,
        session_id: UUID | str,
        token: str,
        *,
        last_seq: int | None = None,
        type: str = "backtest",
    ) -> AsyncIterator["Client"]:
        query = f"token={token}" + ("" if last_seq is None else f"&last_seq={last_seq}")
        async with connect(self.url(session_id, query, type), compression=None) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def watch_through_a_straw(self, session_id: UUID, token: str) -> AsyncIterator["Client"]:
        """Watch everything with so small a receive buffer that reading slowly is felt at once."""
        straw = socket.socket()
        straw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        straw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(straw, ("127.0.0.1", self.port))
        url = self.url(session_id, f"token={token}&last_seq=0")
        async with connect(url, sock=straw, compression=None, max_queue=4) as connection:
            yield Client(connection)


async def refusal(url: str, status: int) -> str:
    """Check that the handshake is refused with this status; return the body."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(url)
    assert refused.value.response.status_code == status
    return (refused.value.response.body or b"").decode()


async def is_welcome(url: str) -> bool:
    try:
        async with connect(url):
            return True
    except InvalidStatus:
        return False


@dataclass(slots=True)
class Client:
    """A client that remembers what it was sent."""

    connection: ClientConnection
    frames: list[Frame] = field(default_factory=list)

    async def next(self, *, seconds: float = 10.0) -> Frame:
        async with asyncio.timeout(seconds):
            frame: Frame = orjson.loads(await self.connection.recv())
        assert frame["type"] == frame["event"]
        self.frames.append(frame)
        return frame

    async def until(self, event: str, *, seconds: float = 10.0) -> Frame:
        """Receive up to and including the first frame of that name."""
        async with asyncio.timeout(seconds):
            while (frame := await self.next(seconds=seconds))["event"] != event:
                pass
        return frame

    async def until_seq(self, seq: int, *, seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while (await self.next(seconds=seconds)).get("seq", 0) < seq:
                pass

    async def until_closed(self, *, seconds: float = 10.0) -> int | None:
        """Receive everything that still comes; return the close code."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.next(seconds=seconds)
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code

    async def send(self, message: Any) -> None:
        text = message if isinstance(message, str | bytes) else orjson.dumps(message).decode()
        await self.connection.send(text)

    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames if "seq" in frame]

    def names(self) -> list[str]:
        return [frame["event"] for frame in self.frames]

    def of(self, event: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["event"] == event]


async def recorded(world: World, person: Person, *, candles: int = 240, **start: Any) -> "Tape":
    """A session of the person's whose events are still to be written."""
    series = walk(candles)
    await person.add_key()
    await upload(person, series)
    agent = await person.add_agent()
    whole = {"start_date": "2024-01-01", "end_date": "2024-12-31", "data_source": "upload"}
    session = created(await person.start(agent["id"], **(whole | start)))["session"]
    async with world.services.database.as_system() as database:
        await database.execute(SET_STATUS, {"id": session["id"], "status": "running"})
    return Tape(
        database=world.services.database,
        redis=world.services.redis,
        user_id=UUID((await person.get("/api/users/me")).json()["user"]["id"]),
        session_id=UUID(session["id"]),
        series=series,
        total=candles,
    )


@dataclass(slots=True, kw_only=True)
class Tape:
    """Writes a session's rows and publishes their events, with any mishap a test wants."""

    database: Database
    redis: Redis
    user_id: UUID
    session_id: UUID
    series: CandleSeries
    total: int
    cursor: int = 0
    last_seq: int = 0
    controls: int = 0
    written: list[Event] = field(default_factory=list)
    _indicators: dict[str, Any] = field(default_factory=dict)

    async def step(
        self,
        candles: int = 1,
        *,
        is_published: bool = True,
        happenings: Sequence[dict[str, Any]] = (),
        open_position: dict[str, Any] | None = None,
    ) -> list[Event]:
        """Store candles in one transaction, `happenings` with the last; publish what they say."""
        rows = [self._step(happenings if left == 0 else ()) for left in reversed(range(candles))]
        events = [event for row in rows for event in step_events(row, self._candle(row))]
        await self._store(rows, {"open_position": orjson.dumps(open_position).decode()})
        return await self._publish(events, is_published=is_published)

    async def note(
        self,
        events: Sequence[dict[str, Any]],
        *,
        phase: Literal["decision", "control"] = "control",
        status: str = "running",
        is_published: bool = True,
    ) -> list[Event]:
        """Store events beside the candles: a decision's or a control's."""
        row = self._numbered(max(self.cursor - 1, 0), phase, events, None)
        await self._store([row], {"status": status})
        return await self._publish(step_events(row, None), is_published=is_published)

    async def say(self, name: str, data: dict[str, Any]) -> None:
        """Publish something that is only worth seeing live."""
        event = Event(seq=None, event=name, data=data, timestamp="2024-01-01T00:00:00.000001Z")
        await self.publish_again([event])

    async def publish_again(self, events: Sequence[Event]) -> None:
        await EventPublisher(self.redis).publish(self.session_id, events)

    async def _publish(self, events: list[Event], *, is_published: bool) -> list[Event]:
        self.written += events
        if is_published:
            await self.publish_again(events)
        return events

    def _step(self, happenings: Sequence[dict[str, Any]]) -> StepRecord:
        index = self.cursor
        self.cursor += 1
        stats = {
            "equity": 10_000.0,
            "pnl_pct": 0.0,
            "trades_total": 0,
            "current_candle": index + 1,
            "total_candles": self.total,
        }
        return self._numbered(index, "step", happenings, stats)

    def _numbered(
        self,
        candle_number: int,
        phase: Phase,
        events: Sequence[dict[str, Any]],
        stats: dict[str, Any] | None,
    ) -> StepRecord:
        first = self.last_seq + 1
        self.last_seq += count_events(events, phase)
        return StepRecord(
            candle_number=candle_number,
            phase=phase,
            first_seq=first,
            happened_at=datetime(2025, 1, 1, tzinfo=UTC) + first * timedelta(microseconds=1),
            events=events,
            stats=stats,
        )

    async def _store(self, rows: Sequence[StepRecord], changes: dict[str, str]) -> None:
        values = {"status": "running", "open_position": "null"} | changes
        async with self.database.for_user(self.user_id) as session:
            await session.execute(
                _MOVE,
                values | {"id": self.session_id, "cursor": self.cursor, "last_seq": self.last_seq},
            )
            await session.execute(_INSERT, [self._columns(row) for row in rows])

    def _columns(self, row: StepRecord) -> dict[str, Any]:
        self.controls += row.phase == "control"
        return {
            "id": self.session_id,
            "candle_number": row.candle_number,
            "phase": row.phase,
            "ordinal": self.controls if row.phase == "control" else 0,
            "first_seq": row.first_seq,
            "last_seq": row.first_seq + count_events(row.events, row.phase) - 1,
            "happened_at": row.happened_at,
            "stats": None if row.stats is None else orjson.dumps(row.stats).decode(),
            "events": orjson.dumps(row.events).decode(),
        }

    def _candle(self, row: StepRecord) -> CandleStepped:
        if not self._indicators:
            plan = plan_indicators(INDICATORS)
            self._indicators = dict(compute_indicators(plan, self.series))
        index = row.candle_number
        values = {name: float(column[index]) for name, column in self._indicators.items()}
        return candle_payload(
            self.series.candle(index),
            {name: None if isnan(value) else value for name, value in values.items()},
            index=index,
            total=self.total,
        )


INDICATORS = ("rsi_14", "ema_20")

_MOVE = text("""
    UPDATE trading_sessions SET cursor = :cursor, current_candle = :cursor, last_seq = :last_seq,
        status = :status, open_position = nullif(CAST(:open_position AS jsonb), 'null')
    WHERE id = :id
""")

_INSERT = text("""
    INSERT INTO steps (session_id, candle_number, phase, ordinal, first_seq, last_seq, happened_at,
        stats, events)
    VALUES (:id, :candle_number, :phase, :ordinal, :first_seq, :last_seq, :happened_at,
        CAST(:stats AS jsonb), CAST(:events AS jsonb))
""")
