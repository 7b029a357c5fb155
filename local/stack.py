"""The embedded stack: every server and process of AlphaLab on one machine, from one command.

Whatever the settings already name is used instead of the embedded counterpart, which then does
not start. The local issuer, the generated keys and the simulators exist here and nowhere else.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
from dotenv import dotenv_values

from certificates.signing import SigningKey
from local.data_directory import DataDirectory, ProcessRecord, StackRecord
from local.issuer import JWKS_PATH
from local.processes import (
    Command,
    ServerNotStarted,
    end_leftover,
    free_port,
    listening_socket,
    log_tail,
)
from local.servers import PostgresServer, RedisServer, TemporalServer
from local.services import PythonService, Service, python_environment, python_module
from local.simulators.app import EXCHANGE_PATH, HEALTH_PATH, OPENROUTER_PATH
from local.supervision import StopAsked, Supervisor
from settings import (
    OPENROUTER_URL,
    ApiSettings,
    MigrationSettings,
    StackSettings,
    WorkerSettings,
    load,
)

API_PORT = 5000
API_STOP_SECONDS = 10.0
WORKER_STOP_SECONDS = 30.0  # more than the worker gives its running activities
MIGRATION_STOP_SECONDS = 5.0
DEFAULT_NAMESPACE: str = MigrationSettings.model_fields["temporal_namespace"].default
BACKGROUND_START_SECONDS = 120.0
# What commands need of the running stack. Keys stay where they are: in their files, or with
# whoever gave them.
RECORDED_SETTINGS = (
    "CLERK_AUTHORIZED_PARTIES",
    "CLERK_ISSUER",
    "CLERK_JWKS_URL",
    "DATABASE_OWNER_URL",
    "DATABASE_SYSTEM_URL",
    "DATABASE_URL",
    "EXCHANGE_BASE_URL",
    "MARKET_DATA_SOURCE",
    "OPENROUTER_BASE_URL",
    "PUBLIC_URL",
    "REDIS_URL",
    "STORAGE_BUCKET",
    "TEMPORAL_ADDRESS",
    "TEMPORAL_NAMESPACE",
    "TEMPORAL_TASK_QUEUE",
)


def given_settings() -> dict[str, str]:
    """The settings that the environment, or else `.env`, gives."""
    kinds = (ApiSettings, WorkerSettings, MigrationSettings, StackSettings)
    names = {name.upper() for kind in kinds for name in kind.model_fields}
    found = {**dotenv_values(".env"), **os.environ}
    return {name: value for name, value in found.items() if name in names and value}


def command_settings(directory: DataDirectory) -> dict[str, str]:
    """The settings that a command works with: given ones, else those of the running stack."""
    record = directory.record if directory.is_running else StackRecord()
    return {**record.settings, **given_settings()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of one start; our own servers inherit theirs, already open."""

    api: socket.socket
    temporal: int
    temporal_ui: int
    simulators: socket.socket

    @classmethod
    def choose(cls, remembered: Mapping[str, int], *, api: int | None) -> "Ports":
        """The port asked for, or the API's own; and those of the last start that are free."""
        return cls(
            api=_asked_port(api) if api else listening_socket(API_PORT, remembered.get("api")),
            temporal=free_port(remembered.get("temporal")),
            temporal_ui=free_port(remembered.get("temporal_ui")),
            simulators=listening_socket(remembered.get("simulators")),
        )

    def to_record(self) -> dict[str, int]:
        return {
            "api": _port(self.api),
            "temporal": self.temporal,
            "temporal_ui": self.temporal_ui,
            "simulators": _port(self.simulators),
        }

    def close(self) -> None:
        self.api.close()
        self.simulators.close()


class StackPlan:
    """What to start, in which order and with which settings: what is given is not started."""

    def __init__(self, directory: DataDirectory, ports: Ports, given: Mapping[str, str]) -> None:
        self._directory = directory
        self._ports = ports
        self.servers: list[Service] = []
        self.settings = dict(given)
        self.addresses: dict[str, str] = {}
        self._embed_postgres()
        self._embed_redis()
        self._embed_temporal()
        self._embed_simulators()
        self._complete_settings()
        self.worker = self._python_service("worker", "worker", stop_seconds=WORKER_STOP_SECONDS)
        self.api = self._python_service(
            "api",
            "server",
            listener=ports.api,
            health_url=f"{self.api_url}/api/health",
            stop_seconds=API_STOP_SECONDS,
        )

    def close(self) -> None:
        """Give the ports back that our own servers listened on."""
        self._ports.close()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{_port(self._ports.api)}"

    @property
    def _simulators_url(self) -> str:
        return f"http://127.0.0.1:{_port(self._ports.simulators)}"

    def _embed_postgres(self) -> None:
        if "DATABASE_URL" not in self.settings:
            server = PostgresServer(
                self._directory.path / "postgres", log_file=self._log("postgres")
            )
            self.settings["DATABASE_URL"] = server.url
            self.servers.append(server)

    def _embed_redis(self) -> None:
        if "REDIS_URL" not in self.settings:
            server = RedisServer(self._directory.path / "redis", log_file=self._log("redis"))
            self.settings["REDIS_URL"] = server.url
            self.servers.append(server)

    def _embed_temporal(self) -> None:
        if "TEMPORAL_ADDRESS" not in self.settings:
            server = TemporalServer(
                self._directory.path / "temporal",
                port=self._ports.temporal,
                ui_port=self._ports.temporal_ui,
                log_file=self._log("temporal"),
                namespace=self.settings.get("TEMPORAL_NAMESPACE", DEFAULT_NAMESPACE),
            )
            self.settings["TEMPORAL_ADDRESS"] = server.address
            self.addresses["Temporal Web UI"] = server.ui_url
            self.servers.append(server)

    def _embed_simulators(self) -> None:
        simulated = {}
        if not {"OPENROUTER_BASE_URL", "OPENROUTER_API_KEY"} & self.settings.keys():
            simulated["OPENROUTER_BASE_URL"] = f"{self._simulators_url}{OPENROUTER_PATH}"
        if "CLERK_JWKS_URL" not in self.settings:
            simulated["CLERK_JWKS_URL"] = f"{self._simulators_url}{JWKS_PATH}"
        if self.settings.get("MARKET_DATA_SOURCE", "simulated") == "simulated":
            simulated["MARKET_DATA_SOURCE"] = "simulated"
            simulated["EXCHANGE_BASE_URL"] = f"{self._simulators_url}{EXCHANGE_PATH}"
        simulated = {name: each for name, each in simulated.items() if name not in self.settings}
        if simulated:
            self.settings.update(simulated)
            has_exchange = "EXCHANGE_BASE_URL" in simulated
            self.servers.append(self._simulators(self._exchange_clock() if has_exchange else ()))

    def _simulators(self, clock: Sequence[str]) -> Service:
        key = str(self._directory.issuer_key_file)
        return self._python_service(
            "simulators",
            "local.simulators.app",
            arguments=("--issuer-key", key, *clock),
            listener=self._ports.simulators,
            health_url=f"{self._simulators_url}{HEALTH_PATH}",
        )

    def _exchange_clock(self) -> Sequence[str]:
        """The same for every start of the simulators, so that one that died goes on in time."""
        given = {
            name: self.settings[name.upper()]
            for name in StackSettings.model_fields
            if name.upper() in self.settings
        }
        return self._directory.exchange_clock(
            speed=load(StackSettings, **given).simulated_exchange_speed, wall_ms=time.time() * 1000
        ).arguments

    def _complete_certificate_keys(self) -> None:
        """The signing key that is given, or this directory's; and the public key of it."""
        own = {"CERTIFICATE_SIGNING_KEY": self._directory.certificate_signing_key}
        self.settings = {**own, **self.settings}
        if "CERTIFICATE_PUBLIC_KEYS" not in self.settings:
            key = SigningKey.from_seed(self.settings["CERTIFICATE_SIGNING_KEY"])
            self.settings["CERTIFICATE_PUBLIC_KEYS"] = key.public_key.base64

    def _complete_settings(self) -> None:
        self._complete_certificate_keys()
        defaults = {
            "ENCRYPTION_KEY": self._directory.encryption_key,
            "HOST": "127.0.0.1",
            "LINK_SIGNING_KEY": self._directory.link_signing_key,
            "LOG_FORMAT": "console",
            "OPENROUTER_BASE_URL": OPENROUTER_URL,
            "PUBLIC_URL": self.api_url,
            "STORAGE_BUCKET": str(self._directory.storage),
        }
        fixed = {"ENVIRONMENT": "development", "PORT": str(_port(self._ports.api))}
        self.settings = {**defaults, **self.settings, **fixed}
        self.addresses = {
            "API": self.api_url,
            "API documentation": f"{self.api_url}/api/docs",
            **self.addresses,
            "Temporal": self.settings["TEMPORAL_ADDRESS"],
            "Models": self.settings["OPENROUTER_BASE_URL"],
            "Token issuer": self.settings["CLERK_JWKS_URL"],
            "Data and logs": str(self._directory.path),
        }

    def _python_service(
        self,
        name: str,
        module: str,
        *,
        arguments: Sequence[str] = (),
        listener: socket.socket | None = None,
        health_url: str | None = None,
        stop_seconds: float = 5.0,
    ) -> PythonService:
        return PythonService(
            name,
            module,
            arguments=arguments,
            log_file=self._log(name),
            settings=self.settings,
            listener=listener,
            health_url=health_url,
            stop_seconds=stop_seconds,
        )

    def _log(self, name: str) -> Path:
        return self._directory.logs / f"{name}.log"


class Stack:
    """One run of the stack of a data directory."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        say: Callable[[str], None],
        announce: Callable[[StackPlan], None],
    ) -> None:
        self._directory = directory
        self._say = say
        self._announce = announce
        self._record = StackRecord()

    def run(self, *, api_port: int | None = None) -> None:
        """Start everything, keep it running, and stop it in order when a signal asks for it.

        Raises `StackRunning` and `ServerNotStarted`.
        """
        self._directory.create()
        with self._directory.locked():
            plan = self._prepare(api_port)
            supervisor = Supervisor(say=self._say, on_change=self._note_children)
            with supervisor.stopping_on_signals():
                try:
                    self._start(plan, supervisor)
                    supervisor.watch()
                except StopAsked:
                    self._say("asked to stop")
                finally:
                    self._update(state="stopping")
                    supervisor.stop()
                    plan.close()
                    self._directory.write(StackRecord(ports=self._record.ports))

    def _prepare(self, api_port: int | None) -> StackPlan:
        former = self._directory.record
        # A stack that was killed left a record that says it is ready.
        self._directory.write(former.model_copy(update={"state": "starting"}))
        end_children(former)
        self._directory.create_keys()
        given = given_settings()
        asked_port = api_port or int(given.get("PORT", 0)) or None
        ports = Ports.choose(former.ports, api=asked_port)
        plan = StackPlan(self._directory, ports, given)
        self._update(
            state="starting",
            ports=ports.to_record(),
            settings={k: v for k, v in plan.settings.items() if k in RECORDED_SETTINGS},
            addresses=plan.addresses,
            supervisor=ProcessRecord.of(os.getpid()),
        )
        return plan

    def _start(self, plan: StackPlan, supervisor: Supervisor) -> None:
        supervisor.start(plan.servers)
        supervisor.run_to_end(self._migration(plan))
        supervisor.start([plan.worker, plan.api])
        supervisor.wait_until(lambda: is_working(plan.api_url), plan.api)
        self._update(state="ready")
        self._announce(plan)

    def _migration(self, plan: StackPlan) -> Command:
        return Command(
            name="alphalab migrate",
            arguments=python_module("cli", "migrate", "--data-dir", str(self._directory.path)),
            environment=python_environment(plan.settings),
            log_file=self._directory.logs / "migrate.log",
            stop_seconds=MIGRATION_STOP_SECONDS,
        )

    def _note_children(self, services: Sequence[Service]) -> None:
        processes = {service.name: service.process for service in services}
        found = {
            name: ProcessRecord.of(process.pid) for name, process in processes.items() if process
        }
        self._update(children={name: record for name, record in found.items() if record})

    def _update(self, **changes: object) -> None:
        self._record = self._record.model_copy(update=changes)
        self._directory.write(self._record)


def end_children(record: StackRecord) -> None:
    """End what a killed stack left behind, where the kernel has not done so already."""
    for name, child in record.children.items():
        if name != PostgresServer.name:  # it ends its own former server, with the signal for it
            end_leftover(child.pid, child.created)


def is_working(api_url: str) -> bool:
    """Whether the API reaches all that it needs and a worker asks for work."""
    try:
        answer = _http().get(f"{api_url}/api/ready")
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK and bool(_worker_count(answer))


@cache
def _http() -> httpx.Client:
    """Made once: each client reads the certificates of all authorities, even for plain HTTP."""
    unkept = httpx.Limits(max_keepalive_connections=0)  # whom it asks may have been started anew
    return httpx.Client(timeout=5.0, trust_env=False, limits=unkept)


def _worker_count(answer: httpx.Response) -> int:
    worker = answer.json().get("worker")
    return worker if isinstance(worker, int) else 0


def start_in_background(
    directory: DataDirectory, settings: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the stack of a directory and return, once it is ready, the process that runs it.

    It outlives this process, until `alphalab down`. `settings` go before those of the
    environment. Raises `ServerNotStarted`.
    """
    directory.create()
    log_file = directory.logs / "up.log"
    log_file.parent.mkdir(mode=0o700, exist_ok=True)
    with log_file.open("wb") as log:
        supervisor = subprocess.Popen(
            python_module("cli", "up", "--data-dir", str(directory.path)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=python_environment(settings or {}),
            start_new_session=True,
        )
    try:
        _wait_until_ready(directory, supervisor, log_file)
    except BaseException:  # Ctrl-C as well: nobody asked for half a stack that goes on
        supervisor.terminate()
        supervisor.wait()
        raise
    return supervisor


def _wait_until_ready(
    directory: DataDirectory, supervisor: subprocess.Popen[bytes], log_file: Path
) -> None:
    deadline = time.monotonic() + BACKGROUND_START_SECONDS
    while not _is_ready(directory.record, supervisor.pid) or not directory.is_running:
        if supervisor.poll() is not None or time.monotonic() > deadline:
            raise ServerNotStarted(f"The stack did not start.\n{log_tail(log_file)}")
        time.sleep(0.1)


def _is_ready(record: StackRecord, supervisor_pid: int) -> bool:
    is_its_own = record.supervisor is not None and record.supervisor.pid == supervisor_pid
    return is_its_own and record.state == "ready"


def _asked_port(port: int) -> socket.socket:
    listener = listening_socket(port)
    if _port(listener) != port:
        listener.close()
        raise ServerNotStarted(f"Port {port} is taken: name another one, or none, for the API.")
    return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
