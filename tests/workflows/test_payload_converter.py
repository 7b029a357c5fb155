"""What is shared between workflows keeps nothing of a single one alive."""

import dataclasses
import inspect
from typing import Any, get_type_hints

import pytest

from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.forward_test import ForwardTestWorkflow
from workflows.messages import Control
from workflows.payload_converter import SharedPayloadConverter
from workflows.price_feed import PriceFeedWorkflow

WORKFLOWS = (
    BacktestWorkflow,
    CertificateWorkflow,
    ExportWorkflow,
    ForwardTestWorkflow,
    PriceFeedWorkflow,
)


@pytest.mark.parametrize("workflow_class", WORKFLOWS)
def test_no_workflow_is_told_anything_of_a_type_that_is_made_anew_for_each(workflow_class: type):
    told = {
        each
        for _, method in inspect.getmembers(workflow_class, inspect.isfunction)
        for hint in get_type_hints(method).values()
        for each in (hint, *getattr(hint, "__args__", ()))
        if dataclasses.is_dataclass(each)
    }
    assert told
    reloaded = {each.__module__ for each in workflow_class.__mro__ if each is not object}
    assert reloaded >= {workflow_class.__module__}
    assert [each for each in told if each.__module__ in reloaded] == []


def test_all_converters_read_with_the_same_adapters(monkeypatch: pytest.MonkeyPatch):
    control = Control(signal_id="one", speed="fast")
    (payload,) = SharedPayloadConverter().to_payloads([control])
    first: list[Any] = SharedPayloadConverter().from_payloads([payload], [Control])

    def build(*_: object) -> None:
        raise AssertionError("an adapter is built a second time")

    monkeypatch.setattr("pydantic.type_adapter.TypeAdapter.__init__", build)
    assert SharedPayloadConverter().from_payloads([payload], [Control]) == first == [control]
