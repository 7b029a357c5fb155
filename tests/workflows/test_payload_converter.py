"""What reads payloads is built once per process, and keeps nothing of a single workflow alive."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.forward_test import ForwardTestWorkflow
from workflows.messages import Control
from workflows.payload_converter import SharedPayloadConverter
from workflows.price_feed import PriceFeedWorkflow
from workflows.runtime import data_converter

HISTORIES = sorted((Path(__file__).parents[1] / "replay" / "histories").glob("*.json"))
WORKFLOWS = (
    BacktestWorkflow,
    CertificateWorkflow,
    ExportWorkflow,
    ForwardTestWorkflow,
    PriceFeedWorkflow,
)


def refuse_to_build(*_: object) -> None:
    raise AssertionError("an adapter is built a second time")


@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
async def test_a_second_workflow_builds_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A type that is made anew in each sandbox would be: it would be kept alive, too."""
    replayer = Replayer(workflows=WORKFLOWS, data_converter=data_converter())
    history = WorkflowHistory.from_json("a-test", path.read_text())
    await replayer.replay_workflow(history)

    monkeypatch.setattr("pydantic.type_adapter.TypeAdapter.__init__", refuse_to_build)
    await replayer.replay_workflow(history)


def test_all_converters_read_with_the_same_adapters(monkeypatch: pytest.MonkeyPatch):
    control = Control(signal_id="one", speed="fast")
    (payload,) = SharedPayloadConverter().to_payloads([control])
    first: list[Any] = SharedPayloadConverter().from_payloads([payload], [Control])

    monkeypatch.setattr("pydantic.type_adapter.TypeAdapter.__init__", refuse_to_build)
    assert SharedPayloadConverter().from_payloads([payload], [Control]) == first == [control]
