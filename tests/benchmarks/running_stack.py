"""A stack of a benchmark's own: the embedded servers and the real processes, as children."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

import httpx
import psutil
from redis.asyncio import Redis
from temporalio.client import Client

from db.engine import Database
from db.repositories.users import SignInRepository
from local.data_directory import DataDirectory
from local.issuer import Issuer, issuer_of
from local.processes import ServerNotStarted, free_port, listening_socket, log_tail
from local.services import PythonService, Service
from local.simulators.exchange import simulated_candles
from local.stack import Ports, StackPlan
from migrations.namespace import upgrade_namespace
from migrations.run import upgrade
from settings import TemporalSettings
from tests.laboratory import FIRST_CANDLE, WARM_UP, Laboratory, Plan
from trading.candles import CandleSeries, Timeframe
from workflows.runtime import Temporal, connect

NOOP_QUEUE = "noop"
SEED = 7

Process = Literal["worker", "no-op worker", "api", "crowded api", "bare api"]
_HEALTH = {"crowded api": "api/health", "bare api": "docs"}
CROWDED = {"RATE_LIMIT_PER_MINUTE": "10000000"}


class BenchmarkFailed(RuntimeError):
    """A session did not come to its result, or a process did not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """A running stack, and the laboratory that puts sessions into it."""

    plan: StackPlan
    directory: DataDirectory
    laboratory: Laboratory
    client: Client
    services: Mapping[str, Service]
    listeners: Mapping[Process, socket.socket]
    subject: str

    @property
    def token(self) -> str:
        """What the laboratory's user shows to the API."""
        return Issuer.from_file(self.directory.issuer_key_file).token(
            issuer=issuer_of(self.plan.settings["CLERK_JWKS_URL"]),
            subject=self.subject,
            issued_at=datetime.now(UTC),
            lifetime=timedelta(hours=2),
        )

    def address(self, name: Process) -> str:
        """Where a server that is not the plan's own listens."""
        return _address(self.listeners[name])

    async def add_candles(self, count: int) -> UUID:
        """A data set of that many simulated candles, and those that come before a test."""
        return await self.laboratory.add_candles(candles(WARM_UP + count))

    async def run(self, plan: Plan, *, seconds: float = 120.0) -> UUID:
        """Run a session to its result; return its id. Raises `BenchmarkFailed`."""
        session_id = await self.laboratory.add_session(plan)
        await self.laboratory.start(session_id)
        await self.wait_for(session_id, seconds=seconds)
        return session_id

    async def wait_for(self, session_id: UUID, *, seconds: float) -> None:
        """Return once the session has its result. Raises `BenchmarkFailed`."""
        result = await self.laboratory.temporal.wait_result(session_id, timedelta(seconds=seconds))
        if result is None or result.status != "completed":
            log = log_tail(self.directory.logs / "worker.log")
            raise BenchmarkFailed(f"session {session_id}: {result}\n{log}")

    def processor_seconds(self) -> dict[str, float]:
        """Processor time used so far, by service that runs, with all that it has started."""
        running = {name: each for name, each in self.services.items() if each.process is not None}
        return {name: _spent(service) for name, service in running.items()}

    def resident_bytes(self, name: Process) -> int:
        return psutil.Process(_pid(self.services[name])).memory_info().rss


def candles(count: int) -> CandleSeries:
    """Simulated candles from where the laboratory's tests begin."""
    return simulated_candles(
        "BTC/USDT",
        Timeframe.HOUR_1,
        start_ms=int(FIRST_CANDLE.timestamp() * 1000),
        count=count,
        seed=SEED,
    )


@asynccontextmanager
async def running_stack(processes: Sequence[Process] = ("worker",)) -> AsyncIterator[RunningStack]:
    """A new stack with these processes of ours, in a directory that goes with it."""
    async with AsyncExitStack() as running:
        path = running.enter_context(tempfile.TemporaryDirectory(prefix="alphalab-"))
        directory = DataDirectory(Path(path) / "data")
        directory.create()
        directory.create_keys()
        plan = StackPlan(directory, Ports.choose({}, api=free_port()), {})
        running.callback(plan.close)
        for server in plan.servers:
            running.enter_context(server)
        client = await _prepared(plan)
        listeners = {name: running.enter_context(listening_socket()) for name in processes}
        ours = {name: _process(name, plan, directory, listeners[name]) for name in processes}
        for process in ours.values():
            running.enter_context(process)
        subject = f"user_{uuid4().hex}"
        laboratory = await _laboratory(running, plan, client, subject)
        await _wait_for_workers(client, processes)
        yield RunningStack(
            plan=plan,
            directory=directory,
            laboratory=laboratory,
            client=client,
            listeners=listeners,
            services={server.name: server for server in plan.servers} | ours,
            subject=subject,
        )


async def _prepared(plan: StackPlan) -> Client:
    address, namespace = plan.settings["TEMPORAL_ADDRESS"], _default("temporal_namespace")
    await asyncio.to_thread(upgrade, plan.settings["DATABASE_URL"])
    await upgrade_namespace(address, namespace)
    return await connect(address, namespace=namespace)


def _process(
    name: Process, plan: StackPlan, directory: DataDirectory, listener: socket.socket
) -> Service:
    match name:
        case "worker":
            return plan.worker
        case "api":
            return plan.api
        case "crowded api" | "bare api":
            return PythonService(
                name,
                f"tests.benchmarks.{name.replace(' ', '_')}",
                log_file=directory.logs / f"{name.split()[0]}.log",
                settings={**plan.settings, **CROWDED},
                listener=listener,
                health_url=f"{_address(listener)}/{_HEALTH[name]}",
            )
        case "no-op worker":
            return PythonService(
                name,
                "tests.benchmarks.noop_worker",
                log_file=directory.logs / "noop.log",
                settings={**plan.settings, "TEMPORAL_TASK_QUEUE": NOOP_QUEUE},
            )


async def _laboratory(
    running: AsyncExitStack, plan: StackPlan, client: Client, subject: str
) -> Laboratory:
    database = Database.connect(plan.settings["DATABASE_URL"])
    running.push_async_callback(database.dispose)
    async with database.as_system() as session:
        user, _ = await SignInRepository(session).get_or_create(subject)
    return Laboratory(
        database=database,
        redis=await running.enter_async_context(Redis.from_url(plan.settings["REDIS_URL"])),
        client=client,
        task_queue=_default("temporal_task_queue"),
        openrouter_url=plan.settings["OPENROUTER_BASE_URL"],
        http=await running.enter_async_context(httpx.AsyncClient()),
        fernet_key=plan.settings["ENCRYPTION_KEY"],
        user_id=user.id,
    )


def _address(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def _wait_for_workers(client: Client, processes: Sequence[Process]) -> None:
    queues = {"worker": _default("temporal_task_queue"), "no-op worker": NOOP_QUEUE}
    try:
        async with asyncio.timeout(60):
            for name in processes:
                while name in queues and not await Temporal(client, queues[name]).poller_count():
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise ServerNotStarted("a worker did not ask for work within a minute") from None


def _default(setting: str) -> str:
    return str(TemporalSettings.model_fields[setting].default)


def _spent(service: Service) -> float:
    """A server's own time, that of the children it has, and of those that have ended."""
    server = psutil.Process(_pid(service))
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(
        each.user + each.system + each.children_user + each.children_system for each in times
    )


def _pid(service: Service) -> int:
    if service.process is None:
        raise BenchmarkFailed(f"{service.name} is not running")
    return service.process.pid
