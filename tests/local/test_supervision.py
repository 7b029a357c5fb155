"""Children that keep dying are started again ever later; those that ran well, soon."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from typing_extensions import override

from local.processes import ChildProcess, Command, ServerNotStarted, end_leftover, free_port
from local.services import PythonService, Service
from local.supervision import (
    LONGEST_DELAY_SECONDS,
    RAN_WELL_SECONDS,
    Backoff,
    StopAsked,
    Supervisor,
)


def test_the_delay_doubles_up_to_its_limit():
    backoff = Backoff()

    delays = [backoff.next_delay(seconds_running=1.0) for _ in range(12)]

    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_SECONDS


def test_having_run_well_begins_anew():
    backoff = Backoff()
    for _ in range(8):
        backoff.next_delay(seconds_running=1.0)

    assert backoff.next_delay(seconds_running=RAN_WELL_SECONDS) == 0.1


def _module(tmp_path: Path, source: str) -> PythonService:
    (tmp_path / "child_module.py").write_text(source)
    return PythonService(
        "child",
        "child_module",
        log_file=tmp_path / "child.log",
        settings={},
        stop_seconds=0.5,
    )


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


class Watching:
    """A supervisor with what it said, stopped after a while by a signal to this process."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.supervisor = Supervisor(say=self.notes.append, on_change=self._ignore)

    def watch_for(self, seconds: float, services: Sequence[Service]) -> None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
        with self.supervisor.stopping_on_signals():
            self.supervisor.start(services)
            timer.start()
            with pytest.raises(StopAsked):
                self.supervisor.watch()
            self.supervisor.stop()
        timer.join()

    def _ignore(self, services: Sequence[Service]) -> None:
        pass


def test_a_child_that_ends_at_once_is_started_again_and_again(on_path: Path):
    child = _module(
        on_path, f"open({str(on_path / 'starts')!r}, 'a').write('.')\nraise SystemExit(3)"
    )
    watching = Watching()

    watching.watch_for(2.0, [child])

    assert len((on_path / "starts").read_text()) >= 3
    assert any("ended with exit code 3" in note for note in watching.notes)


class _Returning(PythonService):
    """Is not done with its return at the first look."""

    returns = 0

    @override
    def on_return(self) -> bool:
        self.returns += 1
        return self.returns > 1


def test_a_child_that_was_started_again_is_asked_until_it_is_back(on_path: Path):
    (on_path / "returning_module.py").write_text(
        f"import pathlib, time\nfile = pathlib.Path({str(on_path / 'ran')!r})\n"
        "if not file.exists():\n    file.touch()\n    raise SystemExit(3)\ntime.sleep(60)"
    )
    child = _Returning(
        "child",
        "returning_module",
        log_file=on_path / "child.log",
        settings={},
        stop_seconds=0.5,
    )

    Watching().watch_for(2.0, [child])

    assert child.returns == 2


def test_a_child_that_ignores_the_request_to_stop_is_killed(on_path: Path):
    child = _module(
        on_path,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\ntime.sleep(60)",
    )
    child.launch()
    deadline = time.monotonic() + 10
    while "deaf" not in (on_path / "child.log").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    process = child.process

    child.stop()

    assert process is not None
    assert process.exit_code == -signal.SIGKILL


def _sleeper(tmp_path: Path) -> ChildProcess:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    return ChildProcess(Command(name="sleeper", arguments=command, log_file=tmp_path / "log"))


def test_a_leftover_is_ended_only_when_it_is_the_same_process(tmp_path: Path):
    child = _sleeper(tmp_path)
    created = psutil.Process(child.pid).create_time()

    assert not end_leftover(child.pid, created - 60)
    assert child.is_running
    assert end_leftover(child.pid, created)
    assert not child.is_running


def test_waiting_for_a_child_that_ended_tells_its_last_output(tmp_path: Path):
    command = [sys.executable, "-c", "raise SystemExit('the disk is full')"]
    child = ChildProcess(Command(name="writer", arguments=command, log_file=tmp_path / "log"))

    with pytest.raises(ServerNotStarted, match=r"(?s)writer ended with exit code 1.*disk is full"):
        child.wait_until(lambda: False, seconds=10)


def test_a_taken_port_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
