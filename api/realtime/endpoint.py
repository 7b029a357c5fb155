"""The WebSocket of a session: admitted before it is accepted, then events out and commands in."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket

from api.dependencies import Services, services_of, sign_in
from api.errors import UNREACHABLE, ApiError, Invalid, NotFound, Unauthorized, unavailable
from api.realtime.commands import Action, Commands, SessionActions
from api.realtime.conversation import SUBPROTOCOL, converse, refuse, subprotocol_of
from api.realtime.market_view import MarketView
from api.realtime.opening import FINISHED, Opening
from api.realtime.relay import TooManyWatchers
from api.realtime.watcher import Watcher
from db.models.sessions import SessionRecord
from db.repositories.sessions import SessionRepository

_LONGEST_SEQ = 19


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
            await socket.accept(subprotocol=subprotocol_of(socket))
            opening = Opening(watcher, services.relay.backlog, session)
            async with _seeing_the_market(services, watcher, session):
                commands = Commands(socket, watcher.say, _actions(services, watcher))
                await converse(
                    socket, _talk(opening, watcher), commands.run(), watcher.until_cut_off()
                )
    except TooManyWatchers:
        await refuse(socket, ApiError(429, "RATE_LIMITED", "Too many connections to this test."))
    except HTTPException as e:
        await refuse(socket, e)
    except UNREACHABLE as e:
        await refuse(socket, unavailable(e))


async def _talk(opening: Opening, watcher: Watcher) -> None:
    await opening.send()
    await watcher.run()


def _actions(services: Services, watcher: Watcher) -> Mapping[str, Action]:
    return SessionActions(
        services.controls, user_id=watcher.user_id, session_id=watcher.session_id
    ).by_name


@asynccontextmanager
async def _seeing_the_market(
    services: Services, watcher: Watcher, session: SessionRecord
) -> AsyncIterator[None]:
    """Show the price of a forward test's asset too, unless the test is over."""
    if session.type != "forward" or session.status in FINISHED:
        yield
        return
    watcher.look_on(MarketView(session))
    async with services.relay.prices.attached(session.asset, watcher):
        yield


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
