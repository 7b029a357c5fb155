"""Prepares Temporal: the namespace of the tests and the search attributes operators see.

As often as wanted: what exists stays as it is.
"""

import asyncio
import time
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient

# How long a finished test can still be looked into; Temporal's own default is a day.
RETENTION = timedelta(days=90)
SEARCH_ATTRIBUTES = {
    "AlphaUserId": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaAgent": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaAsset": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaTimeframe": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaMode": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaStatus": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "AlphaPnlPct": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
}
CALL_TIMEOUT = timedelta(seconds=10)
# Every frontend and history host learns of a new namespace from its own cache.
VISIBLE_WITHIN_SECONDS = 30.0
POLL_SECONDS = 0.05


class TemporalNotReached(Exception):
    """Nothing that speaks Temporal answers at the address."""


async def upgrade_namespace(
    address: str, namespace: str, *, api_key: str | None = None, tls: bool = False
) -> None:
    """Create what is missing of the namespace and its search attributes.

    Raises `TemporalNotReached`, and `RPCError` when Temporal refuses.
    """
    config = ConnectConfig(target_host=address, api_key=api_key, tls=tls or api_key is not None)
    try:
        service = await ServiceClient.connect(config)
    except RuntimeError as error:
        raise TemporalNotReached(f"Temporal does not answer at {address}: {error}") from error
    await _ensure_namespace(service, namespace)
    await _ensure_search_attributes(service, namespace)


async def _ensure_namespace(service: ServiceClient, namespace: str) -> None:
    try:
        await service.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=CALL_TIMEOUT
        )
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        await _register(service, namespace)


async def _register(service: ServiceClient, namespace: str) -> None:
    retention = Duration()
    retention.FromTimedelta(RETENTION)
    request = RegisterNamespaceRequest(
        namespace=namespace, workflow_execution_retention_period=retention
    )
    try:
        await service.workflow_service.register_namespace(request, timeout=CALL_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.ALREADY_EXISTS:  # another `migrate` was quicker
            raise


async def _ensure_search_attributes(service: ServiceClient, namespace: str) -> None:
    known = await _search_attributes(service, namespace)
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in known}
    if missing:
        request = AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
        await service.operator_service.add_search_attributes(request, timeout=CALL_TIMEOUT)


async def _search_attributes(service: ServiceClient, namespace: str) -> set[str]:
    """The names of the namespace's own search attributes, as soon as it is known everywhere."""
    request = ListSearchAttributesRequest(namespace=namespace)
    deadline = time.monotonic() + VISIBLE_WITHIN_SECONDS
    while True:
        try:
            answer = await service.operator_service.list_search_attributes(
                request, timeout=CALL_TIMEOUT
            )
            return set(answer.custom_attributes)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)
