"""What only a check of parity reads back: what a test met on its way, and what it left open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_OPEN = text("""
    SELECT trade_number, type, CAST(entry_price AS float8) AS entry_price,
        CAST(extract(epoch FROM entry_time) * 1000 AS bigint) AS entry_time, entry_candle,
        decided_candle, CAST(size AS float8) AS size, CAST(leverage AS float8) AS leverage,
        CAST(margin AS float8) AS margin, CAST(fees AS float8) AS fees,
        CAST(slippage_cost AS float8) AS slippage_cost, CAST(stop_loss AS float8) AS stop_loss,
        CAST(take_profit AS float8) AS take_profit,
        CAST(liquidation_price AS float8) AS liquidation_price, sighting
    FROM trades WHERE session_id = :session_id AND exit_candle IS NULL ORDER BY trade_number
""")

_CANDLE = """
    CAST(candle->>'open_time' AS bigint), CAST(candle->>'open' AS float8),
    CAST(candle->>'high' AS float8), CAST(candle->>'low' AS float8),
    CAST(candle->>'close' AS float8), CAST(candle->>'volume' AS float8)
"""

# A forward test tells of every candle; of a backtest's, those that were decided on are kept.
_SEEN: Mapping[str, Any] = {
    "forward": text(f"""
        SELECT candle_number, {_CANDLE} FROM (
            SELECT s.candle_number, event->'data' AS candle
            FROM steps s, jsonb_array_elements(s.events) AS event
            WHERE s.session_id = :session_id AND s.phase = 'step'
                AND event->>'event' = 'candle_closed'
        ) AS told ORDER BY candle_number
    """),  # noqa: S608 - a constant of this module
    "backtest": text(f"""
        SELECT candle_number, {_CANDLE} FROM (
            SELECT d.candle_number, d.candle_data AS candle FROM decisions d
            JOIN trading_sessions s ON s.id = d.session_id AND NOT s.blind
            WHERE d.session_id = :session_id
        ) AS told ORDER BY candle_number
    """),  # noqa: S608 - a constant of this module
}

_LIVE_PRICES = text("""
    SELECT candle_number, CAST(live_price AS float8) FROM decisions
    WHERE session_id = :session_id AND live_price IS NOT NULL
""")

_TOLD = text("""
    SELECT candle_number, decision, order_data, CAST(confidence AS float8) AS confidence, reasoning,
        prompt_hash, model_used, CAST(live_price AS float8) AS live_price, late, invalid_reply
    FROM decisions WHERE session_id = :session_id AND candle_number > :after
    ORDER BY candle_number LIMIT :limit
""")

_ENDING_EQUITY = text("""
    SELECT CAST(ending_capital AS float8) FROM test_results WHERE session_id = :session_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTrade:
    """A trade that has no exit, with its numbers to the last bit; times in epoch ms."""

    trade_number: int
    type: str
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    size: float
    leverage: float
    margin: float
    fees: float
    slippage_cost: float
    stop_loss: float | None
    take_profit: float | None
    liquidation_price: float | None
    sighting: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldDecision:
    """A decision with what was said about it, late ones among them; `confidence` in percent."""

    candle_number: int
    decision: str
    order_data: dict[str, Any] | None
    confidence: float | None
    reasoning: str
    prompt_hash: str
    model_used: str | None
    live_price: float | None
    late: bool
    invalid_reply: bool


class RecordingRepository:
    """Recordings of ended sessions, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def open_trades(self, session_id: UUID) -> list[OpenTrade]:
        """The trades without an exit: at most one, unless somebody has been at the table."""
        result = await self._session.execute(_OPEN, {"session_id": session_id})
        return [OpenTrade(**row) for row in result.mappings()]

    async def seen_candles(
        self, session_id: UUID, type: Literal["backtest", "forward"]
    ) -> list[Sequence[Any]]:
        """Number, open time, open, high, low, close and volume of candles as they were met.

        None of them for a blind backtest, whose agent was shown other prices.
        """
        result = await self._session.execute(_SEEN[type], {"session_id": session_id})
        return [tuple(row) for row in result]

    async def live_prices(self, session_id: UUID) -> dict[int, float]:
        """The market's price when a decision's order filled, by the candle of the decision."""
        result = await self._session.execute(_LIVE_PRICES, {"session_id": session_id})
        return {int(candle): float(price) for candle, price in result}

    async def told_after(
        self, session_id: UUID, candle_number: int, *, limit: int
    ) -> list[ToldDecision]:
        """The next decisions after a candle, in order; -1 comes before all of them."""
        values = {"session_id": session_id, "after": candle_number, "limit": limit}
        result = await self._session.execute(_TOLD, values)
        return [ToldDecision(**row) for row in result.mappings()]

    async def ending_equity(self, session_id: UUID) -> float:
        """What the result says; there is one, as the session has ended."""
        result = await self._session.execute(_ENDING_EQUITY, {"session_id": session_id})
        return float(result.scalar_one())
