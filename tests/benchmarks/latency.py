"""How long an event is on its way, from its own timestamp to a client's socket."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedOK

from api.realtime.relay import WATCHERS_PER_SESSION
from tests.benchmarks.report import Row, Section
from tests.benchmarks.running_stack import BenchmarkFailed, RunningStack, running_stack
from tests.laboratory import Plan

SOCKET_COUNTS = (1, 20)
LONGEST_RUN_S = 600.0
PERCENTILES = (50, 95, 99)

# A frame and when it arrived, in seconds of the system's clock.
Arrival = tuple[float, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFigures:
    """The delays of all durable events at all sockets, in milliseconds."""

    sockets: int
    sessions: int
    interval: int
    delays_ms: Sequence[float]

    def percentile(self, share: int) -> float:
        return float(np.percentile(self.delays_ms, share))


async def run(candles: int = 400, chunked_candles: int = 20_000) -> list[LatencyFigures]:
    """Measure sessions that decide at every candle, and one that runs in chunks."""
    async with running_stack(("worker", "api")) as stack:
        data_set = await stack.add_candles(max(candles, chunked_candles))
        single = Plan(candles=candles, data_set_id=data_set)
        chunked = Plan(candles=chunked_candles, interval=500, data_set_id=data_set)
        await _measure(stack, Plan(candles=20, data_set_id=data_set), sockets=1)
        found = [await _measure(stack, single, sockets=count) for count in SOCKET_COUNTS]
        return [*found, await _measure(stack, chunked, sockets=1)]


async def _measure(stack: RunningStack, plan: Plan, *, sockets: int) -> LatencyFigures:
    """As many sessions as that many sockets need: a session takes ten in each process."""
    sessions = -(-sockets // WATCHERS_PER_SESSION)
    ids = [await stack.laboratory.add_session(plan) for _ in range(sessions)]
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(
                watch(stack.plan.api_url, stack.token, ids[number % sessions])
            )
            for number in range(sockets)
        ]
        async with asyncio.timeout(LONGEST_RUN_S), asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read(client)) for client in clients]
            for session_id in ids:
                await stack.laboratory.start(session_id)
    found = [delay for each in reading for delay in delays(each.result())]
    return LatencyFigures(
        sockets=sockets, sessions=sessions, interval=plan.interval, delays_ms=found
    )


def watch(api_url: str, token: str, session_id: UUID) -> connect:
    """A socket that counts, and so gets every event."""
    address = api_url.replace("http", "ws", 1)
    url = f"{address}/ws/backtest/{session_id}?token={token}&last_seq=0"
    return connect(url, compression=None, max_queue=None, proxy=None)


async def read(client: ClientConnection) -> list[Arrival]:
    """Everything up to the session's end; frames are looked into later."""
    arrivals: list[Arrival] = []
    try:
        while True:
            frame = await client.recv(decode=False)
            arrivals.append((time.time(), frame))
    except ConnectionClosedOK:
        return arrivals


def delays(arrivals: Sequence[Arrival]) -> list[float]:
    """Milliseconds from each durable event's timestamp to its arrival, none missing."""
    frames = [(at, orjson.loads(raw)) for at, raw in arrivals]
    durable = [(at, frame) for at, frame in frames if "seq" in frame]
    seqs = [frame["seq"] for _, frame in durable]
    if seqs != list(range(1, len(seqs) + 1)) or durable[-1][1]["event"] != "session_completed":
        raise BenchmarkFailed(f"a socket got {len(seqs)} events with gaps, or no end")
    return [
        (at - datetime.fromisoformat(frame["timestamp"]).timestamp()) * 1000
        for at, frame in durable
    ]


def report(found: Sequence[LatencyFigures]) -> Section:
    """Percentiles of each case."""
    return Section(
        name="event to socket",
        rows=[
            Row(
                case=_case(each),
                measured=" / ".join(f"{each.percentile(share):.1f}" for share in PERCENTILES)
                + " ms (p50 / p95 / p99)",
                beside=f"{len(each.delays_ms):,} events",
            )
            for each in found
        ],
        method=_METHOD,
    )


_METHOD = f"""\
From an event's `timestamp`, which the database gives it inside the transaction that stores it, to
its frame at a client's socket: commit, Redis, the API process and the way are in it. All run on
one machine with one clock. Sessions run at instant speed and are watched from their start; a
session takes {WATCHERS_PER_SESSION} sockets, so that 20 sockets watch two sessions at once. Every
socket is checked to get every event once. In chunks, hundreds of candles are stored in one
transaction and their events arrive together."""


def _case(figures: LatencyFigures) -> str:
    sockets = "1 socket" if figures.sockets == 1 else f"{figures.sockets} sockets"
    sessions = "1 session" if figures.sessions == 1 else f"{figures.sessions} sessions"
    pace = "a decision at every candle"
    if figures.interval > 1:
        pace = f"a decision every {figures.interval} candles"
    return f"{sockets} on {sessions}, {pace}"
