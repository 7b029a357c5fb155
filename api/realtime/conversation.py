"""What all sockets have in common: refused before they are accepted, or talked with to the end."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.errors import error_response
from api.realtime.commands import RATE_LIMITED, SocketAbused
from api.realtime.endings import end_tasks
from api.realtime.watcher import Deactivated

SUBPROTOCOL = "alphalab"
DEACTIVATED = 4001
SERVER_ERROR = 4500

# What a refusal closes with for clients that ask to be accepted first.
_SPEC_CLOSE_CODES = {401: 4001, 403: 4003, 404: 4004, 429: 4005}

_logger = structlog.get_logger(__name__)


async def converse(socket: WebSocket, *parts: Coroutine[Any, Any, None]) -> None:
    """Talk and listen until any part ends."""
    tasks = {asyncio.create_task(part) for part in parts}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)
    for task in tasks:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, Exception):
            with suppress(WebSocketDisconnect):
                await _end(socket, failure)


async def refuse(socket: WebSocket, error: HTTPException) -> None:
    """Refuse before accepting; after it only for clients that ask to be told so."""
    if _wants_close_codes(socket):
        await socket.accept(subprotocol=subprotocol_of(socket))
        code = _SPEC_CLOSE_CODES.get(error.status_code, SERVER_ERROR)
        await socket.close(code, str(error.detail))
        return
    await socket.send_denial_response(error_response(error, uuid4().hex))


def subprotocol_of(socket: WebSocket) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", []) else None


async def _end(socket: WebSocket, failure: Exception) -> None:
    if isinstance(failure, WebSocketDisconnect):
        return
    if isinstance(failure, SocketAbused):
        await socket.close(RATE_LIMITED, "too many messages")
        return
    if isinstance(failure, Deactivated):
        await socket.close(DEACTIVATED, "the account was deactivated")
        return
    _logger.error("socket_failed", exc_info=failure)
    await socket.close(SERVER_ERROR, "something went wrong on our side")


def _wants_close_codes(socket: WebSocket) -> bool:
    headers: Headers = socket.headers
    given = socket.query_params.get("close_codes") or headers.get("close_codes")
    return (given or headers.get("close-codes")) == "spec"
