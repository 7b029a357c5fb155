"""Sessions to repeat an activity on: alike to the last row, and compared to the last row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4, uuid5

import orjson
import psycopg

from db.identifiers import new_id
from db.models import Base

# Every table that has rows of a session: the column that names it, and the rows' order.
TABLES: Mapping[str, tuple[str, str]] = {
    "trading_sessions": ("id", "id"),
    "steps": ("session_id", "last_seq"),
    "decisions": ("session_id", "candle_number"),
    "model_calls": ("session_id", "candle_number, call_no"),
    "trades": ("session_id", "trade_number"),
    "test_results": ("session_id", "id"),
    "notifications": ("session_id", "id"),
    "activity_log": ("session_id", "id"),
}
_AGENT = "id = (SELECT agent_id FROM trading_sessions WHERE id = %(id)s) ORDER BY id"
_CONDITIONS = {"agents": _AGENT} | {
    table: f"{column} = %(id)s ORDER BY {order}" for table, (column, order) in TABLES.items()
}
_SELECT = "SELECT jsonb_build_object({})::text".format(
    ", ".join(
        f"'{table}', (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')"
        f" FROM (SELECT * FROM {table} WHERE {condition}) t)"
        for table, condition in _CONDITIONS.items()
    )
)
# A generated column takes no value.
_COLUMNS = {
    table: ", ".join(each.name for each in Base.metadata.tables[table].columns if not each.computed)
    for table in _CONDITIONS
}
_INSERT = "WITH given AS (SELECT %(rows)s::jsonb AS rows), {} SELECT".format(
    ", ".join(
        f"of_{table} AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM given,"
        f" jsonb_populate_recordset(null::{table}, given.rows->'{table}'))"
        for table, columns in _COLUMNS.items()
    )
)
# What depends on when, and for how long, something ran.
_CLOCK = frozenset(
    (
        "created_at",
        "updated_at",
        "started_at",
        "finished_at",
        "completed_at",
        "paused_at",
        "resumed_at",
        "happened_at",
        "last_event_at",
        "elapsed_seconds",
        "duration_seconds",
        "duration_display",
        "latency_ms",
        "generation_id",
    )
)
# How often it took to get there; what these must be is asserted by itself.
_TRIES = frozenset(("attempt", "attempts", "possibly_paid_twice"))
# Made at random, and referred to by nobody.
_RANDOM_IDS = frozenset(("notifications", "activity_log"))
_NUMBERS = range(12)

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A session with all its rows, to be copied."""

    session_id: UUID
    agent_id: UUID
    agent_name: str
    rows: str
    last_seq: int

    async def copy(self, server: psycopg.AsyncConnection[Any]) -> UUID:
        """Insert the rows anew under other ids; return the new session's."""
        session_id, agent_id = new_id(), new_id()
        names: dict[str, Any] = dict(zip(_ids(self.session_id), _ids(session_id), strict=True))
        for table in _RANDOM_IDS:
            names |= {row["id"]: new_id() for row in orjson.loads(self.rows)[table]}
        names |= {str(self.agent_id): str(agent_id), self.agent_name: f"agent-{uuid4().hex[:8]}"}
        rows = self.rows
        for old, new in names.items():
            rows = rows.replace(old, str(new))
        await server.execute(_INSERT, {"rows": rows})
        return session_id


async def template(server: psycopg.AsyncConnection[Any], session_id: UUID) -> Template:
    """Read a session; its agent is copied with it, since results change an agent's statistics."""
    text = await _text(server, session_id)
    rows: Rows = orjson.loads(text)
    row = rows["trading_sessions"][0]
    return Template(
        session_id=session_id,
        agent_id=UUID(row["agent_id"]),
        agent_name=row["agent_name"],
        rows=text,
        last_seq=row["last_seq"],
    )


async def exact_rows(server: psycopg.AsyncConnection[Any], session_id: UUID) -> Rows:
    """Every row of the session and its agent's, as they are."""
    rows: Rows = orjson.loads(await _text(server, session_id))
    return rows


def comparable_rows(exact: Rows, session_id: UUID) -> Rows:
    """Every row without what two sessions alike may differ in: ids, the clock, and tries."""
    agent = exact["agents"][0]
    text = orjson.dumps(exact).decode()
    for number, own_id in enumerate(_ids(session_id)):
        text = text.replace(own_id, f"id-{number}")
    text = text.replace(agent["id"], "agent-id").replace(agent["name"], "agent-name")
    rows: Rows = orjson.loads(text)
    for table in _RANDOM_IDS:
        for row in rows[table]:
            del row["id"]
    return {table: [_timeless(row) for row in each] for table, each in rows.items()}


def comparable_events(
    events: Mapping[int, Mapping[str, Any]], session_id: UUID
) -> dict[int, Mapping[str, Any]]:
    """Published events by seq, under the same terms."""
    text = orjson.dumps([[seq, event] for seq, event in sorted(events.items())]).decode()
    for number, own_id in enumerate(_ids(session_id)):
        text = text.replace(own_id, f"id-{number}")
    return {seq: _timeless({**event, "timestamp": None}) for seq, event in orjson.loads(text)}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = value.keys() - _CLOCK - _TRIES
        return {key: _timeless(item) for key, item in value.items() if key in kept}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


def _ids(session_id: UUID) -> list[str]:
    """The session's id, and those that are made of it."""
    return [str(session_id), *map(str, _made_of(session_id))]


def _made_of(session_id: UUID) -> Iterator[UUID]:
    yield uuid5(session_id, "result")
    yield uuid5(session_id, "call--1-1")
    for number in _NUMBERS:
        yield uuid5(session_id, f"trade-{number}")
        yield uuid5(session_id, f"decision-{number}")
        yield uuid5(session_id, f"call-{number}-1")
        yield uuid5(session_id, f"call-{number}-2")


async def _text(server: psycopg.AsyncConnection[Any], session_id: UUID) -> str:
    cursor = await server.execute(_SELECT, {"id": session_id})
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])
