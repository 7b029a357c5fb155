"""The rows of a session's steps: numbering of what moves no candle, and all that is read back.

Numbers are given only to who names the session's `epoch` (one owner at a time) and its `cursor`
(each candle once). What moves the cursor is written by `db.repositories.stepping`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

_MICROSECOND = timedelta(microseconds=1)

# Event times are strictly ascending within a session, even when the clock steps back:
# the first new event is at least a microsecond after the last one, the others follow it.
_NUMBERING = """
    last_seq = last_seq + :events,
    last_event_at = GREATEST(clock_timestamp(), last_event_at + interval '1 microsecond')
        + (CAST(:events AS int) - 1) * interval '1 microsecond'
"""
_NUMBERED = "RETURNING last_seq, last_event_at, started_at, cost_usd, status"

_NUMBER = text(f"""
    UPDATE trading_sessions SET {_NUMBERING}
    WHERE id = :session_id AND epoch = :epoch AND cursor = :cursor
    {_NUMBERED}
""")  # noqa: S608 - both parts are constants of this module

_INSERT = text("""
    INSERT INTO steps (session_id, candle_number, phase, ordinal, control_id, open_time, equity,
        drawdown, first_seq, last_seq, happened_at, stats, events, state)
    SELECT :session_id, candle_number, :phase, :ordinal, CAST(:control_id AS text),
        to_timestamp(open_time / 1000.0), CAST(equity AS numeric), CAST(drawdown AS numeric),
        first_seq, last_seq, happened_at,
        CAST(stats AS jsonb), CAST(events AS jsonb), CAST(state AS jsonb)
    FROM unnest(CAST(:candle_number AS int[]), CAST(:open_time AS bigint[]),
        CAST(:equity AS text[]), CAST(:drawdown AS text[]), CAST(:first_seq AS bigint[]),
        CAST(:last_seq AS bigint[]), CAST(:happened_at AS timestamptz[]), CAST(:stats AS text[]),
        CAST(:events AS text[]), CAST(:state AS text[]))
        AS row (candle_number, open_time, equity, drawdown, first_seq, last_seq, happened_at,
            stats, events, state)
""")

_COLUMNS = "candle_number, phase, ordinal, first_seq, last_seq, happened_at, stats, events"

_ROWS_AFTER = text(f"""
    SELECT {_COLUMNS} FROM steps
    WHERE session_id = :session_id AND last_seq > :seq ORDER BY last_seq LIMIT :limit
""")  # noqa: S608 - a constant of this module

_ROWS_FROM = text(f"""
    SELECT {_COLUMNS} FROM steps
    WHERE session_id = :session_id AND phase = :phase AND candle_number >= :candle_number
    ORDER BY candle_number
""")  # noqa: S608 - a constant of this module

_CONTROL = text(f"""
    SELECT {_COLUMNS} FROM steps WHERE session_id = :session_id AND control_id = :control_id
""")  # noqa: S608 - a constant of this module

_LATEST_STATE = text("""
    SELECT CAST(state AS text) FROM steps
    WHERE session_id = :session_id AND state IS NOT NULL ORDER BY last_seq DESC LIMIT 1
""")

_EQUITY_CURVE = text("""
    SELECT CAST(extract(epoch FROM open_time) * 1000 AS bigint), CAST(stats->>'equity' AS float8)
    FROM steps WHERE session_id = :session_id AND phase = 'step' ORDER BY candle_number
""")

_EQUITY_AFTER = text("""
    SELECT candle_number, CAST(extract(epoch FROM open_time) * 1000 AS bigint) AS open_time,
        CAST(stats->>'equity' AS float8) AS equity
    FROM steps
    WHERE session_id = :session_id AND phase = 'step' AND candle_number > :candle_number
    ORDER BY candle_number LIMIT :limit
""")

_NEXT_ORDINAL = text("""
    SELECT coalesce(max(ordinal) + 1, 0) FROM steps
    WHERE session_id = :session_id AND candle_number = :candle_number AND phase = 'control'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """The numbers and times that a write obtained for its events, and the row as it then was."""

    first_seq: int
    first_at: datetime
    started_at: datetime
    cost_usd: float
    status: str

    def at(self, offset: int) -> datetime:
        """When the event `offset` places after the first one happened."""
        return self.first_at + offset * _MICROSECOND

    def elapsed_seconds(self, offset: int) -> float:
        """Seconds from the session's start to that event."""
        return (self.at(offset) - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStep:
    """A row of `steps` about to be written; `events` excludes a step's candle and stats."""

    candle_number: int
    first_seq: int
    last_seq: int
    happened_at: datetime
    open_time: int | None = None
    equity: float | None = None
    drawdown: float | None = None
    stats: Mapping[str, Any] | None = None
    events: Sequence[dict[str, Any]] = ()
    state: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A row of `steps` as it is read back, for replay and for retries."""

    candle_number: int
    phase: Literal["step", "decision", "control"]
    ordinal: int
    first_seq: int
    last_seq: int
    happened_at: datetime
    stats: Mapping[str, Any] | None
    events: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SteppedEquity:
    """The equity at the close of a stepped candle, which opened at `open_time` (epoch ms)."""

    candle_number: int
    open_time: int
    equity: float


class StepRepository:
    """Steps of sessions, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def number_events(
        self, session_id: UUID, *, epoch: int, cursor: int, events: int
    ) -> Numbering | None:
        """Number events that move no candle; None when epoch or cursor are not as expected."""
        result = await self._session.execute(
            _NUMBER,
            {"session_id": session_id, "epoch": epoch, "cursor": cursor, "events": events},
        )
        return numbering(result.one_or_none(), events)

    async def insert(
        self,
        session_id: UUID,
        rows: Sequence[NewStep],
        *,
        phase: Literal["step", "decision", "control"] = "step",
        ordinal: int = 0,
        control_id: str | None = None,
    ) -> None:
        """Insert rows of one phase in one statement."""
        await self._session.execute(
            _INSERT,
            {
                "session_id": session_id,
                "phase": phase,
                "ordinal": ordinal,
                "control_id": control_id,
                "candle_number": [row.candle_number for row in rows],
                "open_time": [row.open_time for row in rows],
                "equity": [_number(row.equity) for row in rows],
                "drawdown": [_number(row.drawdown) for row in rows],
                "first_seq": [row.first_seq for row in rows],
                "last_seq": [row.last_seq for row in rows],
                "happened_at": [row.happened_at for row in rows],
                "stats": [_json(row.stats) for row in rows],
                "events": [orjson.dumps(row.events).decode() for row in rows],
                "state": [None if row.state is None else row.state.decode() for row in rows],
            },
        )

    async def rows_after(self, session_id: UUID, seq: int, limit: int) -> list[StoredStep]:
        """Rows with an event after `seq`, in order; the first one may begin before it."""
        result = await self._session.execute(
            _ROWS_AFTER, {"session_id": session_id, "seq": seq, "limit": limit}
        )
        return [_stored(row) for row in result]

    async def rows_from(
        self, session_id: UUID, *, phase: Literal["step", "decision"], candle_number: int
    ) -> list[StoredStep]:
        """The rows of a phase from a candle on."""
        result = await self._session.execute(
            _ROWS_FROM, {"session_id": session_id, "phase": phase, "candle_number": candle_number}
        )
        return [_stored(row) for row in result]

    async def control(self, session_id: UUID, control_id: str) -> StoredStep | None:
        """The row of a control (pause, resume, speed, stop, end) that was already applied."""
        result = await self._session.execute(
            _CONTROL, {"session_id": session_id, "control_id": control_id}
        )
        row = result.one_or_none()
        return None if row is None else _stored(row)

    async def next_ordinal(self, session_id: UUID, candle_number: int) -> int:
        """The ordinal of the next control at a candle; call it with the session row locked."""
        result = await self._session.execute(
            _NEXT_ORDINAL, {"session_id": session_id, "candle_number": candle_number}
        )
        return int(result.scalar_one())

    async def latest_state(self, session_id: UUID) -> str | None:
        """The simulation state after the last write, as JSON; None before the first candle."""
        result = await self._session.execute(_LATEST_STATE, {"session_id": session_id})
        return result.scalar_one_or_none()

    async def equity_curve(self, session_id: UUID) -> list[tuple[int, float]]:
        """Open time (epoch ms) and equity at the close of every candle stepped, exactly."""
        result = await self._session.execute(_EQUITY_CURVE, {"session_id": session_id})
        return [(int(open_time), float(equity)) for open_time, equity in result]

    async def equity_after(
        self, session_id: UUID, candle_number: int, *, limit: int
    ) -> list[SteppedEquity]:
        """A piece of the equity curve: the candles after one, in order."""
        result = await self._session.execute(
            _EQUITY_AFTER,
            {"session_id": session_id, "candle_number": candle_number, "limit": limit},
        )
        return [SteppedEquity(**row) for row in result.mappings()]


def numbering(row: Any, events: int) -> Numbering | None:
    """Read what a write returned of the session's row; None when it matched none."""
    if row is None:
        return None
    return Numbering(
        first_seq=row.last_seq - events + 1,
        first_at=row.last_event_at - (events - 1) * _MICROSECOND,
        started_at=row.started_at,
        cost_usd=float(row.cost_usd or 0),
        status=row.status,
    )


def _stored(row: Row[Any]) -> StoredStep:
    return StoredStep(
        candle_number=row.candle_number,
        phase=row.phase,
        ordinal=row.ordinal,
        first_seq=row.first_seq,
        last_seq=row.last_seq,
        happened_at=row.happened_at,
        stats=row.stats,
        events=row.events,
    )


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _number(value: float | None) -> str | None:
    return None if value is None else repr(value)
