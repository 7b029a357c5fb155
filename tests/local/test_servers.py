"""The embedded servers start, keep their data, and end with the process that started them."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from temporalio.client import Client

from local.processes import ServerNotStarted
from local.servers import PostgresServer, RedisServer, TemporalServer, temporal_binary
from migrations.namespace import SEARCH_ATTRIBUTES

PARENT = """
import sys, time
from pathlib import Path
from local.servers import PostgresServer, RedisServer, TemporalServer

directory = Path(sys.argv[1])
servers = [PostgresServer(directory / "postgres", is_synced=False),
           RedisServer(directory / "redis"), TemporalServer(directory / "temporal")]
for server in servers:
    server.start()
print(*(server.process.pid for server in servers), flush=True)
time.sleep(60)
"""


@pytest.fixture
def server_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def test_postgres_keeps_its_rows_over_a_restart(server_dir: Path):
    server = PostgresServer(server_dir / "postgres", is_synced=False)
    with server, psycopg.connect(server.url) as connection:
        connection.execute("create table kept as select 42 as answer")

    with server, psycopg.connect(server.url) as connection:
        row = connection.execute("select answer from kept").fetchone()

    assert row == (42,)


def test_postgres_starts_on_what_a_kill_left_behind(server_dir: Path):
    server = PostgresServer(server_dir / "postgres", is_synced=False)
    server.start()
    assert server.process is not None
    server.process.kill()

    with server, psycopg.connect(server.url) as connection:
        row = connection.execute("select 1").fetchone()

    assert row == (1,)


def test_a_long_path_puts_the_socket_in_a_private_directory(server_dir: Path):
    server = PostgresServer(server_dir / ("long" * 25) / "postgres", is_synced=False)
    with server, psycopg.connect(server.url) as connection:
        row = connection.execute("show unix_socket_directories").fetchone()

    assert row is not None
    socket_directory = Path(str(row[0]))
    assert len(str(socket_directory)) < 90
    assert socket_directory.stat().st_mode & 0o077 == 0
    socket_directory.rmdir()


def test_redis_answers_on_its_socket(redis_url: str):
    connection = redis.Redis.from_url(redis_url)
    assert connection.ping()
    connection.close()


async def test_temporal_has_the_namespace(temporal_client: Client):
    assert [
        workflow async for workflow in temporal_client.list_workflows("WorkflowId='none'")
    ] == []


def test_two_temporal_servers_never_share_a_database_file(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("local.servers.LOCK_SECONDS", 0.1)
    first, second = TemporalServer(server_dir / "temporal"), TemporalServer(server_dir / "temporal")

    with first, pytest.raises(ServerNotStarted, match="Another server uses"):
        second.start()
    with second:
        assert second.is_ready()


def test_a_temporal_server_that_comes_back_without_its_database_gets_its_namespace_again(
    server_dir: Path,
):
    server = TemporalServer(server_dir / "temporal", namespace="lost")
    with server:
        server.stop()
        for file in (server_dir / "temporal").glob("temporal.db*"):
            file.unlink()
        server.launch()
        deadline = time.monotonic() + 30
        while not server.on_return() and time.monotonic() < deadline:
            time.sleep(0.05)

        command = [temporal_binary(), "operator", "search-attribute", "list"]
        command += ["--namespace", "lost", "--address", server.address]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [name for name in SEARCH_ATTRIBUTES if name not in listed] == []


def test_a_server_that_ends_at_once_says_why(server_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("local.servers.redis_binary", lambda: "/no/such/redis")
    server = RedisServer(server_dir / "redis")

    with pytest.raises(ServerNotStarted, match=r"(?s)redis ended with exit code 1.*No such file"):
        server.start()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_servers_end_when_their_parent_is_killed(server_dir: Path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(server_dir)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()

    deadline = time.monotonic() + 10
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if _is_alive(pid)] == []


def _is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
