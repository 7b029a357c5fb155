"""What a workflow run reads and writes of its session, besides the steps themselves."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
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
        s.max_cost_usd, s.ai_summary, s.type, v.model, v.indicators, v.custom_indicators,
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
        error = CASE WHEN CAST(:error AS jsonb) IS NOT NULL THEN CAST(:error AS jsonb)
            WHEN pause_reason IS NOT DISTINCT FROM CAST(:pause_reason AS text) THEN error END
    WHERE id = :session_id
""")

_REASONING = text("""
    SELECT reasoning FROM decisions
    WHERE session_id = :session_id AND candle_number = :candle_number
""")


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
    end_date: datetime | None
    warm_up_candles: int
    total_candles: int
    first_decision_candle: int
    decision_mode: str
    decision_interval_candles: int
    rules: dict[str, Any]
    blind: bool
    max_cost_usd: Decimal | None
    ai_summary: bool
    type: str
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

    async def reasoning(self, session_id: UUID, candle_number: int | None) -> str:
        """What the agent said at a candle; empty when it said nothing."""
        if candle_number is None:
            return ""
        result = await self._session.execute(
            _REASONING, {"session_id": session_id, "candle_number": candle_number}
        )
        return result.scalar_one_or_none() or ""
