"""Results, and the statistics of the agents they belong to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import Agent, Certificate, NewResult, ResultListed, ResultRecord, TestResult

# Optional in the model only because the database computes it.
_IS_PROFITABLE: ColumnElement[bool] = literal_column("test_results.is_profitable", Boolean)

_HAS_CERTIFICATE = (
    exists().where(col(Certificate.result_id) == col(TestResult.id)).label("has_certificate")
)

# Row-level security leaves the user's own rows.
_FIGURES = text("""
    SELECT count(*) AS total_tests, count(*) FILTER (WHERE is_profitable) AS profitable,
        max(total_pnl_pct)::float8 AS best_result, min(total_pnl_pct)::float8 AS worst_result,
        avg(total_pnl_pct)::float8 AS avg_pnl,
        count(*) FILTER (WHERE type = 'backtest') AS backtests,
        count(*) FILTER (WHERE type = 'backtest' AND is_profitable) AS profitable_backtests,
        count(*) FILTER (WHERE type = 'forward') AS forward_tests,
        count(*) FILTER (WHERE type = 'forward' AND is_profitable) AS profitable_forward_tests
    FROM test_results
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFilter:
    """Which results to list, the newest first; `search` is for agent name and asset."""

    search: str | None = None
    type: Literal["backtest", "forward"] | None = None
    profitable: bool | None = None
    agent_id: UUID | None = None
    asset: str | None = None
    mode: str | None = None
    from_date: datetime | None = None
    to_date: datetime | None = None
    page: int = 1
    limit: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFigures:
    """All results of a user at a glance; returns in percent, None without any result."""

    total_tests: int
    profitable: int
    best_result: float | None
    worst_result: float | None
    avg_pnl: float | None
    backtests: int
    profitable_backtests: int
    forward_tests: int
    profitable_forward_tests: int


class ResultRepository:
    """Results of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(self, wanted: ResultFilter) -> tuple[list[ResultListed], int]:
        """Return a page of results and how many match in all."""
        matching = _conditions(wanted)
        own = ResultListed.model_fields.keys() - {"has_certificate"}
        columns = [*(getattr(TestResult, name) for name in own), _HAS_CERTIFICATE]
        rows = await self._session.execute(
            select(*columns)
            .where(*matching)
            .order_by(col(TestResult.created_at).desc(), col(TestResult.id).desc())
            .limit(wanted.limit)
            .offset((wanted.page - 1) * wanted.limit)
        )
        counted = select(func.count()).select_from(TestResult).where(*matching)
        total = (await self._session.scalars(counted)).one()
        return [ResultListed.model_validate(dict(row)) for row in rows.mappings()], total

    async def get(self, result_id: UUID) -> ResultRecord | None:
        """Return a whole result."""
        found = await self._session.get(TestResult, result_id, populate_existing=True)
        if found is None:
            return None
        certificate = await self._session.scalar(
            select(col(Certificate.id)).where(col(Certificate.result_id) == result_id)
        )
        record = ResultRecord.model_validate(found, from_attributes=True)
        return record.model_copy(update={"certificate_id": certificate})

    async def figures(self) -> ResultFigures:
        return ResultFigures(**(await self._session.execute(_FIGURES)).mappings().one())

    async def add(self, new: NewResult) -> bool:
        """Store a result and bring its agent's statistics up to date; False when it was stored.

        The agent is locked first, so that two results of one agent both count.
        """
        if new.agent_id is not None:
            await self._session.execute(
                select(col(Agent.id))
                .where(col(Agent.id) == new.agent_id)
                .with_for_update(key_share=True)
            )
        stored = await self._session.scalar(
            insert(TestResult)
            .values(**new.model_dump())
            .on_conflict_do_nothing()
            .returning(col(TestResult.id))
        )
        if stored is not None and new.agent_id is not None:
            await self._count(new.agent_id)
        return stored is not None

    async def _count(self, agent_id: UUID) -> None:
        """Recompute the agent's statistics from its results: absolute, so never counted twice."""
        counted = (
            select(
                col(TestResult.agent_id),
                func.count().label("tests_run"),
                func.max(col(TestResult.total_pnl_pct)).label("best_pnl"),
                func.count().filter(_IS_PROFITABLE).label("profitable"),
                func.avg(col(TestResult.win_rate)).label("win_rate"),
                func.avg(col(TestResult.max_drawdown_pct)).label("drawdown"),
            )
            .where(col(TestResult.agent_id) == agent_id)
            .group_by(col(TestResult.agent_id))
            .subquery()
        )
        await self._session.execute(
            update(Agent)
            .where(col(Agent.id) == agent_id, col(Agent.id) == counted.c.agent_id)
            .values(
                tests_run=counted.c.tests_run,
                best_pnl=counted.c.best_pnl,
                total_profitable_tests=counted.c.profitable,
                avg_win_rate=counted.c.win_rate,
                avg_drawdown=counted.c.drawdown,
            )
            .execution_options(synchronize_session=False)
        )


def _conditions(wanted: ResultFilter) -> list[ColumnElement[bool]]:
    conditions = [
        col(getattr(TestResult, name)) == value
        for name, value in (
            ("type", wanted.type),
            ("is_profitable", wanted.profitable),
            ("agent_id", wanted.agent_id),
            ("asset", wanted.asset),
            ("mode", wanted.mode),
        )
        if value is not None
    ]
    if wanted.search:
        conditions.append(
            or_(
                col(TestResult.agent_name).icontains(wanted.search, autoescape=True),
                # An asset may be written as its id: btc-usdt.
                col(TestResult.asset).icontains(wanted.search.replace("-", "/"), autoescape=True),
            )
        )
    if wanted.from_date is not None:
        conditions.append(col(TestResult.created_at) >= wanted.from_date)
    if wanted.to_date is not None:
        conditions.append(col(TestResult.created_at) < wanted.to_date)
    return conditions
