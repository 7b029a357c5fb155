"""Decisions of a session, as its result shows them."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col

from db.models import Decision, DecisionRecord

_NO_PROMPT = defer(inspect(Decision).attrs["prompt_text"].class_attribute, raiseload=True)

# By the latest of the earlier tests: what it saw is nearest to what this one will see.
_MEAN_TOKENS = text("""
    SELECT CAST(avg(tokens_prompt) AS float8) AS prompt,
        CAST(avg(tokens_completion) AS float8) AS completion
    FROM (
        SELECT tokens_prompt, tokens_completion FROM decisions
        WHERE tokens_prompt > 0 AND session_id = (
            SELECT s.id FROM trading_sessions s
            WHERE s.agent_version_id = :agent_version_id AND s.id < :before AND EXISTS (
                SELECT 1 FROM decisions d WHERE d.session_id = s.id AND d.tokens_prompt > 0)
            ORDER BY s.id DESC LIMIT 1)
        ORDER BY candle_number DESC LIMIT 100
    ) AS latest HAVING count(*) > 0
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions to show; `acted_only` leaves out the holds. Both candles are included."""

    candle_from: int | None = None
    candle_to: int | None = None
    acted_only: bool = False
    decision: str | None = None
    page: int = 1
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTokens:
    """Tokens of a decision, the repetition after an invalid reply included."""

    prompt: float
    completion: float


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

    async def after(
        self, session_id: UUID, candle_number: int, *, limit: int
    ) -> list[DecisionRecord]:
        """The next decisions after a candle, in order; -1 comes before all of them."""
        query = _without_prompt().where(
            col(Decision.session_id) == session_id, col(Decision.candle_number) > candle_number
        )
        found = await self._session.scalars(
            query.order_by(col(Decision.candle_number)).limit(limit)
        )
        return [_record(decision) for decision in found]

    async def mean_tokens(self, agent_version_id: UUID, *, before: UUID) -> DecisionTokens | None:
        """The mean over the version's last decisions in a test older than the session `before`.

        None where there are none of which the tokens are known.
        """
        rows = await self._session.execute(
            _MEAN_TOKENS, {"agent_version_id": agent_version_id, "before": before}
        )
        row = rows.mappings().one_or_none()
        return None if row is None else DecisionTokens(**row)


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
