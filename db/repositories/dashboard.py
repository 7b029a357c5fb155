"""What a user's dashboard shows at a glance."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Row-level security leaves the user's own rows. A day begins where the user lives.
_STATS = text("""
    WITH recent AS (
        SELECT avg(win_rate) FILTER (WHERE created_at >= now() - interval '7 days') AS this_week,
            avg(win_rate) FILTER (WHERE created_at < now() - interval '7 days') AS last_week
        FROM test_results WHERE created_at >= now() - interval '14 days'
    ), today AS (
        SELECT date_trunc('day', now(), CAST(:timezone AS text)) AS began_at
    ), best AS (
        SELECT id, name FROM agents WHERE NOT is_archived AND best_pnl IS NOT NULL
        ORDER BY best_pnl DESC, id LIMIT 1
    )
    SELECT
        (SELECT count(*) FROM agents WHERE NOT is_archived) AS total_agents,
        (SELECT count(*) FROM test_results) AS tests_run,
        (SELECT max(total_pnl_pct) FROM test_results)::float8 AS best_pnl,
        (SELECT avg(win_rate) FROM test_results)::float8 AS avg_win_rate,
        (SELECT count(*) FROM agents WHERE created_at >= now() - interval '7 days')
            AS agents_this_week,
        (SELECT count(*) FROM trading_sessions WHERE created_at >=
            (SELECT began_at FROM today)) AS tests_today,
        (SELECT this_week - last_week FROM recent)::float8 AS win_rate_change,
        (SELECT id FROM best) AS best_agent_id,
        (SELECT name FROM best) AS best_agent_name
""")

# That a test has started or failed stands in its own row.
_ACTIVITY = text("""
    SELECT * FROM (
        (SELECT id, activity_type AS type, agent_id, agent_name, description, pnl::float8 AS pnl,
            session_id, NULL::text AS session_type, result_id, created_at AS at
        FROM activity_log ORDER BY created_at DESC, id DESC LIMIT :limit)
        UNION ALL
        (SELECT id, 'test_started', agent_id, agent_name,
            initcap(type) || ' on ' || asset || ' ' || timeframe || ' started', NULL,
            id, type, NULL, created_at
        FROM trading_sessions ORDER BY created_at DESC, id DESC LIMIT :limit)
        UNION ALL
        (SELECT id, 'test_failed', agent_id, agent_name,
            initcap(type) || ' on ' || asset || ' ' || timeframe || ' failed', NULL,
            id, type, NULL, completed_at
        FROM trading_sessions WHERE status = 'failed' AND completed_at IS NOT NULL
        ORDER BY completed_at DESC, id DESC LIMIT :limit)
    ) AS lines ORDER BY at DESC, id DESC LIMIT :limit
""")

_PROGRESS = text("""
    SELECT EXISTS (SELECT 1 FROM agents) AS has_agent,
        EXISTS (SELECT 1 FROM test_results WHERE type = 'backtest') AS has_backtest,
        EXISTS (SELECT 1 FROM certificates) AS has_certificate
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardStats:
    """A user's figures in percent; None where there is nothing to measure yet.

    `win_rate_change` is the mean of the last seven days less that of the seven before, in
    percentage points.
    """

    total_agents: int
    tests_run: int
    best_pnl: float | None
    avg_win_rate: float | None
    agents_this_week: int
    tests_today: int
    win_rate_change: float | None
    best_agent_id: UUID | None
    best_agent_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """Something that the user or one of the user's tests did; `id` is unique with the type."""

    id: UUID
    type: str
    agent_id: UUID | None
    agent_name: str | None
    description: str
    pnl: float | None
    session_id: UUID | None
    session_type: str | None
    result_id: UUID | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSteps:
    """How far a new user has come."""

    has_agent: bool
    has_backtest: bool
    has_certificate: bool


class DashboardRepository:
    """The dashboard of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def stats(self, timezone: str) -> DashboardStats:
        """Return the figures; `timezone` is the IANA zone in which today began."""
        rows = await self._session.execute(_STATS, {"timezone": timezone})
        return DashboardStats(**rows.mappings().one())

    async def history(self, limit: int) -> list[HistoryLine]:
        """Return what happened last, the newest first."""
        rows = await self._session.execute(_ACTIVITY, {"limit": limit})
        return [HistoryLine(**row) for row in rows.mappings()]

    async def first_steps(self) -> FirstSteps:
        return FirstSteps(**(await self._session.execute(_PROGRESS)).mappings().one())
