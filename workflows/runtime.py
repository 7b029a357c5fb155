"""Where workflows meet the outside: the client's wiring, and what the API may ask of a test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError, RPCStatusCode

from workflows.backtest import BacktestParams, BacktestResult, BacktestWorkflow, Control, Progress
from workflows.payload_codec import AesGcmCodec

# A page load does not wait for a worker that is down.
QUERY_TIMEOUT = timedelta(seconds=2)
CALL_TIMEOUT = timedelta(seconds=5)

_CLOSED_OR_UNKNOWN = RPCStatusCode.NOT_FOUND
_OPEN = {WorkflowExecutionStatus.RUNNING}


class WorkflowFinished(Exception):
    """The test has ended: it takes no more signals."""


class TemporalUnreachable(ConnectionError):
    """Temporal did not answer; nothing is known of the test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestStart:
    """A test to start, and what operators see of it without opening a payload."""

    session_id: UUID
    user_id: UUID
    agent_name: str
    asset: str
    timeframe: str
    mode: str


class StartableSession(Protocol):
    """A session's row, as far as a start needs it."""

    @property
    def id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def agent_name(self) -> str: ...
    @property
    def asset(self) -> str: ...
    @property
    def timeframe(self) -> str: ...
    @property
    def mode(self) -> str: ...


def backtest_id(session_id: UUID) -> str:
    return f"backtest-{session_id}"


def data_converter(payload_keys: str | None = None) -> DataConverter:
    """The one data converter of clients, workers and replays; sealed when keys are given."""
    if not payload_keys:
        return pydantic_data_converter
    return replace(
        pydantic_data_converter,
        payload_codec=AesGcmCodec.from_setting(payload_keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


async def connect(
    address: str,
    *,
    namespace: str,
    payload_keys: str | None = None,
    api_key: str | None = None,
    tls: bool = False,
    lazy: bool = False,
) -> Client:
    """Connect to Temporal; a lazy client connects at its first call, which is for the API only."""
    return await Client.connect(
        address,
        namespace=namespace,
        data_converter=data_converter(payload_keys),
        api_key=api_key,
        tls=tls or api_key is not None,
        lazy=lazy,
    )


class Temporal:
    """Starts tests, signals them, asks them."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def start_backtest(self, start: BacktestStart) -> None:
        """Start the workflow of a session whose row is committed; safe to repeat.

        Raises `TemporalUnreachable`; the session is then started later, by reconciliation.
        """
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._client.start_workflow(
                    BacktestWorkflow.run,
                    BacktestParams(session_id=str(start.session_id), user_id=str(start.user_id)),
                    id=backtest_id(start.session_id),
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    search_attributes=_search_attributes(start),
                    static_summary=f"{start.agent_name} on {start.asset} {start.timeframe}",
                    priority=Priority(fairness_key=str(start.user_id)),
                    rpc_timeout=CALL_TIMEOUT,
                )
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e

    async def signal_pause(self, session_id: UUID, signal_id: str) -> None:
        await self._signal(session_id, BacktestWorkflow.pause, Control(signal_id=signal_id))

    async def signal_resume(self, session_id: UUID, signal_id: str) -> None:
        await self._signal(session_id, BacktestWorkflow.resume, Control(signal_id=signal_id))

    async def signal_speed(self, session_id: UUID, signal_id: str, speed: str) -> None:
        control = Control(signal_id=signal_id, speed=speed)
        await self._signal(session_id, BacktestWorkflow.set_speed, control)

    async def signal_stop(self, session_id: UUID, signal_id: str, close_position: bool) -> None:
        control = Control(signal_id=signal_id, close_position=close_position)
        await self._signal(session_id, BacktestWorkflow.stop, control)

    async def progress(self, session_id: UUID) -> Progress | None:
        """Where the test stands by its own account; None when no worker answers for it."""
        try:
            async with _answered_within(QUERY_TIMEOUT):
                return await self._handle(session_id).query(
                    BacktestWorkflow.progress, rpc_timeout=QUERY_TIMEOUT
                )
        except (RPCError, WorkflowQueryFailedError):
            return None

    async def wait_result(self, session_id: UUID, timeout: timedelta) -> BacktestResult | None:
        """The test's result, waited for at most that long; None when it runs on or has failed.

        Raises `WorkflowFinished` when Temporal knows no such workflow.
        """
        try:
            return await self._handle(session_id).result(rpc_timeout=timeout)
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                raise WorkflowFinished(str(session_id)) from e
            return None
        except WorkflowFailureError:
            return None

    async def is_running(self, session_id: UUID) -> bool:
        """Whether Temporal has an open workflow for the session. Raises `TemporalUnreachable`."""
        try:
            async with _answered_within(CALL_TIMEOUT):
                description = await self._handle(session_id).describe(rpc_timeout=CALL_TIMEOUT)
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                return False
            raise TemporalUnreachable(e.status.name) from e
        return description.status in _OPEN

    async def start_again(self, session: StartableSession) -> None:
        """Start a session's workflow from its row. Raises `TemporalUnreachable`."""
        await self.start_backtest(
            BacktestStart(
                session_id=session.id,
                user_id=session.user_id,
                agent_name=session.agent_name,
                asset=session.asset,
                timeframe=session.timeframe,
                mode=session.mode,
            )
        )

    async def is_reachable(self) -> bool:
        try:
            return await self._client.service_client.check_health(timeout=QUERY_TIMEOUT)
        except (RPCError, TemporalError, RuntimeError):
            return False

    async def poller_count(self) -> int:
        """How many pollers ask for this task queue's workflow tasks; 0 when nobody works."""
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=self._task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            answer = await self._client.workflow_service.describe_task_queue(
                request, timeout=QUERY_TIMEOUT
            )
        except RPCError:
            return 0
        return len(answer.pollers)

    def _handle(self, session_id: UUID) -> WorkflowHandle[BacktestWorkflow, BacktestResult]:
        return self._client.get_workflow_handle_for(BacktestWorkflow.run, backtest_id(session_id))

    async def _signal(self, session_id: UUID, signal: Any, control: Control) -> None:
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._handle(session_id).signal(signal, control, rpc_timeout=CALL_TIMEOUT)
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                raise WorkflowFinished(str(session_id)) from e
            raise TemporalUnreachable(e.status.name) from e


@asynccontextmanager
async def _answered_within(limit: timedelta) -> AsyncIterator[None]:
    """The limit of a call's tries together: refused connections are tried again for ten seconds."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            yield
    except TimeoutError:
        raise RPCError("no answer in time", RPCStatusCode.DEADLINE_EXCEEDED, b"") from None


def _search_attributes(start: BacktestStart) -> TypedSearchAttributes:
    values = {
        "AlphaUserId": str(start.user_id),
        "AlphaAgent": start.agent_name,
        "AlphaAsset": start.asset,
        "AlphaTimeframe": start.timeframe,
        "AlphaMode": start.mode,
        "AlphaStatus": "running",
    }
    pairs: Sequence[SearchAttributePair[Any]] = [
        SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
        for name, value in values.items()
    ]
    return TypedSearchAttributes(pairs)
