"""Many clients at once: reads beside the barest API, and sockets on sessions that run."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle, islice

import aiohttp
import numpy as np

from tests.benchmarks.crowded_api import SOCKETS_PER_SESSION
from tests.benchmarks.latency import LONGEST_RUN_S, delays, read, watch
from tests.benchmarks.report import Row, Section
from tests.benchmarks.running_stack import BenchmarkFailed, RunningStack, running_stack
from tests.laboratory import Plan

CLIENTS = 200
SECONDS = 15.0
SESSIONS = 20
SOCKETS = SESSIONS * SOCKETS_PER_SESSION
CANDLES = 30
# A front end that polls: what a client waits between two reads while sockets are watched.
POLLING_PAUSE_S = 1.0
PERCENTILES = (50, 95, 99)
READS = (
    "/api/users/me",
    "/api/agents",
    "/api/results",
    "/api/arena/backtest/active",
    "/api/dashboard/stats",
    "/api/notifications/unread-count",
    "/api/arena/backtest/{session}",
    "/api/results/{result}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What clients that ask again as soon as they are answered were served."""

    milliseconds: Sequence[float]
    seconds: float

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: int) -> float:
        return float(np.percentile(self.milliseconds, share))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """Reads of ours and of the bare API; milliseconds of events, alone and beside polling."""

    clients: int
    ours: Reading
    bare: Reading
    sockets: int
    sessions: int
    alone_ms: Sequence[float]
    beside_reads_ms: Sequence[float]
    polled: Reading


async def run(
    clients: int = CLIENTS,
    seconds: float = SECONDS,
    sessions: int = SESSIONS,
    sockets: int = SOCKETS,
    candles: int = CANDLES,
) -> LoadFigures:
    """Measure reads first, then sockets, then both at once."""
    async with running_stack(("worker", "crowded api", "bare api")) as stack:
        data_set = await stack.add_candles(candles)
        plan = Plan(candles=candles, data_set_id=data_set, speed="slow")
        paths = await _paths(stack, Plan(candles=candles, data_set_id=data_set))
        ours, bare = stack.address("crowded api"), stack.address("bare api")
        token = {"Authorization": f"Bearer {stack.token}"}
        await _read(ours, paths, clients, 1.0, headers=token)
        await _read(bare, ("/user",), clients, 1.0)
        reading = await _read(ours, paths, clients, seconds, headers=token)
        beside = await _read(bare, ("/user",), clients, seconds)
        alone = await _watch_all(stack, plan, sessions, sockets, asyncio.Event())
        opened = asyncio.Event()
        watching = asyncio.create_task(_watch_all(stack, plan, sessions, sockets, opened))
        await opened.wait()
        polled = await _read(
            ours, paths, clients, float(candles), headers=token, pause=POLLING_PAUSE_S
        )
        return LoadFigures(
            clients=clients,
            ours=reading,
            bare=beside,
            sockets=sockets,
            sessions=sessions,
            alone_ms=alone,
            beside_reads_ms=await watching,
            polled=polled,
        )


async def _paths(stack: RunningStack, plan: Plan) -> Sequence[str]:
    """The reads, with a session and a result that exist."""
    session_id = await stack.run(plan)
    result = await stack.laboratory.result(session_id)
    return [path.format(session=session_id, result=result["id"]) for path in READS]


async def _read(
    address: str,
    paths: Sequence[str],
    clients: int,
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    pause: float = 0.0,
) -> Reading:
    """Have so many clients read in turn for so long. Raises where one is not answered 200."""
    taken: list[float] = []
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(address, connector=connector, headers=headers) as http:
        begun = time.perf_counter()

        async def client(number: int) -> None:
            await asyncio.sleep(pause * number / clients)
            for path in islice(cycle(paths), number, None):
                asked = time.perf_counter()
                if asked - begun > seconds:
                    return
                async with http.get(path) as answer:
                    await answer.read()
                if answer.status != 200:
                    raise BenchmarkFailed(f"{path} was answered {answer.status}")
                taken.append((time.perf_counter() - asked) * 1000)
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(client(number))
        return Reading(milliseconds=taken, seconds=time.perf_counter() - begun)


async def _watch_all(
    stack: RunningStack, plan: Plan, sessions: int, sockets: int, opened: asyncio.Event
) -> Sequence[float]:
    """Run so many sessions under the eyes of so many sockets, which must miss nothing.

    `opened` is set when all sockets are open, and the sessions begin.
    """
    ids = [await stack.laboratory.add_session(plan) for _ in range(sessions)]
    async with AsyncExitStack() as sockets_open:
        watching = [
            await sockets_open.enter_async_context(
                watch(stack.address("crowded api"), stack.token, session_id)
            )
            for session_id in islice(cycle(ids), sockets)
        ]
        async with asyncio.timeout(LONGEST_RUN_S), asyncio.TaskGroup() as tasks:
            arrivals = [tasks.create_task(read(each)) for each in watching]
            opened.set()
            for session_id in ids:
                await stack.laboratory.start(session_id)
    return [delay for each in arrivals for delay in delays(each.result())]


def report(figures: LoadFigures) -> Section:
    """Requests a second, latencies, and the way of events."""
    ours, bare = figures.ours, figures.bare
    return Section(
        name="load",
        rows=[
            Row(
                case=f"{figures.clients} clients reading, requests a second",
                measured=f"{ours.per_second:,.0f}",
                beside=f"bare endpoint, one query: {bare.per_second:,.0f}",
                ratio=f"{bare.per_second / ours.per_second:.2f}",
            ),
            Row(
                case=f"{figures.clients} clients reading, latency",
                measured=_percentiles(ours.milliseconds),
                beside=_percentiles(bare.milliseconds),
                ratio=f"{ours.percentile(99) / bare.percentile(99):.2f}",
            ),
            Row(
                case=f"{figures.sockets} sockets on {figures.sessions} sessions, event to socket",
                measured=_percentiles(figures.alone_ms),
                beside=f"{len(figures.alone_ms):,} events, none lost",
            ),
            Row(
                case=f"the same beside {figures.clients} clients that poll every second",
                measured=_percentiles(figures.beside_reads_ms),
                beside=f"{len(figures.beside_reads_ms):,} events, none lost",
            ),
            Row(
                case="these clients' reads",
                measured=_percentiles(figures.polled.milliseconds),
                beside=f"{figures.polled.per_second:,.0f} requests a second",
            ),
        ],
        method=_METHOD,
    )


def _percentiles(milliseconds: Sequence[float]) -> str:
    found = (f"{float(np.percentile(milliseconds, share)):.1f}" for share in PERCENTILES)
    return f"{' / '.join(found)} ms (p50 / p95 / p99)"


_METHOD = f"""\
One API process, one worker, all servers and all clients share the machine. Clients ask again as
soon as they are answered, {len(READS)} endpoints in turn with a token each; beside it FastAPI with
one endpoint and one query, the same server and pool, asked by the same clients. All clients are
one Python process, which may be what limits the bare endpoint. Sessions run at slow speed, a
candle and a decision a second, and polling lasts as long as their candles; every socket is checked
to get every event once. The API is given room for {SOCKETS_PER_SESSION} sockets on a session."""
