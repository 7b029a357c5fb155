"""Child processes that are started, waited for and ended together with this one."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psutil

CHILD_SCRIPT = Path(__file__).with_name("child.py")
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 15
CREATION_TOLERANCE_SECONDS = 1.0
LISTEN_BACKLOG = 2048  # uvicorn's
LOG_LIMIT_BYTES = 20 * 1024 * 1024


class ServerNotStarted(RuntimeError):
    """A child process ended, or did not answer in time; the message ends with its last output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how to end it.

    `death_signal` is what the kernel sends the child when this process ends without stopping it
    (Linux). It must be started from a thread that lives as long as the child should.
    """

    name: str
    arguments: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] | None = None
    directory: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    inherited_files: tuple[int, ...] = field(default=())


class ChildProcess:
    """One running child with its output in a log file."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._started = time.monotonic()
        launcher = [sys.executable, "-I", "-S", str(CHILD_SCRIPT)]
        supervision = [str(os.getpid()), str(int(command.death_signal))]
        with _opened_log(command.log_file) as log:
            self._process = subprocess.Popen(
                [*launcher, *supervision, *command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=command.directory,
                env=None if command.environment is None else dict(command.environment),
                pass_fds=command.inherited_files,
                process_group=0,  # Ctrl-C reaches the parent only, which stops all in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def seconds_running(self) -> float:
        return time.monotonic() - self._started

    def wait_until(self, is_ready: Callable[[], bool], *, seconds: float) -> None:
        """Return once `is_ready` says so. Raises `ServerNotStarted`."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running:
                raise ServerNotStarted(self.failure(f"ended with exit code {self.exit_code}"))
            if time.monotonic() > deadline:
                raise ServerNotStarted(self.failure(f"did not answer within {seconds:g} s"))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask the child to end and wait; kill it, and what it started, when it does not."""
        if self.is_running:
            self._process.send_signal(self._command.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._command.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """End the child and its process group at once."""
        self.send_kill()
        self._process.wait()

    def send_kill(self) -> None:
        """As `kill`, without waiting: for signal handlers."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def failure(self, what: str) -> str:
        """What happened to it, with the last lines of its log."""
        return f"{self._command.name} {what}.\n{log_tail(self._command.log_file)}"


def _opened_log(path: Path) -> BinaryIO:
    private_directory(path.parent)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")


def private_directory(path: Path) -> Path:
    """Create a directory that only this user may enter, unless it is there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def log_tail(path: Path) -> str:
    """The last lines of a log file, or nothing when there is none."""
    if not path.exists():
        return ""
    lines = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)


def free_port(*preferred: int | None) -> int:
    """A TCP port of the loopback interface that is free: the first preferred one, if any."""
    for port in (*preferred, 0):
        with socket.socket() as candidate, suppress(OSError):
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(("127.0.0.1", 0 if port is None else port))
            return int(candidate.getsockname()[1])
    raise ServerNotStarted("No free TCP port on the loopback interface.")


def listening_socket(*preferred: int | None) -> socket.socket:
    """A socket that listens on the first preferred loopback port that is free, or on any.

    Whoever holds it holds the port: a child that inherits it can neither find the port taken nor
    be mistaken for somebody else who took it.
    """
    for port in (*preferred, 0):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port or 0), backlog=LISTEN_BACKLOG)
    raise ServerNotStarted("No free TCP port on the loopback interface.")


def accepts_connections(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_leftover(pid: int, created: float, *, seconds: float = 5.0) -> bool:
    """End a child that an earlier parent left behind; True when there was one.

    A process is taken for that child only when it has the same number and the same time of
    creation: numbers are reused.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > CREATION_TOLERANCE_SECONDS or has_ended(process):
            return False
        process.terminate()
        if not wait_for_end([process], seconds=seconds):
            process.kill()
            wait_for_end([process], seconds=seconds)
        return True
    return False


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; a zombie does not, even when nobody ever collects it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_end(processes: Sequence[psutil.Process], *, seconds: float) -> bool:
    """Wait until all of them have ended; False when one still runs by then."""
    deadline = time.monotonic() + seconds
    while not all(has_ended(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def lock_within(descriptor: int, *, seconds: float) -> bool:
    """Lock a file for as long as a copy of its descriptor is open; False when others hold it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
