"""What the stack's database and its simulated OpenRouter have to say about a session."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from api.wire import public_data

Row = dict[str, Any]

PATIENCE_SECONDS = 60.0

_GENERATION_PREFIX = "gen-simulated-"
_DIGEST_LENGTH = 24
_MICROSECOND = timedelta(microseconds=1)
_STANDING = """
    SELECT status, pause_reason, cursor, last_seq, epoch, open_position IS NOT NULL AS is_open
    FROM trading_sessions WHERE id = %s
"""
_ASKING = "SELECT candle_number FROM model_calls WHERE session_id = %s AND status = 'started'"
_STEPS = """
    SELECT candle_number, phase, open_time, equity, drawdown, first_seq, last_seq, happened_at,
        stats, events
    FROM steps WHERE session_id = %s ORDER BY last_seq
"""
_CALLS = """
    SELECT candle_number, call_no, status, attempts, generation_id
    FROM model_calls WHERE session_id = %s ORDER BY candle_number, call_no
"""


@dataclass(slots=True)
class Database:
    """The stack's PostgreSQL, looked at from outside; it may be away at any time."""

    url: str
    _connection: psycopg.AsyncConnection[Row] | None = None

    async def glance(self, session_id: str) -> Row | None:
        """How a session stands; None while nobody answers."""
        try:
            return (await self._rows(_STANDING, session_id))[0]
        except psycopg.OperationalError:
            await self.close()
            return None

    async def standing(self, session_id: str) -> Row:
        """How a session stands, waited for."""
        return (await self.read(_STANDING, session_id))[0]

    async def asking(self, session_id: str) -> int:
        """Wait for a request to the model to begin; return its candle."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := await self.read(_ASKING, session_id)):
            if time.monotonic() > deadline:
                raise TimeoutError("no model was asked")
        return int(found[0]["candle_number"])

    async def steps(self, session_id: str) -> list[Row]:
        return await self.read(_STEPS, session_id)

    async def calls(self, session_id: str) -> list[Row]:
        return await self.read(_CALLS, session_id)

    async def read(self, query: str, session_id: str) -> list[Row]:
        """The rows; a connection that a restart left behind is replaced."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._rows(query, session_id)
            except psycopg.OperationalError:
                await self.close()
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _rows(self, query: str, session_id: str) -> list[Row]:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self.url, autocommit=True, row_factory=dict_row, connect_timeout=5
            )
        cursor = await self._connection.execute(query.encode(), (session_id,))
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class RowEvent:
    """An event as its row has it; `data` is None for candles, which rows do not repeat."""

    seq: int
    event: str
    timestamp: str
    data: Mapping[str, Any] | None


def events_of(steps: Sequence[Row]) -> list[RowEvent]:
    """The events that the rows stand for, as clients should have got them."""
    return [event for step in steps for event in _row_events(step)]


def _row_events(step: Row) -> list[RowEvent]:
    named: list[tuple[str, Mapping[str, Any] | None]] = [
        (each["event"], each["data"]) for each in step["events"]
    ]
    if step["phase"] == "step":
        named = [("candle", None), *named, ("stats_update", step["stats"])]
    return [
        RowEvent(
            seq=step["first_seq"] + offset,
            event=name,
            timestamp=_iso(step["happened_at"] + offset * _MICROSECOND),
            data=None if data is None else public_data(name, data),
        )
        for offset, (name, data) in enumerate(named)
    ]


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Ledger:
    """Requests counted at the simulated OpenRouter, over all the lives of its process."""

    url: str
    requests: Counter[str] = field(default_factory=Counter)

    async def forget(self) -> None:
        """Begin to count anew."""
        async with httpx.AsyncClient(trust_env=False) as http:
            (await http.delete(f"{self.url}/debug/requests")).raise_for_status()
        self.requests.clear()

    async def collect(self, model: str) -> None:
        """Add what was counted since the process began, before it dies or at the end."""
        for digest, count in (await self._counted()).items():
            if count["model"] == model:
                self.requests[digest[:_DIGEST_LENGTH]] += count["requests"]

    async def _counted(self) -> dict[str, Any]:
        """The requests by digest; a process that is just being started again is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
            while True:
                try:
                    answer = await http.get(f"{self.url}/debug/requests")
                except httpx.TransportError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    answer.raise_for_status()
                    found: dict[str, Any] = answer.json()["by_hash"]
                    return found


def question_of(call: Row) -> str:
    """The digest of the request that a call's reply came from, as the ledger counts it."""
    generation = str(call["generation_id"]).removeprefix(_GENERATION_PREFIX)
    return generation.rpartition("-")[0]
