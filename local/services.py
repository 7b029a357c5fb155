"""What the stack is made of: services that can be started, waited for, watched and stopped."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from typing_extensions import override

from local.processes import ChildProcess, Command, ServerNotStarted, private_directory

PROJECT_ROOT = Path(__file__).parents[1]
START_SECONDS = 30.0


class Service:
    """One child process; a subclass says what it runs and when it is ready."""

    name = ""

    def __init__(self, data_dir: Path, *, log_file: Path | None = None) -> None:
        self._data_dir = data_dir.absolute()
        self._log_file = log_file or self._data_dir.with_suffix(".log")
        self._process: ChildProcess | None = None

    @property
    def process(self) -> ChildProcess | None:
        return self._process

    def start(self) -> None:
        """Start it and return once it answers. Raises `ServerNotStarted`."""
        process = self.launch()
        try:
            process.wait_until(self.is_ready, seconds=START_SECONDS)
        except ServerNotStarted:
            self.stop()
            raise
        self.on_ready()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def launch(self) -> ChildProcess:
        """Start it without waiting for it to answer."""
        self._prepare()
        self._process = ChildProcess(self._command())
        return self._process

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def is_ready(self) -> bool:
        """Whether it does its work now; asked again until it does."""
        raise NotImplementedError

    def on_ready(self) -> None:
        """What remains to be done once it answers."""

    def on_return(self) -> bool:
        """What remains to be done after it died and was started again; asked until it is done."""
        return True

    def _prepare(self) -> None:
        private_directory(self._data_dir)

    def _command(self) -> Command:
        raise NotImplementedError


class PythonService(Service):
    """A module of this project, run with its settings in the environment.

    With a `health_url` it is ready when that answers 200, without one as soon as it runs. A
    `listener` is passed on as `--fd`; it stays open here, so that a child that is started again
    takes up the connections that came meanwhile.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        arguments: Sequence[str] = (),
        log_file: Path,
        settings: Mapping[str, str],
        listener: socket.socket | None = None,
        health_url: str | None = None,
        stop_seconds: float = 10.0,
    ) -> None:
        super().__init__(log_file.parent, log_file=log_file)
        self.name = name
        self._module = module
        self._arguments = tuple(arguments)
        self._settings = dict(settings)
        self._listener = listener
        self._health_url = health_url
        self._stop_seconds = stop_seconds

    @override
    def is_ready(self) -> bool:
        return self._health_url is None or answers(self._health_url)

    @override
    def _command(self) -> Command:
        inherited = () if self._listener is None else (self._listener.fileno(),)
        listening = [text for number in inherited for text in ("--fd", str(number))]
        return Command(
            name=self.name,
            arguments=python_module(self._module, *self._arguments, *listening),
            inherited_files=inherited,
            environment=python_environment(self._settings),
            log_file=self._log_file,
            stop_seconds=self._stop_seconds,
        )


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project from any directory."""
    # -P: a `server.py` in the user's working directory is not ours.
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the settings and the way to the project's modules."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(PROJECT_ROOT), *([inherited] if inherited else [])])
    return {**os.environ, **settings, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def answers(url: str, *, seconds: float = 2.0) -> bool:
    """Whether a GET of a local address answers 200."""
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=seconds)
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
