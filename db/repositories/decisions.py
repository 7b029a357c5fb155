"""Decisions of a session, as its result shows them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col

from db.models import Decision, DecisionRecord

_NO_PROMPT = defer(inspect(Decision).attrs["prompt_text"].class_attribute, raiseload=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions to show; `acted_only` leaves out the holds. Both candles are included."""

    candle_from: int | None = None
    candle_to: int | None = None
    acted_only: bool = False
    decision: str | None = None
    page: int = 1
    limit: int = 100


class DecisionRepository:
    """Decisions of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(
        self, session_id: UUID, wanted: DecisionFilter
    ) -> tuple[list[DecisionRecord], int]:
        """Return a page of decisions in candle order, and how many match in all."""
        matching = [col(Decision.session_id) == session_id, *_conditions(wanted)]
        query = _without_prompt().where(*matching).order_by(col(Decision.candle_number))
        found = await self._session.scalars(
            query.limit(wanted.limit).offset((wanted.page - 1) * wanted.limit)
        )
        counted = select(func.count()).select_from(Decision).where(*matching)
        total = (await self._session.scalars(counted)).one()
        return [_record(decision) for decision in found], total

    async def stream(self, session_id: UUID) -> AsyncIterator[DecisionRecord]:
        """Yield every decision without holding them all."""
        query = _without_prompt().where(col(Decision.session_id) == session_id)
        found = await self._session.stream_scalars(query.order_by(col(Decision.candle_number)))
        async for decision in found:
            yield _record(decision)


def _without_prompt() -> Select[Decision]:
    return select(Decision).options(_NO_PROMPT)


def _conditions(wanted: DecisionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.candle_from is not None:
        conditions.append(col(Decision.candle_number) >= wanted.candle_from)
    if wanted.candle_to is not None:
        conditions.append(col(Decision.candle_number) <= wanted.candle_to)
    if wanted.acted_only:
        conditions.append(col(Decision.decision) != "hold")
    if wanted.decision is not None:
        conditions.append(col(Decision.decision) == wanted.decision)
    return conditions


def _record(decision: Decision) -> DecisionRecord:
    return DecisionRecord.model_validate(decision, from_attributes=True)
