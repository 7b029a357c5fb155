"""Everything that an account holds, counted, and read page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import (
    ActivityLog,
    ActivityRecord,
    Agent,
    AgentVersion,
    AgentVersionRecord,
    Base,
    Notification,
    NotificationRecord,
    ResultRecord,
    TestResult,
    TradingSession,
)
from db.models.agents import AgentOnlyRecord

# Row-level security leaves the user's own rows; that of children asks once more for each row, so
# they are counted by session and by agent.
_COUNTS = text("""
    SELECT (SELECT count(*) FROM agents) AS agents,
        (SELECT coalesce(sum((SELECT count(*) FROM agent_versions v WHERE v.agent_id = a.id)), 0)
            FROM agents a)::bigint AS versions,
        (SELECT count(*) FROM test_results) AS results,
        (SELECT count(*) FROM notifications) AS notifications,
        (SELECT count(*) FROM activity_log) AS activities,
        coalesce(sum((SELECT count(*) FROM trades t WHERE t.session_id = s.id)), 0)::bigint
            AS trades,
        coalesce(sum((SELECT count(*) FROM decisions d WHERE d.session_id = s.id)), 0)::bigint
            AS decisions
    FROM trading_sessions s
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCounts:
    """How many there are of each."""

    agents: int
    versions: int
    results: int
    trades: int
    decisions: int
    notifications: int
    activities: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The last row of a page, in the order in which rows were made."""

    created_at: datetime
    id: UUID


Record = TypeVar("Record", bound=Base)


class AccountDataRepository:
    """What the user whose transaction it is has; pages begin after a mark, in order of creation."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def counts(self) -> AccountCounts:
        row = (await self._session.execute(_COUNTS)).mappings().one()
        return AccountCounts(**row)

    async def agents_after(self, mark: Mark | None, *, limit: int) -> Sequence[AgentOnlyRecord]:
        return await self._after(Agent, AgentOnlyRecord, mark, limit)

    async def agent_ids(self) -> Sequence[UUID]:
        """All agents, archived ones as well, the oldest first."""
        return (await self._session.scalars(select(col(Agent.id)).order_by(col(Agent.id)))).all()

    async def versions_after(
        self, agent_id: UUID, after: int, *, limit: int
    ) -> Sequence[AgentVersionRecord]:
        """The versions of an agent after a number, the oldest first."""
        query = select(AgentVersion).where(
            col(AgentVersion.agent_id) == agent_id, col(AgentVersion.version) > after
        )
        found = await self._session.scalars(query.order_by(col(AgentVersion.version)).limit(limit))
        return [AgentVersionRecord.model_validate(each, from_attributes=True) for each in found]

    async def results_after(self, mark: Mark | None, *, limit: int) -> Sequence[ResultRecord]:
        return await self._after(TestResult, ResultRecord, mark, limit)

    async def notifications_after(
        self, mark: Mark | None, *, limit: int
    ) -> Sequence[NotificationRecord]:
        return await self._after(Notification, NotificationRecord, mark, limit)

    async def activities_after(self, mark: Mark | None, *, limit: int) -> Sequence[ActivityRecord]:
        return await self._after(ActivityLog, ActivityRecord, mark, limit)

    async def session_ids(self) -> Sequence[UUID]:
        """All tests, the oldest first."""
        query = select(col(TradingSession.id)).order_by(col(TradingSession.id))
        return (await self._session.scalars(query)).all()

    async def _after(
        self, table: Any, record: type[Record], mark: Mark | None, limit: int
    ) -> Sequence[Record]:
        query = select(table).order_by(table.created_at, table.id).limit(limit)
        if mark is not None:
            query = query.where(
                tuple_(table.created_at, table.id) > tuple_(mark.created_at, mark.id)
            )
        found = await self._session.scalars(query)
        return [record.model_validate(each, from_attributes=True) for each in found]
