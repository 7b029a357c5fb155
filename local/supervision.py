"""Keeps services running: starts them, restarts those that die, stops them all in order."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from local.processes import POLL_SECONDS, ChildProcess, Command, ServerNotStarted
from local.services import Service

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
# By then a child has started and done some work: whatever ends it, it is not its start.
RAN_WELL_SECONDS = 10.0
WATCH_SECONDS = 0.1
START_SECONDS = 60.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopAsked(Exception):
    """The user, or the system, wants the stack to stop."""


@dataclass(slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next restart: longer each time, unless it ran well meanwhile."""

    failures: int = 0

    def next_delay(self, *, seconds_running: float) -> float:
        if seconds_running >= RAN_WELL_SECONDS:
            self.failures = 0
        delay = min(FIRST_DELAY_SECONDS * 2.0**self.failures, LONGEST_DELAY_SECONDS)
        self.failures += 1
        return delay


@dataclass(slots=True, kw_only=True)
class _Watched:
    service: Service
    backoff: Backoff
    restart_at: float | None = None
    is_returning: bool = False


class Supervisor:
    """Owns the services it started, from one thread: the kernel ties their lives to it."""

    def __init__(
        self, *, say: Callable[[str], None], on_change: Callable[[Sequence[Service]], None]
    ) -> None:
        self._say = say
        self._on_change = on_change
        self._watched: list[_Watched] = []
        self._signals = 0

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Note the signals that ask for an end; the second one kills the children.

        One that is ignored, as under `nohup`, stays ignored.
        """
        former = {
            number: handler
            for number in STOP_SIGNALS
            if (handler := signal.getsignal(number)) is not signal.SIG_IGN
        }
        for number in former:
            signal.signal(number, self._note_signal)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def start(self, services: Sequence[Service]) -> None:
        """Launch all, then wait until each is ready. Raises `ServerNotStarted`, `StopAsked`."""
        for service in services:
            self._watched.append(_Watched(service=service, backoff=Backoff()))
            service.launch()
        self._on_change(self._services)
        for service in services:
            assert service.process is not None  # noqa: S101  (just launched)
            self._wait(service.process, service.is_ready)
            service.on_ready()

    def run_to_end(self, command: Command) -> None:
        """Run a command that must succeed. Raises `ServerNotStarted`, `StopAsked`."""
        process = ChildProcess(command)
        try:
            while process.is_running:
                self._check()
                time.sleep(POLL_SECONDS)
            if process.exit_code != 0:
                raise ServerNotStarted(
                    process.failure(f"failed with exit code {process.exit_code}")
                )
        finally:
            process.stop()

    def wait_until(self, is_ready: Callable[[], bool], service: Service) -> None:
        """Wait for what a service answers for. Raises `ServerNotStarted`, `StopAsked`."""
        assert service.process is not None  # noqa: S101  (started before)
        self._wait(service.process, is_ready)

    def watch(self) -> None:
        """Restart whatever dies until a signal comes. Raises `StopAsked`."""
        while True:
            self._check()
            for watched in self._watched:
                self._look_after(watched)
            time.sleep(WATCH_SECONDS)

    def stop(self) -> None:
        """Stop all, the last started first."""
        for service in reversed(self._services):
            if service.process is not None:
                self._say(f"stopping {service.name}")
            service.stop()
        self._watched.clear()

    @property
    def _services(self) -> list[Service]:
        return [watched.service for watched in self._watched]

    def _look_after(self, watched: _Watched) -> None:
        process, now = watched.service.process, time.monotonic()
        if process is not None and process.is_running:
            watched.is_returning = watched.is_returning and not watched.service.on_return()
            return
        if watched.restart_at is None:
            self._schedule(watched, process, now)
        elif now >= watched.restart_at:
            watched.restart_at, watched.is_returning = None, True
            self._relaunch(watched.service)

    def _schedule(self, watched: _Watched, process: ChildProcess | None, now: float) -> None:
        seconds_running = process.seconds_running if process is not None else 0.0
        delay = watched.backoff.next_delay(seconds_running=seconds_running)
        watched.restart_at = now + delay
        ending = f"ended with exit code {process.exit_code}" if process else "did not start"
        self._say(f"{watched.service.name} {ending}; starting it again in {delay:.1f} s")

    def _relaunch(self, service: Service) -> None:
        service.stop()
        try:
            service.launch()
        except (ServerNotStarted, OSError) as error:
            self._say(f"{service.name}: {error}")
        self._on_change(self._services)

    def _wait(self, process: ChildProcess, is_ready: Callable[[], bool]) -> None:
        def ready_unless_stopped() -> bool:
            self._check()
            return is_ready()

        process.wait_until(ready_unless_stopped, seconds=START_SECONDS)

    def _check(self) -> None:
        if self._signals:
            raise StopAsked

    def _note_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            for service in self._services:
                if service.process is not None:
                    service.process.send_kill()
