"""Trades of a session, as its result shows them."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import Trade, TradeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFilter:
    """Which trades to show; `search` looks into both reasonings."""

    direction: str | None = None
    outcome: Literal["win", "loss"] | None = None
    search: str | None = None
    page: int = 1
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeSummary:
    """Of all matching trades that are closed; averages of the net amounts, None without any."""

    total: int
    wins: int
    losses: int
    avg_win: float | None
    avg_loss: float | None


class TradeRepository:
    """Trades of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(
        self, session_id: UUID, wanted: TradeFilter
    ) -> tuple[list[TradeRecord], TradeSummary, int]:
        """Return a page of trades in their order, a summary, and how many match in all."""
        matching = [col(Trade.session_id) == session_id, *_conditions(wanted)]
        query = select(Trade).where(*matching).order_by(col(Trade.trade_number))
        found = await self._session.scalars(
            query.limit(wanted.limit).offset((wanted.page - 1) * wanted.limit)
        )
        summary, total = await self._summary(matching)
        return [_record(trade) for trade in found], summary, total

    async def after(self, session_id: UUID, trade_number: int, *, limit: int) -> list[TradeRecord]:
        """The next trades after a number, in order; 0 comes before all of them."""
        query = select(Trade).where(
            col(Trade.session_id) == session_id, col(Trade.trade_number) > trade_number
        )
        found = await self._session.scalars(query.order_by(col(Trade.trade_number)).limit(limit))
        return [_record(trade) for trade in found]

    async def _summary(self, matching: list[ColumnElement[bool]]) -> tuple[TradeSummary, int]:
        pnl = col(Trade.pnl_amount)
        query = select(
            func.count(),
            func.count(pnl),
            func.count().filter(pnl > 0),
            func.count().filter(pnl <= 0),
            func.avg(pnl).filter(pnl > 0),
            func.avg(pnl).filter(pnl <= 0),
        ).where(*matching)
        total, closed, wins, losses, avg_win, avg_loss = (await self._session.execute(query)).one()
        summary = TradeSummary(
            total=closed,
            wins=wins,
            losses=losses,
            avg_win=None if avg_win is None else float(avg_win),
            avg_loss=None if avg_loss is None else float(avg_loss),
        )
        return summary, total


def _conditions(wanted: TradeFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.direction is not None:
        conditions.append(col(Trade.type) == wanted.direction)
    if wanted.outcome is not None:
        won = col(Trade.pnl_amount) > 0
        conditions.append(won if wanted.outcome == "win" else col(Trade.pnl_amount) <= 0)
    if wanted.search:
        conditions.append(
            or_(
                col(Trade.entry_reasoning).icontains(wanted.search, autoescape=True),
                col(Trade.exit_reasoning).icontains(wanted.search, autoescape=True),
            )
        )
    return conditions


def _record(trade: Trade) -> TradeRecord:
    return TradeRecord.model_validate(trade, from_attributes=True)
