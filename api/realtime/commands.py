"""What a client says on its socket: the same wishes as over REST, and `ping`."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any, get_args
from uuid import UUID

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Message
from starlette.websockets import WebSocket
from typing_extensions import TypedDict

from api.controls import Controls
from api.errors import ApiError
from api.realtime.frames import error_message, own_message
from events.shapes import ActionAnswer, CommandAck
from events.types import iso_timestamp
from integrations.errors import IntegrationError
from workflows.policies import Speed

MAX_FRAME_BYTES = 16 * 1024
COMMANDS_PER_SECOND = 10
ABUSE_PER_SECOND = 50
RATE_LIMITED = 4010

_SPEEDS: tuple[str, ...] = get_args(Speed)

_logger = structlog.get_logger(__name__)

Payload = Mapping[str, Any]
Action = Callable[[Payload], Awaitable[ActionAnswer]]


class SocketAbused(Exception):
    """The client sends so much that the socket is closed."""


class BadCommand(Exception):
    """The client sent something that is no command; the message says what is wrong."""


class Commands:
    """Reads one client's messages and carries them out in order; answers go to `say`.

    Every socket knows `ping` and `pong`, and what else is among its `actions`.
    """

    def __init__(
        self, socket: WebSocket, say: Callable[[str], None], actions: Mapping[str, Action]
    ) -> None:
        self._socket = socket
        self._say = say
        self._actions = {"ping": _ping, **actions}
        self._received_at: deque[float] = deque()

    async def run(self) -> None:
        """Serve until the client goes away. Raises SocketAbused."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if self._count() > COMMANDS_PER_SECOND:
                self._complain("RATE_LIMITED", "At most 10 messages a second.")
            else:
                await self._serve(message)

    def _count(self) -> int:
        """Count what came within the last second, this message included."""
        now = monotonic()
        self._received_at.append(now)
        while self._received_at[0] <= now - 1.0:
            self._received_at.popleft()
        if len(self._received_at) >= ABUSE_PER_SECOND:
            raise SocketAbused
        return len(self._received_at)

    async def _serve(self, message: Message) -> None:
        try:
            action, data = _parse(message)
            if action != "pong":
                await self._carry_out(action, data)
        except BadCommand as e:
            self._complain("INVALID_COMMAND", str(e))
        except HTTPException as e:
            self._complain(_code(e), str(e.detail))
        except IntegrationError as e:
            self._complain("UPSTREAM_UNAVAILABLE", str(e))
        except (SQLAlchemyError, OSError) as e:
            _logger.warning("command_failed", error=type(e).__name__)
            self._complain("UPSTREAM_UNAVAILABLE", "A service we depend on does not answer.")

    async def _carry_out(self, action: str, data: Payload) -> None:
        if action not in self._actions:
            raise BadCommand(f"There is no action {action[:40]!r}.")
        answer = await self._actions[action](data)
        ack: CommandAck = {"action": action, **answer}
        self._say(own_message("command_ack", ack))

    def _complain(self, error_code: str, sentence: str) -> None:
        self._say(error_message(error_code, sentence))


class StopData(TypedDict, total=False):
    """How a test is stopped: with its position closed, unless told otherwise."""

    close_position: bool


class SpeedData(TypedDict):
    """How fast a test goes on."""

    speed: Speed


# What each action takes; `ping` and `pong` are understood by every socket.
SOCKET_ACTIONS: Mapping[str, type | None] = MappingProxyType({"ping": None, "pong": None})
SESSION_ACTIONS: Mapping[str, type | None] = MappingProxyType(
    {"pause": None, "resume": None, "stop": StopData, "change_speed": SpeedData}
)


class SessionActions:
    """What the owner of a session may wish for on its socket."""

    def __init__(self, controls: Controls, *, user_id: UUID, session_id: UUID) -> None:
        self._controls = controls
        self._user_id = user_id
        self._session_id = session_id
        self.by_name: Mapping[str, Action] = MappingProxyType(
            {
                "pause": self._pause,
                "resume": self._resume,
                "stop": self._stop,
                "change_speed": self._change_speed,
            }
        )

    async def _pause(self, _: Payload) -> ActionAnswer:
        since = await self._controls.pause(self._user_id, self._session_id)
        return {"status": "paused", "paused_at": iso_timestamp(since)}

    async def _resume(self, _: Payload) -> ActionAnswer:
        await self._controls.resume(self._user_id, self._session_id)
        return {"status": "running"}

    async def _stop(self, data: Payload) -> ActionAnswer:
        close_position = data.get("close_position", True)
        if not isinstance(close_position, bool):
            raise BadCommand("`close_position` is true or false.")
        stopped = await self._controls.stop(
            self._user_id, self._session_id, close_position=close_position
        )
        return {
            "status": stopped.status,
            "result_id": None if stopped.result_id is None else str(stopped.result_id),
            "final_pnl": stopped.final_pnl_pct,
        }

    async def _change_speed(self, data: Payload) -> ActionAnswer:
        speed = data.get("speed")
        if speed not in _SPEEDS:
            raise BadCommand(f"`speed` is one of {', '.join(_SPEEDS)}.")
        await self._controls.set_speed(self._user_id, self._session_id, speed)
        return {"speed": speed}


async def _ping(_: Payload) -> ActionAnswer:
    return {}


def _parse(message: Message) -> tuple[str, Payload]:
    """Return the action and its data, which may also stand at the root."""
    text = message.get("text")
    raw = (message.get("bytes") or b"") if text is None else text.encode()
    if len(raw) > MAX_FRAME_BYTES:
        raise BadCommand("A message may have 16 KiB.")
    try:
        command = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadCommand("A message is a JSON object.") from None
    if not isinstance(command, dict) or not isinstance(command.get("action"), str):
        raise BadCommand("A message is a JSON object with an `action`.")
    data = command.get("data")
    return command["action"], {**command, **(data if isinstance(data, dict) else {})}


def _code(error: HTTPException) -> str:
    return error.error_code if isinstance(error, ApiError) else "INTERNAL_ERROR"
