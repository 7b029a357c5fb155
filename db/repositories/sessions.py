"""Trading sessions as the API starts and shows them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import (
    Decision,
    NewSession,
    SessionRecord,
    SessionStatus,
    TestResult,
    Trade,
    TradingSession,
    User,
)
from db.models.sessions import UNFINISHED

_STARTED = ("initializing", "running", "paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleSession:
    """A session that should have a workflow, or should have none any more."""

    id: UUID
    user_id: UUID
    type: Literal["backtest", "forward"]
    status: str
    agent_name: str
    asset: str
    timeframe: str
    mode: str
    data_set_id: UUID | None


class SessionRepository:
    """Sessions of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, new: NewSession) -> SessionRecord:
        """Store a session; commit before its workflow is started."""
        row = TradingSession.model_validate(new.model_dump())
        self._session.add(row)
        await self._session.flush()
        await self._session.refresh(row)
        return SessionRecord.model_validate(row, from_attributes=True)

    async def get(self, session_id: UUID) -> SessionRecord | None:
        """Return a session."""
        found = await self._session.get(TradingSession, session_id, populate_existing=True)
        if found is None:
            return None
        return SessionRecord.model_validate(found, from_attributes=True)

    async def status(self, session_id: UUID, *, type: str | None = None) -> SessionStatus | None:
        """Return a session with its trades and decisions counted, if it is of that type."""
        found = await self._statuses(col(TradingSession.id) == session_id, *_of_type(type))
        return found[0] if found else None

    async def active(self, *, type: str | None = None) -> list[SessionStatus]:
        """Return the sessions that have not ended, the newest first."""
        return await self._statuses(col(TradingSession.status).in_(UNFINISHED), *_of_type(type))

    async def count_active(self, user_id: UUID) -> int | None:
        """How many sessions have not ended; starts of one user wait for each other from here on.

        None for a user who was deactivated: whoever does that waits for this lock as well.
        """
        user = select(col(User.is_active)).where(col(User.id) == user_id)
        if not await self._session.scalar(user.with_for_update(key_share=True)):
            return None
        query = select(func.count()).where(
            col(TradingSession.user_id) == user_id, col(TradingSession.status).in_(UNFINISHED)
        )
        return (await self._session.scalars(query)).one()

    async def has_profitable_backtest(self, agent_id: UUID) -> bool:
        """Whether the agent has come out ahead once, with at least one trade."""
        profitable = select(col(TestResult.id)).where(
            col(TestResult.agent_id) == agent_id,
            col(TestResult.type) == "backtest",
            col(TestResult.is_profitable).is_(True),
            col(TestResult.total_trades) > 0,
        )
        return (await self._session.scalars(profitable.limit(1))).first() is not None

    async def _statuses(self, *conditions: ColumnElement[bool]) -> list[SessionStatus]:
        query = _with_counts().where(*conditions).order_by(col(TradingSession.id).desc())
        rows = await self._session.execute(query.execution_options(populate_existing=True))
        return [
            SessionStatus.model_validate(
                row.TradingSession.model_dump()
                | {
                    "trades_count": row.trades_count,
                    "trades_won": row.trades_won,
                    "decisions_count": row.decisions_count,
                    "result_id": row.result_id,
                }
            )
            for row in rows
        ]


class ReconcileRepository:
    """Sessions of all users; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def stale(self, unchanged_for: timedelta) -> list[StaleSession]:
        """Return started sessions whose row has not changed for that long, the oldest first."""
        return await self._started(
            col(TradingSession.updated_at) < func.clock_timestamp() - unchanged_for,
        )

    async def of_the_deactivated(self, user_id: UUID | None = None) -> list[StaleSession]:
        """Return the started sessions of users who were deactivated: of all, or of this one."""
        return await self._started(
            col(TradingSession.user_id).in_(select(col(User.id)).where(~col(User.is_active))),
            *([] if user_id is None else [col(TradingSession.user_id) == user_id]),
        )

    async def _started(self, *conditions: ColumnElement[bool]) -> list[StaleSession]:
        columns = [getattr(TradingSession, name) for name in StaleSession.__slots__]
        query = select(*columns).where(col(TradingSession.status).in_(_STARTED), *conditions)
        rows = await self._session.execute(query.order_by(col(TradingSession.updated_at)))
        return [StaleSession(**row) for row in rows.mappings()]


def _of_type(type: str | None) -> list[ColumnElement[bool]]:
    return [] if type is None else [col(TradingSession.type) == type]


def _with_counts() -> Any:
    closed = and_(
        col(Trade.session_id) == col(TradingSession.id), col(Trade.exit_price).is_not(None)
    )
    decided = col(Decision.session_id) == col(TradingSession.id)
    finished = col(TestResult.session_id) == col(TradingSession.id)
    trades = select(func.count()).select_from(Trade).where(closed)
    return select(
        TradingSession,
        trades.scalar_subquery().label("trades_count"),
        trades.where(col(Trade.pnl_amount) > 0).scalar_subquery().label("trades_won"),
        select(func.count()).where(decided).scalar_subquery().label("decisions_count"),
        select(col(TestResult.id)).where(finished).scalar_subquery().label("result_id"),
    )
