"""What a client says on its socket: the same wishes as over REST, and `ping`."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, get_args

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Message
from starlette.websockets import WebSocket

from api.controls import Controls
from api.errors import ApiError
from api.realtime.frames import error_message, own_message
from api.realtime.watcher import Watcher
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


class SocketAbused(Exception):
    """The client sends so much that the socket is closed."""


class BadCommand(Exception):
    """The client sent something that is no command; the message says what is wrong."""


class Commands:
    """Reads one client's messages and carries them out in order."""

    def __init__(self, socket: WebSocket, watcher: Watcher, controls: Controls) -> None:
        self._socket = socket
        self._watcher = watcher
        self._controls = controls
        self._received_at: deque[float] = deque()
        self._actions: Mapping[str, Callable[[Payload], Awaitable[Payload]]] = {
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop,
            "change_speed": self._change_speed,
            "ping": self._ping,
        }

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
        self._watcher.say(own_message("command_ack", {"action": action, **answer}))

    def _complain(self, error_code: str, sentence: str) -> None:
        self._watcher.say(error_message(error_code, sentence))

    async def _pause(self, _: Payload) -> Payload:
        since = await self._controls.pause(self._watcher.user_id, self._watcher.session_id)
        return {"status": "paused", "paused_at": iso_timestamp(since)}

    async def _resume(self, _: Payload) -> Payload:
        await self._controls.resume(self._watcher.user_id, self._watcher.session_id)
        return {"status": "running"}

    async def _stop(self, data: Payload) -> Payload:
        close_position = data.get("close_position", True)
        if not isinstance(close_position, bool):
            raise BadCommand("`close_position` is true or false.")
        stopped = await self._controls.stop(
            self._watcher.user_id, self._watcher.session_id, close_position=close_position
        )
        return {
            "status": stopped.status,
            "result_id": None if stopped.result_id is None else str(stopped.result_id),
            "final_pnl": stopped.final_pnl_pct,
        }

    async def _change_speed(self, data: Payload) -> Payload:
        speed = data.get("speed")
        if speed not in _SPEEDS:
            raise BadCommand(f"`speed` is one of {', '.join(_SPEEDS)}.")
        await self._controls.set_speed(self._watcher.user_id, self._watcher.session_id, speed)
        return {"speed": speed}

    async def _ping(self, _: Payload) -> Payload:
        return {}


def _parse(message: Message) -> tuple[str, Payload]:
    """Return the action and its data, which may also stand at the root."""
    raw = message.get("text") or message.get("bytes") or ""
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
