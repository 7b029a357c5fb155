"""The writes that every candle pays for: one statement each, and each its own transaction.

Each is guarded by the session's `epoch` (one owner at a time) and by its `cursor` (each candle
once), and numbers its events in the same statement that stores them: a write that does not find
the session as it expects stores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any, Literal, LiteralString
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, namedtuple_row

from db.repositories.session_trades import UPSERT_TRADE, TradeRow, trade_values
from db.repositories.steps import Numbering, numbering

# Event times are strictly ascending within a session, even when the clock steps back:
# the first new event is at least a microsecond after the last one, the others follow it.
_NUMBERING: LiteralString = """
    last_seq = last_seq + %(events)s::int,
    last_event_at = GREATEST(clock_timestamp(), last_event_at + interval '1 microsecond')
        + (%(events)s::int - 1) * interval '1 microsecond'
"""

_STORE_STEPS: LiteralString = f"""
    WITH moved AS (
        UPDATE trading_sessions SET {_NUMBERING},
            cursor = %(to)s, current_candle = %(to)s, current_equity = %(equity)s::numeric,
            current_pnl_pct = %(pnl_pct)s::numeric,
            max_drawdown_pct = %(max_drawdown_pct)s::numeric,
            open_position = %(open_position)s::jsonb,
            missed_candles = missed_candles + %(missed)s::int,
            paused_candles = paused_candles + %(paused)s::int
        WHERE id = %(session_id)s AND epoch = %(epoch)s AND cursor = %(from)s
        RETURNING id, last_seq, last_event_at, started_at, cost_usd, status
    ), stored AS (
        INSERT INTO steps (session_id, candle_number, phase, open_time, equity, drawdown,
            first_seq, last_seq, happened_at, stats, events, state)
        SELECT moved.id, row.candle_number, 'step', to_timestamp(row.open_time / 1000.0),
            row.equity::numeric, row.drawdown::numeric,
            moved.last_seq - %(events)s::int + row.first_event + 1,
            moved.last_seq - %(events)s::int + row.first_event + row.event_count,
            moved.last_event_at
                + (row.first_event - %(events)s::int + 1) * interval '1 microsecond',
            row.stats::jsonb || jsonb_build_object('status', moved.status,
                'cost_usd', moved.cost_usd, 'elapsed_seconds', extract(epoch FROM
                    moved.last_event_at - moved.started_at
                    + (row.first_event - %(events)s::int + 1) * interval '1 microsecond')),
            row.events::jsonb, row.state::jsonb
        FROM moved, unnest(%(candle_numbers)s::int[], %(open_times)s::bigint[],
            %(equities)s::text[], %(drawdowns)s::text[], %(first_events)s::int[],
            %(event_counts)s::int[], %(stats)s::text[], %(found)s::text[], %(states)s::text[])
            AS row (candle_number, open_time, equity, drawdown, first_event, event_count, stats,
                events, state)
    )
    SELECT last_seq, last_event_at, started_at, cost_usd, status FROM moved
"""  # noqa: S608 - the only part put in is a constant of this module

# A call that is started again without having come to an end may have been paid: `attempts` counts
# that, and the session has the sum. A refusal in between makes no difference to it.
_OPEN: LiteralString = """
    opened AS (
        INSERT INTO model_calls (id, session_id, candle_number, call_no, status, epoch, started_at)
        SELECT %(id)s, owned.id, %(candle_number)s, %(call_no)s, 'started', %(epoch)s,
            clock_timestamp()
        FROM owned
        ON CONFLICT (session_id, candle_number, call_no) DO UPDATE SET
            attempts = model_calls.attempts + (model_calls.status = 'started')::int,
            status = 'started', epoch = excluded.epoch, started_at = excluded.started_at
        WHERE model_calls.status <> 'done'
        RETURNING session_id, attempts
    ), counted AS (
        UPDATE trading_sessions SET possibly_paid_twice = opened.attempts - 1 + (
            SELECT coalesce(sum(attempts - 1), 0) FROM model_calls
            WHERE session_id = opened.session_id
                AND (candle_number, call_no) <> (%(candle_number)s, %(call_no)s))
        FROM opened WHERE trading_sessions.id = opened.session_id AND opened.attempts > 1
    )
"""

# The session's row is locked first, here as below: two attempts cannot wait for each other.
_OPEN_CALL: LiteralString = f"""
    WITH owned AS (
        SELECT id FROM trading_sessions
        WHERE id = %(session_id)s AND epoch = %(epoch)s FOR UPDATE
    ), {_OPEN}
    SELECT attempts FROM opened
"""  # noqa: S608 - the only part put in is a constant of this module

# Everything is as it was before this statement but `is_opened`.
_BEGIN_DECISION: LiteralString = f"""
    WITH owned AS (
        SELECT s.id FROM trading_sessions s
        JOIN agents a ON a.id = s.agent_id JOIN api_keys k ON k.id = a.api_key_id
        WHERE s.id = %(session_id)s AND s.epoch = %(epoch)s AND s.cursor = %(candle_number)s + 1
            AND s.cost_usd < coalesce(%(max_cost_usd)s::numeric, 'Infinity')
            AND NOT EXISTS (SELECT 1 FROM decisions d
                WHERE d.session_id = s.id AND d.candle_number = %(candle_number)s)
        FOR UPDATE OF s
    ), {_OPEN}
    SELECT s.epoch, s.cursor, s.cost_usd::float8 AS cost_usd, k.id AS key_id, k.encrypted_key,
        coalesce(k.last_used_at < clock_timestamp() - interval '10 minutes', true) AS key_is_idle,
        EXISTS (SELECT 1 FROM opened) AS is_opened,
        EXISTS (SELECT 1 FROM decisions d
            WHERE d.session_id = s.id AND d.candle_number = %(candle_number)s) AS is_decided,
        ARRAY(SELECT jsonb_build_object('candle_number', candle_number, 'decision', decision,
                'confidence', confidence, 'order_data', order_data,
                'reasoning', left(reasoning, %(reasoning_length)s))
            FROM decisions WHERE session_id = s.id AND candle_number < %(candle_number)s
            ORDER BY candle_number DESC LIMIT %(decisions)s) AS past,
        ARRAY(SELECT jsonb_build_object('call_no', call_no, 'status', status,
                'raw_reply', raw_reply, 'usage', usage, 'cost_usd', cost_usd,
                'model_used', model_used, 'latency_ms', latency_ms, 'attempts', attempts)
            FROM model_calls WHERE session_id = s.id AND candle_number = %(candle_number)s
            ORDER BY call_no) AS calls,
        (SELECT state::text FROM steps WHERE session_id = s.id AND state IS NOT NULL
            ORDER BY last_seq DESC LIMIT 1) AS state
    FROM trading_sessions s
    LEFT JOIN agents a ON a.id = s.agent_id LEFT JOIN api_keys k ON k.id = a.api_key_id
    WHERE s.id = %(session_id)s
"""  # noqa: S608 - the only part put in is a constant of this module

# Once simulated, a test stays so, whoever answers later.
_SOURCE: LiteralString = """
    model_source = CASE WHEN trading_sessions.model_source = 'simulated'
        THEN 'simulated' ELSE %(model_source)s END
"""

_BOOKED: LiteralString = """
    booked AS (
        UPDATE model_calls SET status = 'done', request_hash = %(request_hash)s,
            raw_reply = %(raw_reply)s, usage = %(usage)s::jsonb,
            cost_usd = %(reply_cost_usd)s::numeric, generation_id = %(generation_id)s,
            model_used = %(reply_model)s, latency_ms = %(reply_latency_ms)s,
            finished_at = clock_timestamp()
        FROM owned
        WHERE session_id = owned.id AND candle_number = %(candle_number)s
            AND call_no = %(call_no)s AND model_calls.status <> 'done'
        RETURNING session_id, attempts
    )
"""

_BOOK_CALL: LiteralString = f"""
    WITH owned AS (
        SELECT id FROM trading_sessions
        WHERE id = %(session_id)s AND epoch = %(epoch)s FOR UPDATE
    ), {_BOOKED}, paid AS (
        UPDATE trading_sessions SET cost_usd = cost_usd + %(reply_cost_usd)s::numeric,
            tokens = tokens + %(reply_tokens)s, {_SOURCE}
        FROM booked WHERE trading_sessions.id = booked.session_id
    )
    SELECT attempts FROM booked
"""  # noqa: S608 - the only part put in is a constant of this module

_CALL: LiteralString = """
    SELECT call_no, status, raw_reply, usage, cost_usd::float8 AS cost_usd, model_used, latency_ms,
        attempts
    FROM model_calls
    WHERE session_id = %(session_id)s AND candle_number = %(candle_number)s
        AND call_no = %(call_no)s
"""

_REFUSE_CALL: LiteralString = """
    UPDATE model_calls SET status = 'refused', finished_at = clock_timestamp()
    WHERE session_id = %(session_id)s AND candle_number = %(candle_number)s
        AND call_no = %(call_no)s AND status = 'started' AND epoch = %(epoch)s
"""

_DECIDED: LiteralString = """
    stored AS (
        INSERT INTO steps (session_id, candle_number, phase, first_seq, last_seq, happened_at,
            events, state)
        SELECT id, %(candle_number)s, 'decision', last_seq - %(events)s::int + 1, last_seq,
            last_event_at - (%(events)s::int - 1) * interval '1 microsecond',
            %(found)s::jsonb, %(state)s::jsonb
        FROM moved
    ), decided AS (
        INSERT INTO decisions (id, session_id, candle_number, timestamp, candle_data,
            indicator_values, thought_type, reasoning, decision, confidence, order_data, overrides,
            prompt_hash, prompt_text, model_requested, model_used, tokens_prompt,
            tokens_completion, cost_usd, latency_ms, attempts, invalid_reply, late)
        SELECT %(id)s, id, %(candle_number)s, to_timestamp(%(close_time)s / 1000.0),
            %(candle_data)s::jsonb, %(indicator_values)s::jsonb, 'decision', %(reasoning)s,
            %(decision)s, %(confidence)s::numeric, %(order_data)s::jsonb, %(overrides)s::jsonb,
            %(prompt_hash)s, %(prompt_text)s, %(model_requested)s, %(model_used)s,
            %(tokens_prompt)s, %(tokens_completion)s, %(cost_usd)s::numeric, %(latency_ms)s,
            %(attempts)s + attempts, %(invalid_reply)s, %(late)s
        FROM moved
    )
    SELECT last_seq, last_event_at, started_at, cost_usd, status FROM moved
"""

_STORE_DECISION: LiteralString = f"""
    WITH moved AS (
        UPDATE trading_sessions SET {_NUMBERING},
            invalid_replies = invalid_replies + %(invalid_reply)s::int,
            late_decisions = late_decisions + %(late)s::int
        WHERE id = %(session_id)s AND epoch = %(epoch)s AND cursor = %(candle_number)s + 1
            AND NOT EXISTS (SELECT 1 FROM decisions d
                WHERE d.session_id = %(session_id)s AND d.candle_number = %(candle_number)s)
        RETURNING id, last_seq, last_event_at, started_at, cost_usd, status, 0 AS attempts
    ), {_DECIDED}
"""  # noqa: S608 - the only part put in is a constant of this module

_BOOK_DECISION: LiteralString = f"""
    WITH owned AS (
        SELECT id FROM trading_sessions
        WHERE id = %(session_id)s AND epoch = %(epoch)s AND cursor = %(candle_number)s + 1
        FOR UPDATE
    ), {_BOOKED}, moved AS (
        UPDATE trading_sessions SET {_NUMBERING},
            cost_usd = trading_sessions.cost_usd + %(reply_cost_usd)s::numeric,
            tokens = tokens + %(reply_tokens)s, {_SOURCE},
            late_decisions = late_decisions + %(late)s::int
        FROM booked WHERE trading_sessions.id = booked.session_id
        RETURNING id, last_seq, last_event_at, started_at, trading_sessions.cost_usd,
            trading_sessions.status, booked.attempts
    ), {_DECIDED}
"""  # noqa: S608 - the only part put in is a constant of this module

# An owner sees by it whether a key is used at all: not every candle is to write that.
_TOUCH_KEY: LiteralString = """
    UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id = %(key_id)s
"""

_REASONING: LiteralString = """
    SELECT reasoning FROM decisions
    WHERE session_id = %(session_id)s AND candle_number = %(candle_number)s
"""


_LINK_DECISION: LiteralString = """
    UPDATE decisions SET trade_id = %(trade_id)s
    WHERE session_id = %(session_id)s AND candle_number = %(candle_number)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorMove:
    """Moves a session from candle `start` to `stop`, with figures as of the last candle stepped."""

    session_id: UUID
    epoch: int
    start: int
    stop: int
    equity: float
    pnl_pct: float
    max_drawdown_pct: float
    open_position: Mapping[str, Any] | None
    missed: int = 0
    paused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SteppedCandle:
    """A candle to be stored: its figures, its events besides candle and stats, its state.

    `event_count` includes candle and stats. `stats` lacks status, cost and elapsed seconds, which
    are the session's own.
    """

    candle_number: int
    open_time: int
    equity: float
    drawdown: float
    event_count: int
    stats: Mapping[str, Any]
    events: Sequence[dict[str, Any]]
    state: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecisionRow:
    """A decision as the agent is reminded of it."""

    candle_number: int
    decision: str
    confidence: float | None
    order_data: dict[str, Any] | None
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallRow:
    """One request to a model: what came back, once it did."""

    call_no: int
    status: Literal["started", "refused", "done"]
    raw_reply: str | None
    usage: dict[str, Any] | None
    cost_usd: float | None
    model_used: str | None
    latency_ms: int | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedReply:
    """What a model answered and what it cost, to be stored before anyone reads it."""

    request_hash: str
    raw_reply: str
    usage: dict[str, Any]
    tokens: int
    cost_usd: float
    generation_id: str | None
    model_used: str | None
    model_source: str
    latency_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBasis:
    """Where a session stands when a decision is due, and all that the question needs of it.

    `is_opened` says that its first call was noted as started, for whoever asks now.
    """

    epoch: int
    cursor: int
    cost_usd: float
    key_id: UUID | None
    encrypted_key: str | None
    key_is_idle: bool
    is_opened: bool
    is_decided: bool
    state: str
    past: Sequence[PastDecisionRow]
    calls: dict[int, ModelCallRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKey:
    """Names a model call, and the epoch under which it is made."""

    session_id: UUID
    epoch: int
    candle_number: int
    call_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """A decision as it is stored: the agent's words, and what the engine made of them."""

    id: UUID
    candle_number: int
    close_time: int
    candle_data: Mapping[str, Any]
    indicator_values: dict[str, Any]
    reasoning: str
    decision: str
    confidence: float | None
    order_data: dict[str, Any] | None
    overrides: Sequence[Mapping[str, Any]]
    prompt_hash: str
    prompt_text: bytes
    model_requested: str
    model_used: str | None
    tokens_prompt: int
    tokens_completion: int
    cost_usd: float
    latency_ms: int
    attempts: int
    invalid_reply: bool
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A reply that is paid for, and the call it belongs to."""

    key: CallKey
    reply: BookedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOutcome:
    """A decision, its events in order, and the session's state after it as JSON."""

    session_id: UUID
    decision: NewDecision
    events: Sequence[dict[str, Any]]
    state: bytes


class SteppingRepository:
    """Steps and decisions of a session, over a connection of `Database.statements_for_user`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def store_steps(
        self, move: CursorMove, candles: Sequence[SteppedCandle]
    ) -> Numbering | None:
        """Move the cursor and store the candles, or store nothing and return None."""
        events = sum(candle.event_count for candle in candles)
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        await cursor.execute(_STORE_STEPS, _steps(move, candles, events))
        return numbering(await cursor.fetchone(), events)

    async def reasoning(self, session_id: UUID, candle_number: int) -> str:
        """What the agent said at a candle; empty when it said nothing."""
        cursor = await self._connection.execute(
            _REASONING, {"session_id": session_id, "candle_number": candle_number}
        )
        row = await cursor.fetchone()
        return "" if row is None else str(row[0])

    async def put_trade(self, session_id: UUID, trade: TradeRow) -> None:
        """Insert the trade, or complete the row of its entry, and note it on its decision."""
        await self._connection.execute(UPSERT_TRADE, trade_values(session_id, trade))
        decided = trade.decided_candle
        if trade.exit_decided_candle is not None:
            decided = trade.exit_decided_candle
        await self._connection.execute(
            _LINK_DECISION,
            {"session_id": session_id, "candle_number": decided, "trade_id": trade.id},
        )

    async def begin_decision(
        self,
        key: CallKey,
        *,
        id: UUID,
        max_cost_usd: Decimal | None,
        decisions: int,
        reasoning_length: int,
    ) -> DecisionBasis | None:
        """Open the first call of a decision, and tell what to ask with.

        No call is opened where epoch or cursor have moved on, the decision or the reply is there,
        the budget is spent, or there is no API key.
        """
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(
            _BEGIN_DECISION,
            _key(key)
            | {
                "id": id,
                "max_cost_usd": max_cost_usd,
                "decisions": decisions,
                "reasoning_length": reasoning_length,
            },
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        past = [PastDecisionRow(**each) for each in row.pop("past")][::-1]
        calls = {each["call_no"]: ModelCallRow(**each) for each in row.pop("calls")}
        return DecisionBasis(**row, past=past, calls=calls)

    async def open_call(self, key: CallKey, *, id: UUID) -> bool:
        """Note that a call is about to be made; False when it is done or the epoch has passed."""
        cursor = await self._connection.execute(_OPEN_CALL, _key(key) | {"id": id})
        return await cursor.fetchone() is not None

    async def book_call(self, bill: Bill) -> int | None:
        """Store a reply and its cost once; return the call's attempts.

        None when another attempt or a newer owner was first.
        """
        cursor = await self._connection.execute(_BOOK_CALL, _bill(bill))
        row = await cursor.fetchone()
        return None if row is None else int(row[0])

    async def book_decision(self, bill: Bill, outcome: DecisionOutcome) -> Numbering | None:
        """Store a reply, its cost and the decision that it holds, all at once and once.

        None when another attempt was first or the session has moved on. The decision's attempts
        are those of the calls before this one; the reply's own are added.
        """
        return await self._decide(_BOOK_DECISION, _outcome(outcome) | _bill(bill))

    async def call(self, key: CallKey) -> ModelCallRow | None:
        """A model call as it is stored."""
        cursor = self._connection.cursor(row_factory=class_row(ModelCallRow))
        await cursor.execute(_CALL, _key(key))
        return await cursor.fetchone()

    async def refuse_call(self, key: CallKey) -> None:
        """Note that the provider answered with an error, so that nothing was bought."""
        await self._connection.execute(_REFUSE_CALL, _key(key))

    async def store_decision(self, outcome: DecisionOutcome, *, epoch: int) -> Numbering | None:
        """Store a decision with its events; None when it is there or the session has moved on."""
        return await self._decide(_STORE_DECISION, _outcome(outcome) | {"epoch": epoch})

    async def _decide(self, statement: LiteralString, values: dict[str, Any]) -> Numbering | None:
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        await cursor.execute(statement, values)
        return numbering(await cursor.fetchone(), values["events"])

    async def touch_key(self, key_id: UUID) -> None:
        """Note that the key is in use; rarely, since all sessions of a key share its row."""
        await self._connection.execute(_TOUCH_KEY, {"key_id": key_id})


def _steps(move: CursorMove, candles: Sequence[SteppedCandle], events: int) -> dict[str, Any]:
    counts = [candle.event_count for candle in candles]
    return {
        "session_id": move.session_id,
        "epoch": move.epoch,
        "from": move.start,
        "to": move.stop,
        "events": events,
        "equity": repr(move.equity),
        "pnl_pct": repr(move.pnl_pct),
        "max_drawdown_pct": repr(move.max_drawdown_pct),
        "open_position": _json(move.open_position),
        "missed": move.missed,
        "paused": move.paused,
        "candle_numbers": [candle.candle_number for candle in candles],
        "open_times": [candle.open_time for candle in candles],
        "equities": [repr(candle.equity) for candle in candles],
        "drawdowns": [repr(candle.drawdown) for candle in candles],
        "first_events": list(accumulate(counts[:-1], initial=0)),
        "event_counts": counts,
        "stats": [orjson.dumps(candle.stats).decode() for candle in candles],
        "found": [orjson.dumps(candle.events).decode() for candle in candles],
        "states": [None if each.state is None else each.state.decode() for each in candles],
    }


def _key(key: CallKey) -> dict[str, Any]:
    return {
        "session_id": key.session_id,
        "epoch": key.epoch,
        "candle_number": key.candle_number,
        "call_no": key.call_no,
    }


def _bill(bill: Bill) -> dict[str, Any]:
    reply = bill.reply
    return _key(bill.key) | {
        "request_hash": reply.request_hash,
        "raw_reply": reply.raw_reply,
        "usage": orjson.dumps(reply.usage).decode(),
        "reply_cost_usd": repr(reply.cost_usd),
        "reply_tokens": reply.tokens,
        "generation_id": reply.generation_id,
        "reply_model": reply.model_used,
        "model_source": reply.model_source,
        "reply_latency_ms": reply.latency_ms,
    }


def _outcome(outcome: DecisionOutcome) -> dict[str, Any]:
    return _decision(outcome.decision) | {
        "session_id": outcome.session_id,
        "events": len(outcome.events),
        "found": orjson.dumps(outcome.events).decode(),
        "state": outcome.state.decode(),
    }


def _decision(decision: NewDecision) -> dict[str, Any]:
    return {
        "id": decision.id,
        "candle_number": decision.candle_number,
        "close_time": decision.close_time,
        "candle_data": orjson.dumps(decision.candle_data).decode(),
        "indicator_values": orjson.dumps(decision.indicator_values).decode(),
        "reasoning": decision.reasoning,
        "decision": decision.decision,
        "confidence": None if decision.confidence is None else repr(decision.confidence),
        "order_data": _json(decision.order_data),
        "overrides": orjson.dumps(decision.overrides).decode(),
        "prompt_hash": decision.prompt_hash,
        "prompt_text": decision.prompt_text,
        "model_requested": decision.model_requested,
        "model_used": decision.model_used,
        "tokens_prompt": decision.tokens_prompt,
        "tokens_completion": decision.tokens_completion,
        "cost_usd": repr(decision.cost_usd),
        "latency_ms": decision.latency_ms,
        "attempts": decision.attempts,
        "invalid_reply": decision.invalid_reply,
        "late": decision.late,
    }


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
