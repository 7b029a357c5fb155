"""How the demo talks to the stack: REST and one WebSocket, as any front end does."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

Json = dict[str, Any]
Frame = Json

# A child of the stack that died is back within seconds; the demo sits that out.
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 60.0
FINISHED = 1000
CONNECTION_LOST: Frame = {"event": "connection_lost", "data": {}}


class DemoFailed(RuntimeError):
    """Why the demo cannot go on, in one sentence for the person who watches."""


class ApiClient:
    """A signed-in user of the API, who waits where it is away for a moment, and says so."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        api_url: str,
        token: str,
        on_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._http = http
        self._api_url = api_url
        self._token = token
        self._on_waiting = on_waiting

    async def get(self, path: str, **query: str | int) -> Json:
        """The body of a 2xx. Raises `DemoFailed`, as all of these do."""
        return await self._call("GET", path, params=query)

    async def download(self, path: str) -> bytes:
        return (await self._answer("GET", path)).content

    async def post(self, path: str, body: Json | None = None) -> Json:
        return await self._call("POST", path, json=body)

    async def put(self, path: str, body: Json) -> Json:
        return await self._call("PUT", path, json=body)

    async def upload(
        self, path: str, *, name: str, content: bytes, fields: Mapping[str, str]
    ) -> Json:
        return await self._call("POST", path, files={"file": (name, content)}, data=dict(fields))

    async def watch(self, type: str, session_id: str) -> AsyncGenerator[Frame]:
        """Everything that happens in a test, to its end, over as many sockets as it takes.

        Each numbered event comes once and in order: a new socket goes on after the last number.
        `CONNECTION_LOST` says that there is none at the moment.
        """
        path, last_seq = f"/ws/{type}/{session_id}", 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            async with aclosing(self._one_socket(path, last_seq)) as frames:
                async for frame in frames:
                    last_seq = frame.get("seq", last_seq)
                    deadline = time.monotonic() + PATIENCE_SECONDS
                    if frame["event"] == "closed":
                        return
                    yield frame
            yield CONNECTION_LOST
            await asyncio.sleep(RETRY_SECONDS)
        raise _away(self._api_url)

    async def _one_socket(self, path: str, last_seq: int) -> AsyncGenerator[Frame]:
        """What one connection brings; the last frame is `closed` when nothing more will come."""
        address = f"{self._api_url.replace('http', 'ws', 1)}{path}"
        try:
            async with connect(
                f"{address}?last_seq={last_seq}",
                # Keeps the token out of access logs.
                subprotocols=[Subprotocol("alphalab"), Subprotocol(self._token)],
                compression=None,
                proxy=None,
            ) as socket:
                async for frame in _frames(socket):
                    yield frame
        except InvalidStatus as refusal:
            if refusal.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise DemoFailed(_refusal_of(refusal)) from None
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError, TimeoutError):
            return

    async def _call(self, method: str, path: str, **content: Any) -> Json:
        body: Json = (await self._answer(method, path, **content)).json()
        return body

    async def _answer(self, method: str, path: str, **content: Any) -> httpx.Response:
        answer = await self._ask(method, path, **content)
        if answer is None:
            self._on_waiting()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while answer is None:
            if time.monotonic() > deadline:
                raise _away(self._api_url)
            await asyncio.sleep(RETRY_SECONDS)
            answer = await self._ask(method, path, **content)
        if not answer.is_success:
            raise DemoFailed(_sentence(answer.status_code, _body(answer)))
        return answer

    async def _ask(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The answer, or None where asking again is both safe and sensible."""
        try:
            answer = await self._http.request(
                method,
                f"{self._api_url}{path}",
                headers={"Authorization": f"Bearer {self._token}"},
                **content,
            )
        except httpx.ConnectError:
            return None
        except httpx.TransportError as error:
            if method != "GET":
                raise DemoFailed(f"{method} {path}: the connection to the API broke.") from error
            return None
        is_away = answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        return None if is_away and method == "GET" else answer


async def _frames(socket: ClientConnection) -> AsyncGenerator[Frame]:
    async for message in socket:
        yield orjson.loads(message)
    if socket.close_code == FINISHED:
        yield {"event": "closed", "data": {}}


def _body(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _refusal_of(refusal: InvalidStatus) -> str:
    try:
        body = orjson.loads(refusal.response.body or b"")
    except orjson.JSONDecodeError:
        body = {}
    return _sentence(refusal.response.status_code, body)


def _sentence(status: int, body: object) -> str:
    """What the API says is wrong; a 422 names the fields as well."""
    if not isinstance(body, dict) or not body.get("detail"):
        return f"The API answered {status}."
    fields = [f"{each['loc'][-1]}: {each['msg']}" for each in body.get("errors") or []]
    detail = str(body["detail"])
    return detail if not fields else f"{detail.removesuffix('.')} ({'; '.join(fields)})."


def _away(api_url: str) -> DemoFailed:
    return DemoFailed(
        f"The API at {api_url} did not answer for {PATIENCE_SECONDS:.0f} s: "
        "`alphalab doctor` says what is wrong."
    )
