"""Real PostgreSQL, Redis and Temporal for the tests, started once, when first asked for."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from temporalio.client import Client

from db.engine import Database
from local.processes import ServerNotStarted
from local.servers import PostgresServer, RedisServer, TemporalServer
from migrations.namespace import upgrade_namespace
from migrations.run import upgrade
from workflows.payload_converter import DATA_CONVERTER

TEMPORAL_NAMESPACE = "alphalab"
SERVER_FIXTURES = {"postgres_url": "postgres", "redis_url": "redis", "temporal_address": "temporal"}
LONGEST = (
    "tests/chaos/test_chaos.py",
    "tests/workflows/test_forward_tests.py",
    "tests/workflows/test_recovery.py",
    "tests/local/test_stack.py",
    "tests/activities/test_interruptions.py",
    "tests/local/test_demo.py",
    "tests/workflows/test_positions_between_closes.py",
    "tests/workflows/test_model_trouble.py",
    "tests/contract/test_contract.py",
    "tests/activities/test_exports.py",
    "tests/activities/test_certificates.py",
    "tests/local/test_demo_forward.py",
    "tests/api/test_whole_forward_test.py",
    "tests/workflows/test_fetched_backtests.py",
    "tests/workflows/test_continue_as_new.py",
    "tests/workflows/test_controls.py",
    "tests/test_worker.py",
    "tests/api/test_sockets.py",
    "tests/workflows/test_backtest.py",
    "tests/workflows/test_parity.py",
    "tests/activities/test_late_attempts.py",
)
EXIT_CODE = pytest.StashKey[int]()

# Time is measured in benchmarks: a machine that is busy makes no test fail.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the servers its fixtures need: `-m "not temporal"` and the like.

    The longest files come first: begun last, one of them is waited for by all.
    """
    items.sort(key=lambda item: rank(item.path))
    for item in items:
        for fixture, marker in SERVER_FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Collect garbage rarely, and never look at what imports and collection brought.

    Looking for cycles among all that took a fifteenth of the suite's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def rank(file: Path) -> int:
    """Where a file stands among the longest, or after them."""
    path = file.as_posix()
    return next((i for i, name in enumerate(LONGEST) if path.endswith(name)), len(LONGEST))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_CODE] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without tearing down the interpreter.

    Temporal's native threads may abort it there, which would turn a green run red.
    """
    if EXIT_CODE in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[EXIT_CODE])


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """A directory for the servers' data, short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="alphalab-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres_server(servers_dir: Path) -> Iterator[PostgresServer]:
    with PostgresServer(servers_dir / "postgres", is_synced=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The address of a migrated database, shared by all tests: each makes its own users."""
    upgrade(postgres_server.url)
    return postgres_server.url


@pytest.fixture(scope="session")
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database.connect(postgres_url)
    yield database
    await database.dispose()


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> str:
    """The address of a new database without tables, for tests of the migrations themselves."""
    return postgres_server.create_database(f"empty_{uuid4().hex}")


@pytest.fixture(scope="session")
def redis_url(servers_dir: Path) -> Iterator[str]:
    with RedisServer(servers_dir / "redis") as server:
        yield server.url


@pytest.fixture(scope="session")
async def temporal_address(servers_dir: Path) -> AsyncIterator[str]:
    server = started_temporal(servers_dir)
    try:
        await upgrade_namespace(server.address, TEMPORAL_NAMESPACE)
        yield server.address
    finally:
        server.stop()


def started_temporal(servers_dir: Path, attempts: int = 3) -> TemporalServer:
    """Its ports are free when they are chosen; tests that run beside it may be quicker."""
    for attempt in range(attempts):
        server = TemporalServer(servers_dir / f"temporal-{attempt}")
        try:
            server.start()
        except ServerNotStarted:
            if attempt == attempts - 1:
                raise
        else:
            return server
    raise AssertionError("unreachable")


@pytest.fixture(scope="session")
async def temporal_client(temporal_address: str) -> Client:
    return await Client.connect(
        temporal_address, namespace=TEMPORAL_NAMESPACE, data_converter=DATA_CONVERTER
    )


@pytest.fixture
def task_queue() -> str:
    """A task queue of this test alone: a shared one makes tests run on each other's workers."""
    return f"test-{uuid4().hex}"


@pytest.fixture(scope="session")
def candle_files() -> Path:
    """The directory of real candles; a test that needs it is skipped where it is absent."""
    path = Path(os.environ.get("ALPHALAB_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no candles at {path}: set ALPHALAB_DATA to the directory that has them")
    return path
