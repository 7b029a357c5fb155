"""Lets a Temporal client that connects at its first call fail as any other unreachable one does.

The SDK reports a first connection that cannot be made as a RuntimeError, and waits for it as long
as the network does; a connection that was lost later is an RPC error in time.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    QueryWorkflowInput,
    SignalWorkflowInput,
    StartWorkflowInput,
    WorkflowExecutionDescription,
    WorkflowHandle,
)
from temporalio.service import RPCError, RPCStatusCode
from typing_extensions import override

# Longer than any single call may take, for it includes the call.
PATIENCE_S = 10.0


def connecting_late(client: Client) -> Client:
    """Return the same lazy client with its failures translated."""
    config = client.config()
    config["interceptors"] = [*config["interceptors"], _LateConnection()]
    return Client(**config)


class _LateConnection(Interceptor):
    @override
    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    @override
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        with _unreachable():
            async with asyncio.timeout(PATIENCE_S):
                return await super().start_workflow(input)

    @override
    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        with _unreachable():
            async with asyncio.timeout(PATIENCE_S):
                await super().signal_workflow(input)

    @override
    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        with _unreachable():
            async with asyncio.timeout(PATIENCE_S):
                return await super().query_workflow(input)

    @override
    async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:
        with _unreachable():
            async with asyncio.timeout(PATIENCE_S):
                return await super().describe_workflow(input)


@contextmanager
def _unreachable() -> Generator[None]:
    try:
        yield
    except (RuntimeError, TimeoutError) as e:
        raise RPCError("Temporal cannot be reached", RPCStatusCode.UNAVAILABLE, b"") from e
