"""The embedded stack: one command starts it, nothing that dies stays dead, and its data stays."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli import mint_token
from local.data_directory import DataDirectory, StackRecord
from local.services import PROJECT_ROOT
from local.stack import is_working
from settings import ApiSettings, MigrationSettings, StackSettings, WorkerSettings

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

START_SECONDS = 90.0
# Asked very often while something starts, and made once for that; what it asks may be killed.
HTTP = httpx.Client(timeout=30, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
SETTING_NAMES = {
    name.upper()
    for kind in (ApiSettings, WorkerSettings, MigrationSettings, StackSettings)
    for name in kind.model_fields
}


class StartedStack:
    """`alphalab up` as a user runs it, in a terminal of its own."""

    def __init__(self, directory: Path, *options: str, **settings: str) -> None:
        self.directory = DataDirectory(directory)
        self.output: list[str] = []
        self._notes = (directory.parent / f"{directory.name}.stderr").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--data-dir", str(directory), *options],
            env={**environment(), **settings},
            cwd=directory.parent,
            stdout=subprocess.PIPE,
            stderr=self._notes,
            text=True,
        )

    def wait_ready(self) -> "StartedStack":
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip())
            if line.startswith("ready: "):
                return self
        raise AssertionError(self.notes)

    @property
    def api_url(self) -> str:
        return self.output[-1].removeprefix("ready: ")

    @property
    def record(self) -> StackRecord:
        return self.directory.record

    @property
    def notes(self) -> str:
        return Path(self._notes.name).read_text()

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self.record.children.items()}

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        self.process.communicate(timeout=60)
        self._notes.close()
        return self.process.returncode

    def __enter__(self) -> "StartedStack":
        return self.wait_ready()

    def __exit__(self, *_exception: object) -> None:
        self.end()


def environment() -> dict[str, str]:
    """This process's environment without settings: what a newcomer's shell has."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
    return {**kept, "PYTHONPATH": str(PROJECT_ROOT), "COLUMNS": "200"}


def alphalab(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments, "--data-dir", str(directory)]
    return subprocess.run(
        command,
        env=environment(),
        cwd=directory.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def wait_for(condition: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def me(directory: DataDirectory, token: str | None = None) -> dict[str, Any]:
    answer = ask_who_i_am(directory, token)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["user"])


def knows_me(directory: DataDirectory) -> bool:
    return ask_who_i_am(directory).status_code == 200


@cache
def _my_token(directory: DataDirectory) -> str:
    lifetime = timedelta(minutes=10)
    return mint_token(directory, sub="user_local", email="me@example.com", lifetime=lifetime)


def ask_who_i_am(directory: DataDirectory, token: str | None = None) -> httpx.Response:
    token = token or _my_token(directory)
    return HTTP.get(
        f"{directory.record.addresses['API']}/api/users/me",
        headers={"Authorization": f"Bearer {token}"},
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stacks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a stack was and how it ended."""

    user_id: str
    ports: Mapping[str, int]
    children: Mapping[str, int]
    exit_code: int
    notes: str


@pytest.fixture(scope="module")
def former_life(workplace: Path) -> Life:
    """The stack's directory saw one before, which was asked to stop."""
    with StartedStack(workplace / "one") as first:
        user, ports, children = me(first.directory), first.record.ports, first.pids()
        exit_code = first.end()
        return Life(
            user_id=user["id"],
            ports=ports,
            children=children,
            exit_code=exit_code,
            notes=first.notes,
        )


@pytest.fixture(scope="module")
def stack(workplace: Path, former_life: Life) -> Iterator[StartedStack]:
    with StartedStack(workplace / "one") as started:
        assert not set(started.pids().values()) & set(former_life.children.values())
        yield started
        down = alphalab(started.directory.path, "down")
        assert down.returncode == 0, down.stderr
        assert started.process.wait(10) == 0
        assert not started.directory.is_running


def test_its_directory_is_private(stack: StartedStack):
    path = stack.directory.path
    names = ("stack.json", "issuer.pem", "encryption.key", "links.key")

    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "storage").stat().st_mode & 0o777 == 0o700
    assert [(path / name).stat().st_mode & 0o777 for name in names] == [0o600] * len(names)


def test_it_prints_addresses_and_last_that_it_is_ready(stack: StartedStack):
    printed = dict(line.split(":", 1) for line in stack.output[:-1])

    assert stack.output[-1] == f"ready: http://127.0.0.1:{stack.record.ports['api']}"
    assert HTTP.get(printed["Temporal Web UI"].strip()).status_code == 200
    assert HTTP.get(f"{stack.api_url}/api/health").json()["status"] == "ok"


def test_doctor_finds_it_well(stack: StartedStack):
    report = alphalab(stack.directory.path, "doctor")

    assert report.returncode == 0, report.stdout
    assert "no " not in [line[:3] for line in report.stdout.splitlines()]


def test_its_api_takes_the_tokens_of_its_issuer_and_no_others(stack: StartedStack):
    forged = HTTP.get(
        f"{stack.api_url}/api/users/me", headers={"Authorization": "Bearer e30.e30.e30"}
    )

    token = alphalab(stack.directory.path, "token", "--email", "me@example.com").stdout.strip()
    assert me(stack.directory, token)["email"] == "me@example.com"
    assert forged.status_code == 401


def test_a_second_one_in_the_same_directory_is_refused(stack: StartedStack):
    refused = alphalab(stack.directory.path, "up")

    assert refused.returncode == 1
    assert "already running" in refused.stderr


def test_a_port_that_is_taken_is_refused(workplace: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = alphalab(workplace / "three", "up", "--api-port", port)

    assert refused.returncode == 1
    assert f"Port {port} is taken" in refused.stderr


@pytest.mark.parametrize("name", ["worker", "api", "redis", "postgres", "temporal", "simulators"])
def test_a_child_that_dies_is_started_again(stack: StartedStack, name: str):
    former = stack.pids()[name]
    os.kill(former, signal.SIGKILL)

    wait_for(lambda: stack.pids().get(name, former) != former)
    # What it says of itself may be a second old: a request is what has to be answered.
    wait_for(lambda: is_working(stack.api_url) and knows_me(stack.directory))
    assert me(stack.directory)["email"] == "me@example.com"


def test_it_stops_in_order_and_keeps_its_data(stack: StartedStack, former_life: Life):
    stops = [line.split()[-1] for line in former_life.notes.splitlines() if " stopping " in line]

    assert stops == ["api", "worker", "simulators", "temporal", "redis", "postgres"]
    assert former_life.exit_code == 0
    assert not any(is_alive(pid) for pid in former_life.children.values())
    assert me(stack.directory)["id"] == former_life.user_id
    # Port 5000 is taken by whoever finds it free, in other tests as well.
    assert dict(stack.record.ports, api=0) == dict(former_life.ports, api=0)


def test_two_stacks_run_side_by_side_and_one_that_is_killed_takes_its_children_along(
    stack: StartedStack, workplace: Path
):
    with StartedStack(workplace / "two") as other:
        assert other.api_url != stack.api_url
        children = other.pids().values()
        assert not set(children) & set(stack.pids().values())
        assert is_working(stack.api_url)
        assert is_working(other.api_url)
        assert me(other.directory)["id"] != me(stack.directory)["id"]

        assert other.end(signal.SIGKILL) == -signal.SIGKILL

    wait_for(lambda: not any(is_alive(pid) for pid in children))
    assert is_working(stack.api_url)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("module", ["server", "worker"])
def test_started_elsewhere_a_process_names_what_it_lacks(module: str, tmp_path: Path):
    refused = subprocess.run(
        [sys.executable, "-m", module],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert "Missing settings" in refused.stderr
    for name in ("DATABASE_URL", "REDIS_URL", "TEMPORAL_ADDRESS", "ENCRYPTION_KEY", "PUBLIC_URL"):
        assert name in refused.stderr
    assert "Traceback" not in refused.stderr
