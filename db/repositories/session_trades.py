"""Trades as their session's steps write them: absolute values, so that a repeat changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

UPSERT_TRADE: LiteralString = """
    INSERT INTO trades (id, session_id, trade_number, type, entry_price, entry_time, entry_candle,
        decided_candle, entry_reasoning, exit_price, exit_time, exit_candle, exit_decided_candle,
        exit_type, exit_reasoning, size, leverage, margin, fees, slippage_cost, gross_pnl,
        pnl_amount, pnl_pct, stop_loss, take_profit, liquidation_price, ambiguous, overrides,
        sighting)
    VALUES (%(id)s, %(session_id)s, %(trade_number)s, %(type)s, %(entry_price)s::numeric,
        %(entry_time)s, %(entry_candle)s, %(decided_candle)s, %(entry_reasoning)s,
        %(exit_price)s::numeric, %(exit_time)s, %(exit_candle)s, %(exit_decided_candle)s,
        %(exit_type)s, %(exit_reasoning)s, %(size)s::numeric, %(leverage)s::numeric,
        %(margin)s::numeric, %(fees)s::numeric, %(slippage_cost)s::numeric,
        %(gross_pnl)s::numeric, %(pnl_amount)s::numeric, %(pnl_pct)s::numeric,
        %(stop_loss)s::numeric, %(take_profit)s::numeric, %(liquidation_price)s::numeric,
        %(ambiguous)s, %(overrides)s::jsonb, %(sighting)s::jsonb)
    ON CONFLICT (session_id, trade_number) DO UPDATE SET
        exit_price = excluded.exit_price, exit_time = excluded.exit_time,
        exit_candle = excluded.exit_candle, exit_decided_candle = excluded.exit_decided_candle,
        exit_type = excluded.exit_type, exit_reasoning = excluded.exit_reasoning,
        fees = excluded.fees, slippage_cost = excluded.slippage_cost,
        gross_pnl = excluded.gross_pnl, pnl_amount = excluded.pnl_amount,
        pnl_pct = excluded.pnl_pct, ambiguous = excluded.ambiguous,
        sighting = CASE WHEN excluded.sighting->'opened_at' = trades.sighting->'opened_at'
            AND excluded.sighting->'opening' = 'null'
            THEN excluded.sighting || jsonb_build_object('opening', trades.sighting->'opening')
            ELSE coalesce(excluded.sighting, trades.sighting) END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeRow:
    """A trade's row; the exit's columns are None while the position is open. Times in epoch ms."""

    id: UUID
    trade_number: int
    type: str
    entry_price: float
    entry_time: int
    entry_candle: int
    decided_candle: int
    entry_reasoning: str
    size: float
    leverage: float
    margin: float
    fees: float
    slippage_cost: float
    stop_loss: float | None
    take_profit: float | None
    liquidation_price: float | None
    overrides: Sequence[Mapping[str, Any]]
    exit_price: float | None = None
    exit_time: int | None = None
    exit_candle: int | None = None
    exit_decided_candle: int | None = None
    exit_type: str | None = None
    exit_reasoning: str | None = None
    gross_pnl: float | None = None
    pnl_amount: float | None = None
    pnl_pct: float | None = None
    ambiguous: bool = False
    sighting: dict[str, Any] | None = None


_NUMERIC = (
    "entry_price",
    "exit_price",
    "size",
    "leverage",
    "margin",
    "fees",
    "slippage_cost",
    "gross_pnl",
    "pnl_amount",
    "pnl_pct",
    "stop_loss",
    "take_profit",
    "liquidation_price",
)


class SessionTradeRepository:
    """Writes trades, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(self, session_id: UUID, trade: TradeRow) -> None:
        """Insert the trade, or complete the row of its entry."""
        connection = await self._session.connection()
        await connection.exec_driver_sql(UPSERT_TRADE, trade_values(session_id, trade))


def trade_values(session_id: UUID, trade: TradeRow) -> dict[str, Any]:
    """The parameters of `UPSERT_TRADE`."""
    values = asdict(trade) | {"session_id": session_id}
    # As text: PostgreSQL keeps only 15 digits of a float8 that it casts to numeric.
    values |= {name: _number(values[name]) for name in _NUMERIC}
    values |= {name: _time(values[name]) for name in ("entry_time", "exit_time")}
    values["overrides"] = orjson.dumps(trade.overrides).decode()
    sighting = trade.sighting
    values["sighting"] = None if sighting is None else orjson.dumps(sighting).decode()
    return values


def _number(value: float | None) -> str | None:
    return None if value is None else repr(value)


def _time(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
