"""Where workflows meet the outside: the client's wiring, and what the API may ask of a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar
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
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.exceptions import TemporalError
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from activities.certificates import Issued
from activities.failures import INTERNAL_FAILURE
from activities.prices import Touch
from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.failures import application_error
from workflows.forward_test import ForwardTestWorkflow
from workflows.messages import (
    CertificateParams,
    Control,
    ExportParams,
    FeedParams,
    Progress,
    SessionParams,
    SessionResult,
)
from workflows.payload_codec import AesGcmCodec
from workflows.payload_converter import DATA_CONVERTER
from workflows.price_feed import PriceFeedWorkflow
from workflows.session_run import SessionRun

# A page load does not wait for a worker that is down.
QUERY_TIMEOUT = timedelta(seconds=2)
CALL_TIMEOUT = timedelta(seconds=5)

SessionType = Literal["backtest", "forward"]

_RUNS: Mapping[SessionType, Callable[..., Awaitable[SessionResult]]] = MappingProxyType(
    {"backtest": BacktestWorkflow.run, "forward": ForwardTestWorkflow.run}
)
_CLOSED_OR_UNKNOWN = RPCStatusCode.NOT_FOUND
_RUNNING_TESTS = "ExecutionStatus = 'Running' AND WorkflowType IN ('backtest', 'forward_test')"
_OPEN = {WorkflowExecutionStatus.RUNNING}


class WorkflowFinished(Exception):
    """The test has ended: it takes no more signals."""


class CertificateRefused(Exception):
    """A result that gets no certificate; `code` is in the vocabulary of `activities.failures`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TemporalUnreachable(ConnectionError):
    """Temporal did not answer; nothing is known of the test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart:
    """A test to start, and what operators see of it without opening a payload."""

    session_id: UUID
    user_id: UUID
    agent_name: str
    asset: str
    timeframe: str
    mode: str
    type: SessionType = "backtest"
    load_candles: bool = False


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
    @property
    def type(self) -> SessionType: ...
    @property
    def data_set_id(self) -> UUID | None: ...


Listable = TypeVar("Listable", bound=StartableSession)


class StartableExport(Protocol):
    """An export's row, as far as a start needs it."""

    @property
    def id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def format(self) -> str: ...


def export_workflow_id(export_id: UUID) -> str:
    return f"export-{export_id}"


def certificate_workflow_id(result_id: UUID) -> str:
    return f"certificate-{result_id}"


def workflow_id(session_id: UUID, type: SessionType = "backtest") -> str:
    return f"{type}-{session_id}"


def data_converter(payload_keys: str | None = None) -> DataConverter:
    """The one data converter of clients, workers and replays; sealed when keys are given."""
    if not payload_keys:
        return DATA_CONVERTER
    return replace(
        DATA_CONVERTER,
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
    runtime: Runtime | None = None,
) -> Client:
    """Connect to Temporal; a lazy client connects at its first call, which is for the API only."""
    return await Client.connect(
        address,
        namespace=namespace,
        data_converter=data_converter(payload_keys),
        api_key=api_key,
        tls=tls or api_key is not None,
        lazy=lazy,
        runtime=runtime,
    )


class Temporal:
    """Starts tests, signals them, asks them."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def start(self, start: SessionStart, *, stop: Control | None = None) -> None:
        """Start the workflow of a session whose row is committed; safe to repeat.

        With a `stop`, it is told to stop as well, in the same call, and also when it runs already.
        Raises `TemporalUnreachable`; the session is then started later, by reconciliation.
        """
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._client.start_workflow(
                    _RUNS[start.type],
                    _params(start),
                    id=workflow_id(start.session_id, start.type),
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    search_attributes=_search_attributes(start),
                    start_signal=None if stop is None else "stop",
                    start_signal_args=[] if stop is None else [stop],
                    static_summary=f"{start.agent_name} on {start.asset} {start.timeframe}",
                    priority=Priority(fairness_key=str(start.user_id)),
                    rpc_timeout=CALL_TIMEOUT,
                )
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e

    async def signal_pause(
        self, session_id: UUID, signal_id: str, type: SessionType = "backtest"
    ) -> None:
        control = Control(signal_id=signal_id)
        await self._signal(workflow_id(session_id, type), SessionRun.pause, control)

    async def signal_resume(
        self, session_id: UUID, signal_id: str, type: SessionType = "backtest"
    ) -> None:
        control = Control(signal_id=signal_id)
        await self._signal(workflow_id(session_id, type), SessionRun.resume, control)

    async def signal_speed(self, session_id: UUID, signal_id: str, speed: str) -> None:
        control = Control(signal_id=signal_id, speed=speed)
        await self._signal(workflow_id(session_id), BacktestWorkflow.set_speed, control)

    async def signal_stop(
        self,
        session_id: UUID,
        signal_id: str,
        close_position: bool,
        type: SessionType = "backtest",
    ) -> None:
        control = Control(signal_id=signal_id, close_position=close_position)
        await self._signal(workflow_id(session_id, type), SessionRun.stop, control)

    async def progress(self, session_id: UUID, type: SessionType = "backtest") -> Progress | None:
        """Where the test stands by its own account; None when no worker answers for it."""
        try:
            async with _answered_within(QUERY_TIMEOUT):
                return await self._handle(workflow_id(session_id, type)).query(
                    SessionRun.progress, rpc_timeout=QUERY_TIMEOUT
                )
        except (RPCError, WorkflowQueryFailedError):
            return None

    async def wait_result(
        self, session_id: UUID, timeout: timedelta, type: SessionType = "backtest"
    ) -> SessionResult | None:
        """The test's result, waited for at most that long; None when it runs on or has failed.

        Raises `WorkflowFinished` when Temporal knows no such workflow.
        """
        try:
            return await self._handle(workflow_id(session_id, type)).result(rpc_timeout=timeout)
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                raise WorkflowFinished(str(session_id)) from e
            return None
        except WorkflowFailureError:
            return None

    async def is_running(self, session_id: UUID, type: SessionType = "backtest") -> bool:
        """Whether Temporal has an open workflow for the session. Raises `TemporalUnreachable`."""
        return await self._is_open(workflow_id(session_id, type))

    async def unlisted(self, sessions: Sequence[Listable]) -> Sequence[Listable]:
        """Those without an open workflow in Temporal's listing, which is a moment behind.

        Raises `TemporalUnreachable`.
        """
        query = f"{_RUNNING_TESTS} AND TaskQueue = '{self._task_queue}'"
        try:
            async with _answered_within(CALL_TIMEOUT):
                found = self._client.list_workflows(query, rpc_timeout=CALL_TIMEOUT)
                listed = {each.id async for each in found}
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e
        return [each for each in sessions if workflow_id(each.id, each.type) not in listed]

    async def start_again(self, session: StartableSession) -> None:
        """Start a session's workflow from its row. Raises `TemporalUnreachable`."""
        await self.start(_start_of(session))

    async def stop_for_good(self, session: StartableSession) -> None:
        """Stop the test of a user who was deactivated; safe to repeat, and needs no workflow yet.

        Raises `TemporalUnreachable`.
        """
        await self.start(_start_of(session), stop=Control(signal_id="deactivated"))

    async def want(self, source: str, asset: str) -> None:
        """Keep the asset's price feed going. Raises `TemporalUnreachable`."""
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._client.start_workflow(
                    PriceFeedWorkflow.run,
                    FeedParams(asset=asset),
                    id=f"prices-{source}-{asset}",
                    task_queue=self._task_queue,
                    start_signal="want",
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    static_summary=f"{asset} at {source}",
                    rpc_timeout=CALL_TIMEOUT,
                )
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e

    async def touched(self, session_id: UUID, touch: Touch) -> None:
        """Tell a forward test that a level of its position was reached.

        Raises `TemporalUnreachable`; a test that has ended needs no telling.
        """
        try:
            async with _answered_within(CALL_TIMEOUT):
                handle = self._handle(workflow_id(session_id, "forward"))
                await handle.signal(ForwardTestWorkflow.touched, touch, rpc_timeout=CALL_TIMEOUT)
        except RPCError as e:
            if e.status != _CLOSED_OR_UNKNOWN:
                raise TemporalUnreachable(e.status.name) from e

    async def start_export(self, export: StartableExport) -> None:
        """Start the workflow of an export whose row is committed; safe to repeat.

        Raises `TemporalUnreachable`; the export is then started later, by reconciliation.
        """
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._client.start_workflow(
                    ExportWorkflow.run,
                    ExportParams(export_id=str(export.id), user_id=str(export.user_id)),
                    id=export_workflow_id(export.id),
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    search_attributes=_keywords({"AlphaUserId": str(export.user_id)}),
                    static_summary=f"{export.format} of an account",
                    priority=Priority(fairness_key=str(export.user_id)),
                    rpc_timeout=CALL_TIMEOUT,
                )
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e

    async def is_export_running(self, export_id: UUID) -> bool:
        """Whether Temporal has an open workflow for the export. Raises `TemporalUnreachable`."""
        return await self._is_open(export_workflow_id(export_id))

    async def export_advanced(self, export_id: UUID, progress_pct: float) -> None:
        """Tell an export's workflow how far it is; one that has ended needs no telling.

        Raises `TemporalUnreachable`.
        """
        try:
            async with _answered_within(CALL_TIMEOUT):
                handle = self._client.get_workflow_handle(export_workflow_id(export_id))
                await handle.signal(ExportWorkflow.advanced, progress_pct, rpc_timeout=CALL_TIMEOUT)
        except RPCError as e:
            if e.status != _CLOSED_OR_UNKNOWN:
                raise TemporalUnreachable(e.status.name) from e

    async def certify(
        self, result_id: UUID, user_id: UUID, timeout: timedelta, *, includes_reasoning: bool
    ) -> Issued | None:
        """Issue a result's certificate; None where that takes longer, and goes on without us.

        Raises `CertificateRefused`, and `TemporalUnreachable`.
        """
        params = CertificateParams(
            result_id=str(result_id), user_id=str(user_id), includes_reasoning=includes_reasoning
        )
        try:
            async with _answered_within(CALL_TIMEOUT):
                handle = await self._client.start_workflow(
                    CertificateWorkflow.run,
                    params,
                    id=certificate_workflow_id(result_id),
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    search_attributes=_keywords({"AlphaUserId": str(user_id)}),
                    static_summary=f"certificate of {result_id}",
                    priority=Priority(fairness_key=str(user_id)),
                    rpc_timeout=CALL_TIMEOUT,
                )
        except RPCError as e:
            raise TemporalUnreachable(e.status.name) from e
        try:
            # A limit of one call alone would not do: a result is asked for again and again.
            async with _answered_within(timeout):
                return await handle.result(rpc_timeout=timeout)
        except RPCError:
            return None
        except WorkflowFailureError as e:
            raise _refusal(e) from None

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

    async def _is_open(self, id: str) -> bool:
        try:
            async with _answered_within(CALL_TIMEOUT):
                description = await self._client.get_workflow_handle(id).describe(
                    rpc_timeout=CALL_TIMEOUT
                )
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                return False
            raise TemporalUnreachable(e.status.name) from e
        return description.status in _OPEN

    def _handle(self, id: str) -> WorkflowHandle[Any, SessionResult]:
        return self._client.get_workflow_handle(id, result_type=SessionResult)

    async def _signal(self, id: str, signal: Any, control: Control) -> None:
        try:
            async with _answered_within(CALL_TIMEOUT):
                await self._handle(id).signal(signal, control, rpc_timeout=CALL_TIMEOUT)
        except RPCError as e:
            if e.status == _CLOSED_OR_UNKNOWN:
                raise WorkflowFinished(id) from e
            raise TemporalUnreachable(e.status.name) from e


@asynccontextmanager
async def _answered_within(limit: timedelta) -> AsyncIterator[None]:
    """The limit of a call's tries together: refused connections are tried again for ten seconds."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            yield
    except TimeoutError:
        raise RPCError("no answer in time", RPCStatusCode.DEADLINE_EXCEEDED, b"") from None


def _refusal(failure: WorkflowFailureError) -> CertificateRefused:
    cause = application_error(failure)
    if cause is None:
        return CertificateRefused("INTERRUPTED", "The certificate was not finished: try again.")
    return CertificateRefused(cause.type or INTERNAL_FAILURE, cause.message)


def _start_of(session: StartableSession) -> SessionStart:
    return SessionStart(
        session_id=session.id,
        user_id=session.user_id,
        agent_name=session.agent_name,
        asset=session.asset,
        timeframe=session.timeframe,
        mode=session.mode,
        type=session.type,
        load_candles=session.type == "backtest" and session.data_set_id is None,
    )


def _params(start: SessionStart) -> SessionParams:
    return SessionParams(
        session_id=str(start.session_id),
        user_id=str(start.user_id),
        load_candles=start.load_candles,
    )


def _search_attributes(start: SessionStart) -> TypedSearchAttributes:
    return _keywords(
        {
            "AlphaUserId": str(start.user_id),
            "AlphaAgent": start.agent_name,
            "AlphaAsset": start.asset,
            "AlphaTimeframe": start.timeframe,
            "AlphaMode": start.mode,
            "AlphaStatus": "running",
        }
    )


def _keywords(values: Mapping[str, str]) -> TypedSearchAttributes:
    pairs: Sequence[SearchAttributePair[Any]] = [
        SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
        for name, value in values.items()
    ]
    return TypedSearchAttributes(pairs)
