"""A client that believes nothing: each answer and each event is held against the contract.

What does not fit is noted, so that one walk tells all of it.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.contract.rest import CONTRACT, ERROR, INVALID, NOT_YET
from tests.contract.sockets import ENVELOPE, EVENTS, NEVER_NUMBERED
from tests.contract.words import check, decode, problems_of

Frame = dict[str, Any]

_PARAMETER = re.compile(r"\{[^}]+\}")
_METHODS = ("get", "post", "put", "delete", "patch")


def operations_of(document: Mapping[str, Any]) -> set[str]:
    """Every operation of an OpenAPI document, as the contract's table writes it."""
    return {
        f"{method.upper()} {_PARAMETER.sub('{}', path)}"
        for path, operations in document["paths"].items()
        for method in operations
        if method in _METHODS
    }


@dataclass(slots=True)
class Walker:
    """Makes calls and notes which operations went well."""

    http: httpx.AsyncClient
    operations: set[str]
    walked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    async def call(self, operation: str, *ids: str, **options: Any) -> Any:
        """Make the call, note what is wrong with its answer, and return it.

        None is the answer to a call that the server does not have yet.
        """
        promise = CONTRACT[operation]
        if operation in NOT_YET:
            return None
        answer = await self._request(operation, *ids, **options)
        assert answer.status_code in promise.statuses, f"{operation}: {answer.text[:500]}"
        self.note(operation)
        schema = promise.schema_of(answer.status_code)
        if schema is None:
            return answer
        body = decode(answer.content)
        self.problems += problems_of(schema, body, operation)
        return body

    async def refused(self, operation: str, status: int, *ids: str, **options: Any) -> Any:
        """Make a call that must fail with `status` in the one shape of errors."""
        answer = await self._request(operation, *ids, **options)
        assert answer.status_code == status, f"{operation}: {answer.status_code} {answer.text}"
        body = decode(answer.content)
        check(INVALID if status == 422 else ERROR, body, f"{operation} {status}")
        assert body["status_code"] == status
        return body

    def note(self, operation: str) -> None:
        if operation not in self.walked:
            self.walked.append(operation)

    async def _request(self, operation: str, *ids: str, **options: Any) -> httpx.Response:
        method, path = operation.split()
        for each in ids:
            path = path.replace("{}", each, 1)
        assert "{}" not in path, f"{operation} needs an id"
        return await self.http.request(method, path, **options)


@dataclass(slots=True)
class Listener:
    """One socket, and every frame it was sent, checked as it came."""

    frames: list[Frame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    close_code: int | None = None

    def take(self, text: str | bytes) -> Frame:
        frame: Frame = decode(text)
        self.problems += problems_of(ENVELOPE, frame, "envelope")
        name = frame["event"]
        assert name in EVENTS, f"an event that the contract does not know: {name}"
        self.problems += problems_of(EVENTS[name], frame["data"], name)
        if name in NEVER_NUMBERED:
            assert "seq" not in frame, f"{name} has a number"
        self.frames.append(frame)
        return frame

    @property
    def numbered(self) -> list[Frame]:
        return [frame for frame in self.frames if "seq" in frame]

    def check_promise(self) -> None:
        """Numbers without a gap, times that rise, for a client that asked for everything."""
        assert [f["seq"] for f in self.numbered] == list(range(1, len(self.numbered) + 1))
        times = [frame["timestamp"] for frame in self.numbered]
        assert times == sorted(set(times)), "timestamps are not unique and ascending"

    def result_id(self) -> str:
        """Return what a test came to, once it has told its end."""
        last = self.numbered[-1]
        assert last["event"] == "session_completed"
        return str(last["data"]["result_id"])

    def names(self) -> set[str]:
        return {frame["event"] for frame in self.frames}


async def listen(
    url: str,
    *,
    until: Iterable[str] = (),
    says: Iterable[str] = (),
    seconds: float = 120.0,
) -> Listener:
    """Listen until every event of `until` has come, or else until the server closes.

    What is in `says` is said at once.
    """
    wanted, listener = set(until), Listener()
    waits_for_close = not wanted
    async with asyncio.timeout(seconds), connect(url, compression=None) as connection:
        for message in says:
            await connection.send(message)
        try:
            while waits_for_close or wanted:
                wanted.discard(listener.take(await connection.recv())["event"])
        except ConnectionClosed as closed:
            listener.close_code = None if closed.rcvd is None else closed.rcvd.code
            assert not wanted, f"closed before {wanted}"
    return listener
