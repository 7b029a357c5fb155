"""The whole stack as its user runs it: `alphalab up` in a process of its own, and what kills it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from local.data_directory import DataDirectory
from local.processes import ChildProcess, Command, has_ended, log_tail, wait_for_end
from local.services import python_environment, python_module
from settings import ApiSettings, MigrationSettings, WorkerSettings

READY_SECONDS = 120.0
STOP_SECONDS = 90.0
_SETTING_KINDS = (ApiSettings, MigrationSettings, WorkerSettings)
# Whoever waits here asks more often than a person would be allowed to.
UNLIMITED = {"RATE_LIMIT_PER_MINUTE": "100000", "TEST_STARTS_PER_MINUTE": "1000"}


class StackFailed(RuntimeError):
    """The stack did not do what was asked of it; the message ends with its last output."""


def environment() -> dict[str, str]:
    """This process's environment without settings: what a newcomer's shell has."""
    settings = {name.upper() for kind in _SETTING_KINDS for name in kind.model_fields}
    ours = python_environment({"COLUMNS": "200"})
    return {name: value for name, value in ours.items() if name not in settings}


def is_alive(pid: int) -> bool:
    try:
        return not has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


class ChaosStack:
    """A stack that is started, hurt and started again; it ends when this process does."""

    def __init__(
        self, data_dir: Path, *, api_port: int, settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = DataDirectory(data_dir)
        self.api_url = f"http://127.0.0.1:{api_port}"
        self._api_port = api_port
        self._environment = environment() | UNLIMITED | dict(settings or {})
        self._log_file = data_dir.with_suffix(".up.log")
        self._process: ChildProcess | None = None

    async def start(self) -> float:
        """Start it and wait for `ready`; return how many seconds that took. Raises StackFailed."""
        began = time.monotonic()
        directory = str(self.directory.path)
        up = python_module("cli", "up", "--data-dir", directory, "--api-port", str(self._api_port))
        self._process = ChildProcess(
            Command(
                name="alphalab up",
                arguments=up,
                environment=self._environment,
                directory=self.directory.path.parent,
                log_file=self._log_file,
                stop_seconds=STOP_SECONDS,
                death_signal=signal.SIGTERM,
            )
        )
        while not self._is_ready():
            if not self._process.is_running or time.monotonic() - began > READY_SECONDS:
                raise StackFailed(f"`alphalab up` did not become ready.\n{self.log_tail()}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def stop(self) -> None:
        """Stop it in order, as `alphalab down` does."""
        if self._process is not None:
            await asyncio.to_thread(self._process.stop)
            self._process = None

    def pid(self, name: str) -> int:
        """The process of a child, which must be running."""
        return self.directory.record.children[name].pid

    async def kill(self, name: str) -> float:
        """SIGKILL one child, once it is there: the last kill may have been a moment ago.

        Returns when that was, in seconds since the epoch.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not is_alive(self.pid(name)):
            if time.monotonic() > deadline:
                raise StackFailed(f"{name} does not come back.\n{self.log_tail()}")
            await asyncio.sleep(0.02)
        os.kill(self.pid(name), signal.SIGKILL)
        return time.time()

    def freeze(self, name: str) -> None:
        """SIGSTOP one child: what it was about to do waits, for ever when it is killed then."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGCONT)

    async def lose_temporal_data(self) -> float:
        """SIGKILL Temporal and delete its database before it is started again."""
        self.freeze("temporal")
        for file in (self.directory.path / "temporal").glob("temporal.db*"):
            file.unlink()
        return await self.kill("temporal")

    async def kill_everything(self) -> None:
        """SIGKILL the supervisor and whatever descends from it, and wait until all is gone."""
        if self._process is None:
            raise StackFailed("There is no stack to kill.")
        supervisor = psutil.Process(self._process.pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if not await asyncio.to_thread(wait_for_end, family, seconds=20.0):
            raise StackFailed("Some of the stack outlived SIGKILL.")
        self._process.kill()
        self._process = None

    async def alphalab(self, *arguments: str) -> str:
        """Run a command on this stack and return what it printed. Raises StackFailed."""
        directory = self.directory.path
        process = await asyncio.create_subprocess_exec(
            *python_module("cli", *arguments, "--data-dir", str(directory)),
            env=environment(),
            cwd=directory.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            raise StackFailed(f"`alphalab {arguments[0]}` failed:\n{errors.decode()}")
        return output.decode().strip()

    def setting(self, name: str) -> str:
        return self.directory.record.settings[name]

    def log_tail(self) -> str:
        """The last lines of every log, for a message about what went wrong."""
        logs = [self._log_file, *sorted(self.directory.logs.glob("*.log"))]
        return "\n".join(f"{log.name}:\n{log_tail(log)}" for log in logs)

    def _is_ready(self) -> bool:
        return self.directory.is_running and self.directory.record.state == "ready"
