"""What a workflow run reads and writes of its session, besides the steps themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_LOCK = text("""
    SELECT s.epoch, s.owner_run_id, s.cursor, s.status, s.pause_reason, s.playback_speed,
        s.stop_close_position, CAST(s.current_equity AS float8) AS current_equity,
        r.id AS result_id,
        EXISTS (SELECT 1 FROM decisions d
            WHERE d.session_id = s.id AND d.candle_number = s.cursor - 1) AS is_decided
    FROM trading_sessions s LEFT JOIN test_results r ON r.session_id = s.id
    WHERE s.id = :session_id FOR UPDATE OF s
""")

_OWN = text("""
    UPDATE trading_sessions SET epoch = epoch + 1, owner_run_id = :run_id,
        status = CASE WHEN status IN ('configuring', 'initializing') THEN 'running' ELSE status END,
        started_at = coalesce(started_at, clock_timestamp())
    WHERE id = :session_id RETURNING epoch
""")

_SETTINGS = text("""
    SELECT s.user_id, s.agent_id, s.agent_version_id, s.agent_name, s.asset, s.timeframe,
        s.data_set_id, s.start_date, s.end_date, s.warm_up_candles, s.total_candles,
        s.first_decision_candle, s.decision_mode, s.decision_interval_candles, s.rules, s.blind,
        s.max_cost_usd, s.type, s.started_at, v.model, v.indicators, v.custom_indicators,
        v.strategy_prompt, d.source AS data_source
    FROM trading_sessions s
    JOIN agent_versions v ON v.id = s.agent_version_id
    JOIN data_sets d ON d.id = s.data_set_id
    WHERE s.id = :session_id
""")

_APPLY_CONTROL = text("""
    UPDATE trading_sessions SET
        status = CAST(:status AS text), pause_reason = CAST(:pause_reason AS text),
        playback_speed = CAST(:speed AS text),
        stop_close_position = CAST(:stop_close_position AS boolean),
        paused_at = CASE WHEN CAST(:status AS text) = 'paused'
            THEN coalesce(CAST(:paused_at AS timestamptz), paused_at) END,
        error = CAST(:error AS jsonb)
    WHERE id = :session_id
""")

_BASIS = text("""
    SELECT s.epoch, s.cursor, CAST(s.cost_usd AS float8) AS cost_usd, k.id AS key_id,
        k.encrypted_key,
        coalesce(k.last_used_at < clock_timestamp() - interval '1 minute', true) AS key_is_idle,
        EXISTS (SELECT 1 FROM decisions d
            WHERE d.session_id = s.id AND d.candle_number = :candle_number) AS is_decided
    FROM trading_sessions s
    LEFT JOIN agents a ON a.id = s.agent_id LEFT JOIN api_keys k ON k.id = a.api_key_id
    WHERE s.id = :session_id
""")

_DECIDED = text("""
    SELECT candle_number, decision, CAST(confidence AS float8) AS confidence, order_data,
        reasoning
    FROM decisions
    WHERE session_id = :session_id AND candle_number < :before
    ORDER BY candle_number DESC LIMIT :limit
""")

_REASONING = text("""
    SELECT reasoning FROM decisions
    WHERE session_id = :session_id AND candle_number = :candle_number
""")

_CALLS = text("""
    SELECT call_no, status, raw_reply, usage, cost_usd, model_used, latency_ms, attempts
    FROM model_calls WHERE session_id = :session_id AND candle_number = :candle_number
    ORDER BY call_no
""")

# The epoch is checked by locking the session's row, so that a newer owner waits or wins.
_OPEN_CALL = text("""
    WITH owned AS (
        SELECT id FROM trading_sessions WHERE id = :session_id AND epoch = :epoch FOR UPDATE
    )
    INSERT INTO model_calls (id, session_id, candle_number, call_no, status, request_hash, epoch)
    SELECT :id, owned.id, :candle_number, :call_no, 'started', :request_hash, :epoch FROM owned
    ON CONFLICT (session_id, candle_number, call_no) DO UPDATE SET
        attempts = model_calls.attempts + CAST(model_calls.status = 'started' AS int),
        status = 'started', epoch = excluded.epoch, started_at = clock_timestamp()
    WHERE model_calls.status <> 'done'
    RETURNING attempts
""")

_COUNT_UNKNOWN = text("""
    UPDATE trading_sessions SET possibly_paid_twice = possibly_paid_twice + 1
    WHERE id = :session_id
""")

_REFUSE_CALL = text("""
    UPDATE model_calls SET status = 'refused', finished_at = clock_timestamp()
    WHERE session_id = :session_id AND candle_number = :candle_number AND call_no = :call_no
        AND status = 'started' AND epoch = :epoch
""")

# The session's row is locked first, here as above: two attempts cannot wait for each other.
_BOOK_CALL = text("""
    WITH owned AS (
        SELECT id FROM trading_sessions WHERE id = :session_id AND epoch = :epoch FOR UPDATE
    ), booked AS (
        UPDATE model_calls SET status = 'done', raw_reply = :raw_reply,
            usage = CAST(:usage AS jsonb), cost_usd = CAST(:cost_usd AS numeric),
            generation_id = :generation_id, model_used = :model_used, latency_ms = :latency_ms,
            finished_at = clock_timestamp()
        FROM owned
        WHERE session_id = owned.id AND candle_number = :candle_number AND call_no = :call_no
            AND status = 'started'
        RETURNING session_id, attempts
    )
    UPDATE trading_sessions SET cost_usd = cost_usd + CAST(:cost_usd AS numeric),
        tokens = tokens + :tokens
    FROM booked WHERE trading_sessions.id = booked.session_id
    RETURNING booked.attempts
""")

_INSERT_DECISION = text("""
    INSERT INTO decisions (id, session_id, candle_number, timestamp, candle_data, indicator_values,
        thought_type, reasoning, decision, confidence, order_data, overrides, prompt_hash,
        prompt_text, model_requested, model_used, tokens_prompt, tokens_completion, cost_usd,
        latency_ms, attempts, invalid_reply, late)
    VALUES (:id, :session_id, :candle_number, to_timestamp(:close_time / 1000.0),
        CAST(:candle_data AS jsonb), CAST(:indicator_values AS jsonb), 'decision', :reasoning,
        :decision, CAST(:confidence AS numeric), CAST(:order_data AS jsonb),
        CAST(:overrides AS jsonb), :prompt_hash, :prompt_text, :model_requested, :model_used,
        :tokens_prompt, :tokens_completion, CAST(:cost_usd AS numeric), :latency_ms, :attempts,
        :invalid_reply, false)
""")

_COUNT_INVALID = text("""
    UPDATE trading_sessions SET invalid_replies = invalid_replies + 1 WHERE id = :session_id
""")

_TOUCH_KEY = text("UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id = :key_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedSession:
    """A session's row while it is locked."""

    epoch: int
    owner_run_id: str | None
    cursor: int
    status: str
    pause_reason: str | None
    playback_speed: str
    stop_close_position: bool | None
    current_equity: float | None
    result_id: UUID | None
    is_decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What never changes once a session has started."""

    user_id: UUID
    agent_id: UUID | None
    agent_version_id: UUID
    agent_name: str
    asset: str
    timeframe: str
    data_set_id: UUID
    data_source: str
    start_date: datetime
    end_date: datetime
    warm_up_candles: int
    total_candles: int
    first_decision_candle: int
    decision_mode: str
    decision_interval_candles: int
    rules: dict[str, Any]
    blind: bool
    max_cost_usd: Decimal | None
    type: str
    started_at: datetime | None
    model: str
    indicators: list[str]
    custom_indicators: list[dict[str, str]]
    strategy_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChange:
    """A session's controls after a signal was applied."""

    status: str
    pause_reason: str | None
    speed: str
    stop_close_position: bool | None
    paused_at: datetime | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBasis:
    """Where a session stands when a decision is due, and the key its agent has at this moment."""

    epoch: int
    cursor: int
    cost_usd: float
    key_id: UUID | None
    encrypted_key: str | None
    key_is_idle: bool
    is_decided: bool


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
    cost_usd: Decimal | None
    model_used: str | None
    latency_ms: int | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedReply:
    """What a model answered and what it cost, to be stored before anyone reads it."""

    raw_reply: str
    usage: dict[str, Any]
    tokens: int
    cost_usd: float
    generation_id: str | None
    model_used: str | None
    latency_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """A decision as it is stored: the agent's words, and what the engine made of them."""

    id: UUID
    candle_number: int
    close_time: int
    candle_data: dict[str, Any]
    indicator_values: dict[str, Any]
    reasoning: str
    decision: str
    confidence: float | None
    order_data: dict[str, Any] | None
    overrides: Sequence[dict[str, Any]]
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


class RunningSessionRepository:
    """A session as its workflow sees it, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self, session_id: UUID) -> LockedSession | None:
        """Lock the session's row until the transaction ends."""
        result = await self._session.execute(_LOCK, {"session_id": session_id})
        row = result.mappings().one_or_none()
        return None if row is None else LockedSession(**row)

    async def own(self, session_id: UUID, run_id: str) -> int:
        """Make `run_id` the owner; return the new epoch."""
        result = await self._session.execute(_OWN, {"session_id": session_id, "run_id": run_id})
        return int(result.scalar_one())

    async def settings(self, session_id: UUID) -> SessionSettings | None:
        result = await self._session.execute(_SETTINGS, {"session_id": session_id})
        row = result.mappings().one_or_none()
        return None if row is None else SessionSettings(**row)

    async def apply_control(self, session_id: UUID, change: ControlChange) -> None:
        """Store the controls; the caller holds the row's lock."""
        error = None if change.error is None else orjson.dumps(change.error).decode()
        await self._session.execute(
            _APPLY_CONTROL,
            {
                "session_id": session_id,
                "status": change.status,
                "pause_reason": change.pause_reason,
                "speed": change.speed,
                "stop_close_position": change.stop_close_position,
                "paused_at": change.paused_at,
                "error": error,
            },
        )

    async def basis(self, session_id: UUID, candle_number: int) -> DecisionBasis | None:
        """What decides whether a model may be asked at a candle, and with which key."""
        result = await self._session.execute(
            _BASIS, {"session_id": session_id, "candle_number": candle_number}
        )
        row = result.mappings().one_or_none()
        return None if row is None else DecisionBasis(**row)

    async def touch_key(self, key_id: UUID) -> None:
        """Note that the key is in use; rarely, since all sessions of a key share its row."""
        await self._session.execute(_TOUCH_KEY, {"key_id": key_id})

    async def decisions_before(
        self, session_id: UUID, candle_number: int, *, limit: int
    ) -> list[PastDecisionRow]:
        """The last decisions before a candle, oldest first."""
        result = await self._session.execute(
            _DECIDED, {"session_id": session_id, "before": candle_number, "limit": limit}
        )
        return [PastDecisionRow(**row) for row in result.mappings()][::-1]

    async def reasoning(self, session_id: UUID, candle_number: int | None) -> str:
        """What the agent said at a candle; empty when it said nothing."""
        if candle_number is None:
            return ""
        result = await self._session.execute(
            _REASONING, {"session_id": session_id, "candle_number": candle_number}
        )
        return result.scalar_one_or_none() or ""

    async def calls(self, session_id: UUID, candle_number: int) -> dict[int, ModelCallRow]:
        """The model calls of a candle by their number."""
        result = await self._session.execute(
            _CALLS, {"session_id": session_id, "candle_number": candle_number}
        )
        return {row["call_no"]: ModelCallRow(**row) for row in result.mappings()}

    async def open_call(
        self,
        session_id: UUID,
        *,
        id: UUID,
        epoch: int,
        candle_number: int,
        call_no: int,
        request_hash: str,
    ) -> bool:
        """Note that a call is about to be made; False when it is done or the epoch has passed.

        A call that was started and never came to an end may have been paid: it is counted.
        """
        result = await self._session.execute(
            _OPEN_CALL,
            {
                "id": id,
                "session_id": session_id,
                "epoch": epoch,
                "candle_number": candle_number,
                "call_no": call_no,
                "request_hash": request_hash,
            },
        )
        attempts = result.scalar_one_or_none()
        if attempts is not None and attempts > 1:
            await self._session.execute(_COUNT_UNKNOWN, {"session_id": session_id})
        return attempts is not None

    async def refuse_call(
        self, session_id: UUID, *, epoch: int, candle_number: int, call_no: int
    ) -> None:
        """Note that the provider answered with an error, so that nothing was bought."""
        await self._session.execute(
            _REFUSE_CALL,
            {
                "session_id": session_id,
                "epoch": epoch,
                "candle_number": candle_number,
                "call_no": call_no,
            },
        )

    async def book_call(
        self, session_id: UUID, reply: BookedReply, *, epoch: int, candle_number: int, call_no: int
    ) -> int | None:
        """Store a reply and its cost once; return the call's attempts.

        None when another attempt or a newer owner was first.
        """
        result = await self._session.execute(
            _BOOK_CALL,
            {
                "session_id": session_id,
                "epoch": epoch,
                "candle_number": candle_number,
                "call_no": call_no,
                "raw_reply": reply.raw_reply,
                "usage": orjson.dumps(reply.usage).decode(),
                "cost_usd": repr(reply.cost_usd),
                "tokens": reply.tokens,
                "generation_id": reply.generation_id,
                "model_used": reply.model_used,
                "latency_ms": reply.latency_ms,
            },
        )
        return result.scalar_one_or_none()

    async def add_decision(self, session_id: UUID, decision: NewDecision) -> None:
        """Insert the decision; a second one for its candle violates a unique key."""
        await self._session.execute(
            _INSERT_DECISION,
            {
                "session_id": session_id,
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
            },
        )
        if decision.invalid_reply:
            await self._session.execute(_COUNT_INVALID, {"session_id": session_id})


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
