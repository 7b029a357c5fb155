"""Tests that run while a new version is deployed go on: their histories still fit the code.

A failure here means that the change needs `workflow.patched`, not a new recording.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from redis.asyncio import Redis
from temporalio import workflow
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer, Worker

from db.engine import Database
from integrations.openrouter.client import OpenRouterClient
from tests.issuing import ISSUER
from tests.memory_storage import memory_storage
from tests.replay.changed import (
    ChangedBacktestWorkflow,
    ChangedCertificateWorkflow,
    ChangedExportWorkflow,
    ChangedForwardTestWorkflow,
    ChangedPriceFeedWorkflow,
)
from tests.workflows.histories import payloads_of
from worker import FernetKeyRing, build_activities, build_workers
from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.forward_test import ForwardTestWorkflow
from workflows.price_feed import PriceFeedWorkflow
from workflows.runtime import data_converter

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
# What makes each history worth replaying: kinds of events, and activities.
CONTAINED = {
    "plain": {"WORKFLOW_EXECUTION_COMPLETED"},
    "controlled": {"TIMER_CANCELED", "WORKFLOW_EXECUTION_SIGNALED"},
    "stopped": {"ACTIVITY_TASK_CANCELED", "WORKFLOW_EXECUTION_SIGNALED"},
    "troubled": {"ACTIVITY_TASK_FAILED", "WORKFLOW_EXECUTION_SIGNALED"},
    "summed": {"write_ai_summary", "WORKFLOW_EXECUTION_COMPLETED"},
    "handed_back": {"TIMER_FIRED", "WORKFLOW_EXECUTION_COMPLETED"},
    "failed": {"ACTIVITY_TASK_FAILED", "WORKFLOW_EXECUTION_FAILED"},
    "fetched": {"WORKFLOW_EXECUTION_COMPLETED"},
    "followed": {"TIMER_FIRED", "WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_COMPLETED"},
    "touched": {"MARKER_RECORDED", "TIMER_CANCELED", "WORKFLOW_EXECUTION_SIGNALED"},
    "certified": {"WORKFLOW_EXECUTION_COMPLETED"},
    "uncertified": {"ACTIVITY_TASK_FAILED", "WORKFLOW_EXECUTION_FAILED"},
    "exported": {"WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_COMPLETED"},
    "priced": {"WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_COMPLETED"},
    "continued-first-run": {"WORKFLOW_EXECUTION_CONTINUED_AS_NEW"},
    "continued-last-run": {"WORKFLOW_EXECUTION_COMPLETED"},
}
MOST_BYTES = 130_000


def replayer(*workflows: type) -> Replayer:
    return Replayer(workflows=workflows, data_converter=data_converter())


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def by_name(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
async def workers(temporal_client: Client) -> list[Worker]:
    """The workers as they are deployed; they are never started."""
    database = Database.connect("postgresql://nobody@localhost/nothing")
    openrouter = OpenRouterClient(httpx.AsyncClient(), "http://localhost")
    keys = FernetKeyRing((Fernet.generate_key().decode(),))
    activities = build_activities(
        database, Redis(), openrouter, keys, storage=memory_storage(), issuer=ISSUER
    )
    return build_workers(temporal_client, "never-started", activities)


@pytest.mark.parametrize("path", HISTORIES, ids=by_name)
async def test_recorded_histories_replay(path: Path):
    now = replayer(
        BacktestWorkflow,
        ForwardTestWorkflow,
        PriceFeedWorkflow,
        ExportWorkflow,
        CertificateWorkflow,
    )
    await now.replay_workflow(history(path))


@pytest.mark.parametrize("path", HISTORIES, ids=by_name)
async def test_a_change_that_breaks_running_tests_is_noticed(path: Path):
    changed = replayer(
        ChangedBacktestWorkflow,
        ChangedForwardTestWorkflow,
        ChangedPriceFeedWorkflow,
        ChangedExportWorkflow,
        ChangedCertificateWorkflow,
    )
    with pytest.raises(workflow.NondeterminismError):
        await changed.replay_workflow(history(path))


def test_every_workflow_of_the_workers_has_a_history(workers: list[Worker]):
    deployed = {
        workflow._Definition.must_from_class(each).name
        for worker in workers
        for each in worker.config()["workflows"]
    }
    recorded = {
        json.loads(path.read_text())["events"][0]["workflowExecutionStartedEventAttributes"][
            "workflowType"
        ]["name"]
        for path in HISTORIES
    }
    assert deployed
    assert deployed <= recorded


def test_the_histories_hold_what_they_were_recorded_for():
    found = {
        path.stem: {
            name
            for event in json.loads(path.read_text())["events"]
            for name in (event["eventType"].removeprefix("EVENT_TYPE_"), activity_of(event))
        }
        for path in HISTORIES
    }
    assert found.keys() == CONTAINED.keys()
    assert [name for name, needed in CONTAINED.items() if not needed <= found[name]] == []


def test_a_decision_that_was_handed_back_was_asked_for_again():
    path = next(path for path in HISTORIES if path.stem == "handed_back")
    asked = [activity_of(event) for event in json.loads(path.read_text())["events"]]
    assert 1 < asked.count("request_decision") < 10


def activity_of(event: dict[str, Any]) -> str | None:
    """The activity that is asked for; None where none is."""
    asked = event.get("activityTaskScheduledEventAttributes")
    return None if asked is None else str(asked["activityType"]["name"])


@pytest.mark.parametrize("path", HISTORIES, ids=by_name)
def test_the_histories_are_small_and_name_no_machine(path: Path):
    text = path.read_text()
    shown = text + b"".join(payloads_of(text)).decode()

    assert len(text) < MOST_BYTES
    assert set(identities(json.loads(text))) == {"recorder"}
    assert "stackTrace" not in text
    assert re.findall(r"(?<![\w/])/(?:home|root|tmp|usr|var|work)/", shown) == []


def identities(value: Any) -> Iterator[str]:
    """Who is named in a history as the author of an entry."""
    if isinstance(value, list):
        for item in value:
            yield from identities(item)
    elif isinstance(value, dict):
        if isinstance(value.get("identity"), str):
            yield value["identity"]
        for item in value.values():
            yield from identities(item)
