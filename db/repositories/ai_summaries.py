"""What the summary of a finished test is written from, and where it is kept."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_BASIS = text("""
    SELECT s.epoch, CAST(s.cost_usd AS float8) AS cost_usd, r.id AS result_id, r.ai_summary,
        r.total_candles AS candles, k.encrypted_key,
        (SELECT CAST(max(c.cost_usd) AS float8) FROM model_calls c WHERE c.session_id = s.id)
            AS dearest_call_usd
    FROM trading_sessions s JOIN test_results r ON r.session_id = s.id
    JOIN users u ON u.id = s.user_id
    LEFT JOIN agents a ON a.id = s.agent_id
    LEFT JOIN api_keys k ON k.id = a.api_key_id AND u.is_active
    WHERE s.id = :session_id
""")

# The best, the worst and the last of each, as far as there are so many.
_TRADES = text("""
    SELECT trade_number, type, exit_type, exit_candle - entry_candle AS held,
        CAST(pnl_amount AS float8) AS pnl_amount, CAST(pnl_pct AS float8) AS pnl_pct
    FROM (
        SELECT *, row_number() OVER (ORDER BY pnl_amount DESC, trade_number) AS best,
            row_number() OVER (ORDER BY pnl_amount, trade_number) AS worst,
            row_number() OVER (ORDER BY trade_number DESC) AS latest
        FROM trades WHERE session_id = :session_id AND exit_candle IS NOT NULL
    ) AS ranked
    WHERE best <= :each OR worst <= :each OR latest <= :each ORDER BY trade_number
""")

_KEEP = text("""
    UPDATE test_results SET ai_summary = :summary
    WHERE session_id = :session_id AND ai_summary IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryBasis:
    """A finished session: what it has cost, what would pay for a summary, and one it may have.

    The key of a user who was deactivated pays for nothing.
    """

    epoch: int
    cost_usd: float
    result_id: UUID
    ai_summary: str | None
    candles: int
    encrypted_key: str | None
    dearest_call_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotableTrade:
    """A closed trade without its prices and times; `held` counts candles."""

    trade_number: int
    type: str
    exit_type: str
    held: int
    pnl_amount: float
    pnl_pct: float


class AiSummaryRepository:
    """Summaries of results, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def basis(self, session_id: UUID) -> SummaryBasis | None:
        """None where the session has no result (any more)."""
        result = await self._session.execute(_BASIS, {"session_id": session_id})
        row = result.mappings().one_or_none()
        return None if row is None else SummaryBasis(**row)

    async def notable_trades(self, session_id: UUID, *, each: int) -> list[NotableTrade]:
        """The best, the worst and the last trades, so many of each, in order."""
        result = await self._session.execute(_TRADES, {"session_id": session_id, "each": each})
        return [NotableTrade(**row) for row in result.mappings()]

    async def keep(self, session_id: UUID, summary: str) -> None:
        """Store the summary of a result that has none yet."""
        await self._session.execute(_KEEP, {"session_id": session_id, "summary": summary})
