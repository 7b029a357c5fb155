"""What Temporal's histories say of a workflow: its runs, its activities' times and payloads."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from temporalio.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSize:
    """One run of a workflow: how long its history got."""

    run_id: str
    events: int
    bytes: int


@dataclass(slots=True)
class ActivityUse:
    """The executions of one activity: seconds from scheduled to completed, bytes in and out."""

    seconds: list[float] = field(default_factory=list)
    input_bytes: list[int] = field(default_factory=list)
    result_bytes: list[int] = field(default_factory=list)

    @property
    def typical_input(self) -> int:
        return round(median(self.input_bytes))

    @property
    def typical_result(self) -> int:
        return round(median(self.result_bytes))


async def run_sizes(client: Client, workflow_id: str) -> list[RunSize]:
    """The runs of a workflow that continued as new, the first one first."""
    runs = [each async for each in client.list_workflows(f"WorkflowId = '{workflow_id}'")]
    found: list[RunSize] = []
    for run in sorted(runs, key=lambda each: each.start_time):
        described = await client.get_workflow_handle(workflow_id, run_id=run.run_id).describe()
        info = described.raw_description.workflow_execution_info
        found.append(
            RunSize(run_id=run.run_id, events=info.history_length, bytes=info.history_size_bytes)
        )
    return found


async def activity_uses(client: Client, workflow_id: str) -> dict[str, ActivityUse]:
    """By name, what the activities of a workflow's runs took, as Temporal saw it."""
    uses: dict[str, ActivityUse] = defaultdict(ActivityUse)
    for run in await run_sizes(client, workflow_id):
        scheduled: dict[int, Any] = {}
        async for event in _events(client, workflow_id, run.run_id):
            if event.HasField("activity_task_scheduled_event_attributes"):
                scheduled[event.event_id] = event
            elif event.HasField("activity_task_completed_event_attributes"):
                done = event.activity_task_completed_event_attributes
                _note(uses, scheduled.pop(done.scheduled_event_id), event)
    return uses


async def stretch_seconds(client: Client, workflow_id: str, *, first: str, last: str) -> float:
    """From when the activity `first` was first scheduled to when `last` was last completed."""
    names: dict[int, str] = {}
    begin = end = None
    for run in await run_sizes(client, workflow_id):
        names.clear()
        async for event in _events(client, workflow_id, run.run_id):
            if event.HasField("activity_task_scheduled_event_attributes"):
                asked = event.activity_task_scheduled_event_attributes
                names[event.event_id] = asked.activity_type.name
                if begin is None and asked.activity_type.name == first:
                    begin = event.event_time.ToNanoseconds()
            elif event.HasField("activity_task_completed_event_attributes"):
                done = event.activity_task_completed_event_attributes
                if names[done.scheduled_event_id] == last:
                    end = event.event_time.ToNanoseconds()
    if begin is None or end is None:
        raise LookupError(f"{workflow_id} did not run {first} and {last}")
    return float(end - begin) / 1e9


async def _events(client: Client, workflow_id: str, run_id: str) -> AsyncIterator[Any]:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events():
        yield event


def _note(uses: dict[str, ActivityUse], begin: Any, end: Any) -> None:
    asked = begin.activity_task_scheduled_event_attributes
    use = uses[asked.activity_type.name]
    elapsed = end.event_time.ToNanoseconds() - begin.event_time.ToNanoseconds()
    use.seconds.append(elapsed / 1e9)
    use.input_bytes.append(_size(asked.input))
    use.result_bytes.append(_size(end.activity_task_completed_event_attributes.result))


def _size(payloads: Any) -> int:
    return sum(len(payload.data) for payload in payloads.payloads)
