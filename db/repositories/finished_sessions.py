"""What the end of a test reads back, and how it marks the session's row."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_TRADES = text("""
    SELECT trade_number, type, CAST(entry_price AS float8) AS entry_price,
        CAST(extract(epoch FROM entry_time) * 1000 AS bigint) AS entry_time, entry_candle,
        decided_candle, CAST(exit_price AS float8) AS exit_price,
        CAST(extract(epoch FROM exit_time) * 1000 AS bigint) AS exit_time, exit_candle, exit_type,
        exit_decided_candle, CAST(size AS float8) AS size, CAST(leverage AS float8) AS leverage,
        CAST(margin AS float8) AS margin, CAST(fees AS float8) AS fees,
        CAST(slippage_cost AS float8) AS slippage_cost, CAST(gross_pnl AS float8) AS gross_pnl,
        CAST(pnl_amount AS float8) AS pnl_amount, CAST(stop_loss AS float8) AS stop_loss,
        CAST(take_profit AS float8) AS take_profit, ambiguous, sighting
    FROM trades WHERE session_id = :session_id AND exit_candle IS NOT NULL ORDER BY trade_number
""")

_DECISIONS = text("""
    SELECT candle_number, decision, order_data FROM decisions
    WHERE session_id = :session_id AND NOT late ORDER BY candle_number
""")

_TOTALS = text("""
    SELECT CAST(cost_usd AS float8) AS cost_usd, tokens, invalid_replies,
        possibly_paid_twice + (SELECT count(*) FROM model_calls c
            WHERE c.session_id = s.id AND c.status = 'started') AS possibly_paid_twice,
        missed_candles, paused_candles, late_decisions, started_at, data_fingerprint,
        model_source,
        (SELECT count(*) FROM decisions d WHERE d.session_id = s.id) AS decisions,
        (SELECT count(*) FROM decisions d WHERE d.session_id = s.id AND d.overrides <> '[]')
            AS overridden_decisions
    FROM trading_sessions s WHERE id = :session_id
""")

_END = text("""
    UPDATE trading_sessions SET status = :status, end_reason = :end_reason, completed_at = :at,
        current_equity = CAST(:equity AS numeric), current_pnl_pct = CAST(:pnl_pct AS numeric),
        max_drawdown_pct = CAST(:max_drawdown_pct AS numeric),
        elapsed_seconds = extract(epoch FROM CAST(:at AS timestamptz) - started_at),
        open_position = CASE WHEN :keeps_position THEN open_position END,
        pause_reason = NULL, paused_at = NULL, error = NULL
    WHERE id = :session_id
""")

_FAIL = text("""
    UPDATE trading_sessions SET status = 'failed', end_reason = 'system_error', completed_at = :at,
        epoch = epoch + 1,  -- whatever still runs comes too late
        error = CAST(:error AS jsonb),
        elapsed_seconds = coalesce(extract(epoch FROM CAST(:at AS timestamptz) - started_at), 0)
    WHERE id = :session_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """A closed trade with its numbers to the last bit; times in epoch ms."""

    trade_number: int
    type: str
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    exit_price: float
    exit_time: int
    exit_candle: int
    exit_type: str
    exit_decided_candle: int | None
    size: float
    leverage: float
    margin: float
    fees: float
    slippage_cost: float
    gross_pnl: float
    pnl_amount: float
    stop_loss: float | None
    take_profit: float | None
    ambiguous: bool
    sighting: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """A decision as far as it can be replayed."""

    candle_number: int
    decision: str
    order_data: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTotals:
    """What a session has counted on its way."""

    cost_usd: float
    tokens: int
    invalid_replies: int
    possibly_paid_twice: int
    missed_candles: int
    paused_candles: int
    late_decisions: int
    started_at: datetime
    data_fingerprint: str | None
    model_source: str | None
    decisions: int
    overridden_decisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """How a session ended, as its row shows it; percentages as the live figures have them."""

    status: str
    end_reason: str
    at: datetime
    equity: float
    pnl_pct: float
    max_drawdown_pct: float
    keeps_position: bool


class FinishedSessionRepository:
    """The end of sessions, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def trades(self, session_id: UUID) -> list[ClosedTrade]:
        """Every closed trade, in order."""
        result = await self._session.execute(_TRADES, {"session_id": session_id})
        return [ClosedTrade(**row) for row in result.mappings()]

    async def decisions(self, session_id: UUID) -> list[RecordedDecision]:
        """Every decision that was in time, in order."""
        result = await self._session.execute(_DECISIONS, {"session_id": session_id})
        return [RecordedDecision(**row) for row in result.mappings()]

    async def totals(self, session_id: UUID) -> SessionTotals:
        result = await self._session.execute(_TOTALS, {"session_id": session_id})
        return SessionTotals(**result.mappings().one())

    async def end(self, session_id: UUID, end: SessionEnd) -> None:
        """Mark the session as ended; the caller holds the row's lock."""
        await self._session.execute(
            _END,
            {
                "session_id": session_id,
                "status": end.status,
                "end_reason": end.end_reason,
                "at": end.at,
                "equity": repr(end.equity),
                "pnl_pct": repr(end.pnl_pct),
                "max_drawdown_pct": repr(end.max_drawdown_pct),
                "keeps_position": end.keeps_position,
            },
        )

    async def fail(self, session_id: UUID, error: Mapping[str, Any], *, at: datetime) -> None:
        """Mark the session as failed; the caller holds the row's lock."""
        values = {"session_id": session_id, "at": at, "error": orjson.dumps(error).decode()}
        await self._session.execute(_FAIL, values)
