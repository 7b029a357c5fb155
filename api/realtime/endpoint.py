"""The WebSocket of a session: admitted before it is accepted, then events out and commands in."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.dependencies import Services, services_of, sign_in
from api.errors import (
    UNREACHABLE,
    ApiError,
    Invalid,
    NotFound,
    Unauthorized,
    error_response,
    unavailable,
)
from api.realtime.commands import RATE_LIMITED, Commands, SocketAbused
from api.realtime.opening import Opening
from api.realtime.relay import TooManyWatchers
from api.realtime.watcher import Watcher
from db.models.sessions import SessionRecord
from db.repositories.sessions import SessionRepository

SUBPROTOCOL = "alphalab"
SERVER_ERROR = 4500

_LONGEST_SEQ = 19

# What a refusal closes with for clients that ask to be accepted first.
_SPEC_CLOSE_CODES = {401: 4001, 403: 4003, 404: 4004, 429: 4005}

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who watches which session, from where on."""

    user_id: UUID
    session: SessionRecord
    last_seq: int | None


async def watch_session(socket: WebSocket, session_id: str, session_type: str) -> None:
    """Serve one socket from its handshake to its end."""
    services = services_of(socket)
    try:
        admission = await _admit(socket, services, session_id, session_type)
        watcher = Watcher(
            socket,
            services.relay.backlog,
            user_id=admission.user_id,
            session_id=admission.session.id,
            last_seq=admission.last_seq,
            stall_limit_s=services.config.socket_stall_limit_s,
        )
        async with services.relay.attached(watcher):
            # Read after subscribing: whatever is not in this row will be heard.
            session = await _find_session(services, admission.user_id, session_id, session_type)
            await socket.accept(subprotocol=_subprotocol(socket))
            opening = Opening(watcher, services.relay.backlog, session)
            commands = Commands(socket, watcher, services.controls)
            await _converse(socket, watcher, opening, commands)
    except TooManyWatchers:
        await _refuse(socket, ApiError(429, "RATE_LIMITED", "Too many connections to this test."))
    except HTTPException as e:
        await _refuse(socket, e)
    except UNREACHABLE as e:
        await _refuse(socket, unavailable(e))


async def _converse(
    socket: WebSocket, watcher: Watcher, opening: Opening, commands: Commands
) -> None:
    """Talk and listen until either ends."""
    talking = asyncio.create_task(_talk(opening, watcher))
    listening = asyncio.create_task(commands.run())
    both = {talking, listening}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        outcomes = await asyncio.gather(*both, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            with suppress(WebSocketDisconnect):
                await _end(socket, outcome)


async def _talk(opening: Opening, watcher: Watcher) -> None:
    await opening.send()
    await watcher.run()


async def _end(socket: WebSocket, failure: Exception) -> None:
    if isinstance(failure, WebSocketDisconnect):
        return
    if isinstance(failure, SocketAbused):
        await socket.close(RATE_LIMITED, "too many messages")
        return
    _logger.error("socket_failed", exc_info=failure)
    await socket.close(SERVER_ERROR, "something went wrong on our side")


async def _admit(
    socket: WebSocket, services: Services, session_id: str, session_type: str
) -> Admission:
    """Raise an ApiError unless the token's user owns the session."""
    user = await sign_in(services, _token(socket))
    session = await _find_session(services, user.id, session_id, session_type)
    return Admission(user_id=user.id, session=session, last_seq=_last_seq(socket))


async def _find_session(
    services: Services, user_id: UUID, session_id: str, session_type: str
) -> SessionRecord:
    try:
        wanted = UUID(session_id)
    except ValueError:
        raise NotFound("session") from None
    async with services.database.for_user(user_id) as session:
        found = await SessionRepository(session).get(wanted)
    if found is None or found.type != session_type:
        raise NotFound("session")
    return found


def _token(socket: WebSocket) -> str:
    protocols = socket.scope.get("subprotocols", [])
    if len(protocols) > 1 and protocols[0] == SUBPROTOCOL:
        return str(protocols[1])
    token = socket.query_params.get("token")
    if not token:
        raise Unauthorized("Give a session token as `token` or as a subprotocol.")
    return token


def _last_seq(socket: WebSocket) -> int | None:
    given = socket.query_params.get("last_seq")
    if given is None or given == "":
        return None
    if not (given.isascii() and given.isdigit() and len(given) < _LONGEST_SEQ):
        raise Invalid("last_seq: the number of the last event received", ["query", "last_seq"])
    return int(given)


def _subprotocol(socket: WebSocket) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", []) else None


async def _refuse(socket: WebSocket, error: HTTPException) -> None:
    """Refuse before accepting; after it only for clients that ask to be told so."""
    if _wants_close_codes(socket):
        await socket.accept(subprotocol=_subprotocol(socket))
        code = _SPEC_CLOSE_CODES.get(error.status_code, SERVER_ERROR)
        await socket.close(code, str(error.detail))
        return
    await socket.send_denial_response(error_response(error, uuid4().hex))


def _wants_close_codes(socket: WebSocket) -> bool:
    headers: Headers = socket.headers
    given = socket.query_params.get("close_codes") or headers.get("close_codes")
    return (given or headers.get("close-codes")) == "spec"
