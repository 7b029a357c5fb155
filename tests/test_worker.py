"""The worker as a process: what it needs, how it leaves, and what its death costs."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from redis.asyncio import Redis
from structlog.testing import capture_logs
from temporalio import activity
from temporalio.api.enums.v1 import VersioningBehavior
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.ai_summaries import AiSummaryActivities
from activities.backtest_candles import BacktestCandleActivities
from activities.certificates import CertificateActivities
from activities.decisions import DecisionActivities
from activities.exports import ExportActivities
from activities.live_markets import LiveMarketActivities
from activities.market_data import MarketDataActivities
from activities.notifications import NotificationActivities
from activities.positions import PositionActivities
from activities.price_feeds import PriceFeedActivities
from activities.results import ResultActivities
from activities.sessions import SessionActivities
from activities.summaries import SummaryActivities
from certificates.signing import new_seed
from db.engine import Database
from local.processes import free_port
from local.simulators.openrouter import create_app
from migrations.run import upgrade
from settings import WorkerSettings, load
from tests.conftest import TEMPORAL_NAMESPACE
from tests.laboratory import Laboratory, Plan
from tests.loopback import serve_app
from worker import FernetKeyRing, build_workers, mailer_of, tended
from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.forward_test import ForwardTestWorkflow
from workflows.price_feed import PriceFeedWorkflow
from workflows.queues import background_queue, decision_queue, export_queue
from workflows.runtime import workflow_id

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
FLIP = Plan(candles=14, model="simulated/flip")


@pytest.fixture(scope="module")
def openrouter_url() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@pytest.fixture
async def laboratory(
    empty_postgres_url: str,
    redis_url: str,
    temporal_client: Client,
    task_queue: str,
    openrouter_url: str,
) -> AsyncIterator[Laboratory]:
    """A database of its own: a worker process restores every session that it finds waiting."""
    upgrade(empty_postgres_url)
    database = Database.connect(empty_postgres_url, pool_size=5)
    async with httpx.AsyncClient() as http, Redis.from_url(redis_url) as redis:
        laboratory = Laboratory(
            database=database,
            redis=redis,
            client=temporal_client,
            task_queue=task_queue,
            openrouter_url=openrouter_url,
            http=http,
        )
        await laboratory.sign_up()
        await http.delete(f"{openrouter_url}/debug/requests")
        yield laboratory
    await database.dispose()


@pytest.fixture
def environment(
    laboratory: Laboratory,
    empty_postgres_url: str,
    redis_url: str,
    temporal_address: str,
    tmp_path: Path,
) -> dict[str, str]:
    """All that a worker is told."""
    return {
        "DATABASE_URL": empty_postgres_url,
        "REDIS_URL": redis_url,
        "TEMPORAL_ADDRESS": temporal_address,
        "TEMPORAL_NAMESPACE": TEMPORAL_NAMESPACE,
        "TEMPORAL_TASK_QUEUE": laboratory.task_queue,
        "CERTIFICATE_SIGNING_KEY": new_seed(),
        "ENCRYPTION_KEY": laboratory.fernet_key,
        "OPENROUTER_BASE_URL": laboratory.openrouter_url,
        "PUBLIC_URL": "http://localhost",
        "STORAGE_BUCKET": str(tmp_path / "storage"),
        "WORKER_GRACEFUL_SHUTDOWN_SECONDS": "2",
    }


@asynccontextmanager
async def process(
    directory: Path, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process, started where no `.env` lies; killed at the end of the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_a_killed_worker_process_changes_nothing_and_a_dismissed_one_leaves_in_order(
    laboratory: Laboratory, environment: dict[str, str], tmp_path: Path
):
    session_id = await laboratory.started(FLIP)

    async with process(tmp_path, environment) as worker:
        await laboratory.stepped(session_id, random.randint(1, 12))
        worker.kill()
        assert await worker.wait() == -signal.SIGKILL
    talkative = {"DEBUG": "true", "LOG_LEVEL": "error"}
    async with process(tmp_path, environment | talkative) as worker:
        await laboratory.ended(session_id)
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            said, _ = await worker.communicate()
        assert worker.returncode == 0
        assert b"worker_ready" in said
        assert b'"level": "debug"' in said
        assert b"Traceback" not in said

    plain = await laboratory.plain(FLIP)
    row = await laboratory.session_row(session_id)
    assert await laboratory.trades(session_id) == await laboratory.trades(plain) != []
    assert await laboratory.decisions(session_id) == await laboratory.decisions(plain)
    events = await laboratory.streamed(session_id)
    assert [event.seq for event in events] == list(range(1, row["last_seq"] + 1))
    asked = (await laboratory.http.get(f"{laboratory.openrouter_url}/debug/requests")).json()
    assert 2 * FLIP.candles <= asked["total"] <= 2 * FLIP.candles + row["possibly_paid_twice"]
    assert row["possibly_paid_twice"] <= 1


async def test_a_backtest_is_pinned_to_the_version_it_began_with(
    laboratory: Laboratory, environment: dict[str, str], tmp_path: Path
):
    name = f"alphalab-{laboratory.task_queue}"
    versioned = {**environment, "WORKER_DEPLOYMENT_NAME": name, "WORKER_BUILD_ID": "build-1"}
    session_id = await laboratory.started(Plan(candles=3, model="simulated/flip"))

    async with process(tmp_path, versioned):
        await make_current(laboratory.client, name, "build-1")
        await laboratory.ended(session_id)

    handle = laboratory.client.get_workflow_handle(workflow_id(session_id))
    versioning = (await handle.describe()).raw_info.versioning_info
    assert versioning.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    assert versioning.deployment_version.build_id == "build-1"


async def make_current(client: Client, name: str, build_id: str) -> None:
    """What an operator does with `temporal worker deployment set-current-version`."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=name, build_id=build_id
    )
    async with asyncio.timeout(30):
        while True:
            try:
                await client.workflow_service.set_worker_deployment_current_version(request)
            except RPCError:  # no worker of that version has polled yet
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_worker_shows_temporals_metrics_where_it_is_told_to(
    laboratory: Laboratory, environment: dict[str, str], tmp_path: Path
):
    address = f"127.0.0.1:{free_port()}"
    environment |= {"WORKER_METRICS_ADDRESS": address}
    async with process(tmp_path, environment):
        await laboratory.run(FLIP)
        shown = (await laboratory.http.get(f"http://{address}/metrics")).text

        async with process(tmp_path, environment) as second:
            said, _ = await second.communicate()

    assert (
        'temporal_activity_execution_latency_seconds_bucket{activity_type="execute_step"' in shown
    )
    assert 'workflow_type="backtest"' in shown
    assert second.returncode == 1
    assert said.startswith(b"Invalid settings: WORKER_METRICS_ADDRESS: ")
    assert b"Traceback" not in said


@pytest.fixture
async def workers(laboratory: Laboratory) -> list[Any]:
    return build_workers(laboratory.client, laboratory.task_queue, laboratory.activities())


async def test_every_activity_has_a_worker_and_model_calls_have_one_of_their_own(
    laboratory: Laboratory, workers: list[Any]
):
    steps, decisions, background, exports = (worker.config() for worker in workers)
    classes = (
        MarketDataActivities,
        BacktestCandleActivities,
        LiveMarketActivities,
        PositionActivities,
        PriceFeedActivities,
        SessionActivities,
        DecisionActivities,
        AiSummaryActivities,
        ResultActivities,
        NotificationActivities,
        SummaryActivities,
        ExportActivities,
        CertificateActivities,
    )
    defined = {
        name
        for each in classes
        for name, member in vars(each).items()
        if activity._Definition.from_callable(member) is not None
    }

    registered = [
        each.__name__
        for config in (steps, decisions, background, exports)
        for each in config["activities"]
    ]
    assert sorted(registered) == sorted(defined)
    assert [each.__name__ for each in decisions["activities"]] == [
        "request_decision",
        "write_ai_summary",
    ]
    assert {each.__name__ for each in background["activities"]} == {
        *("follow_prices", "notify"),
        *("compose_certificate", "write_certificate", "record_certificate"),
    }
    assert [each.__name__ for each in exports["activities"]] == ["write_export"]
    assert exports["task_queue"] == export_queue(steps["task_queue"])
    assert background["task_queue"] == background_queue(steps["task_queue"])
    assert decisions["task_queue"] == decision_queue(steps["task_queue"])
    assert steps["workflows"] == [
        BacktestWorkflow,
        ForwardTestWorkflow,
        PriceFeedWorkflow,
        ExportWorkflow,
        CertificateWorkflow,
    ]


def test_any_of_the_configured_keys_opens_what_one_of_them_sealed():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    token = Fernet(old).encrypt(b"sk-or-v1-secret").decode()

    assert FernetKeyRing((new, old)).decrypt(token) == "sk-or-v1-secret"


@pytest.mark.parametrize(
    "token",
    ["", "nonsense", Fernet(Fernet.generate_key()).encrypt(b"x").decode()],
    ids=["empty", "nonsense", "of-another-key"],  # every process of a run must name it alike
)
def test_what_no_key_opens_is_refused_without_repeating_it(token: str):
    ring = FernetKeyRing((Fernet.generate_key().decode(),))

    with pytest.raises(ValueError, match="cannot be opened") as refusal:
        ring.decrypt(token)

    assert token not in str(refusal.value) or not token


def test_there_is_a_mailer_where_the_settings_name_a_server():
    needed: dict[str, Any] = {"database_url": "postgresql://localhost/a"}
    needed |= {"redis_url": "redis://localhost", "temporal_address": "localhost:7233"}
    needed |= {"public_url": "http://localhost", "storage_bucket": "s3://alphalab"}
    needed |= {"certificate_signing_key": new_seed()}
    needed |= {"encryption_key": Fernet.generate_key().decode(), "_env_file": None}
    mail = {"smtp_host": "smtp.example", "smtp_from": "no-reply@alphalab.example"}

    assert mailer_of(load(WorkerSettings, **needed)) is None
    assert mailer_of(load(WorkerSettings, **needed, **mail)) is not None


async def test_work_that_should_go_on_for_ever_is_missed_when_it_ends():
    async def fail() -> None:
        raise RuntimeError("a bug")

    with capture_logs() as logged:
        ended, dismissed = tended(fail(), "sweep"), tended(asyncio.sleep(60), "reconciliation")
        await asyncio.wait([ended])
        dismissed.cancel()
        await asyncio.wait([dismissed])

    (entry,) = logged
    assert (entry["event"], entry["task"]) == ("tending_ended", "sweep")
    assert isinstance(entry["exc_info"], RuntimeError)
