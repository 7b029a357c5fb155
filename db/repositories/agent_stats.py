"""What the tests of an agent came to."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Tests that failed have no result, and may have cost something all the same.
_TOTALS = text("""
    SELECT count(*) AS total_tests, count(*) FILTER (WHERE is_profitable) AS profitable_tests,
        max(total_pnl_pct)::float8 AS best_pnl, min(total_pnl_pct)::float8 AS worst_pnl,
        avg(total_pnl_pct)::float8 AS avg_pnl, avg(win_rate)::float8 AS avg_win_rate,
        avg(max_drawdown_pct)::float8 AS avg_drawdown,
        coalesce(sum(total_trades), 0)::bigint AS total_trades,
        max(sharpe_ratio)::float8 AS best_sharpe,
        (SELECT coalesce(sum(cost_usd), 0)::float8 FROM trading_sessions
            WHERE agent_id = :agent_id) AS total_cost_usd
    FROM test_results WHERE agent_id = :agent_id
""")

_BY_ASSET = text("""
    SELECT asset, count(*) AS tests, avg(total_pnl_pct)::float8 AS avg_pnl
    FROM test_results WHERE agent_id = :agent_id GROUP BY asset ORDER BY asset
""")

_BY_VERSION = text("""
    SELECT v.version, count(r.id) AS tests_run,
        count(r.id) FILTER (WHERE r.is_profitable) AS profitable_tests,
        max(r.total_pnl_pct)::float8 AS best_pnl, avg(r.total_pnl_pct)::float8 AS avg_pnl
    FROM agent_versions v LEFT JOIN test_results r ON r.agent_version_id = v.id
    WHERE v.agent_id = :agent_id GROUP BY v.version ORDER BY v.version DESC
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTotals:
    """Figures over all results of an agent, in percent; None where there is nothing to measure.

    `total_cost_usd` is what models were paid in all tests, whether they have a result or not.
    """

    total_tests: int
    profitable_tests: int
    best_pnl: float | None
    worst_pnl: float | None
    avg_pnl: float | None
    avg_win_rate: float | None
    avg_drawdown: float | None
    total_trades: int
    best_sharpe: float | None
    total_cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFigures:
    """An agent's results on one asset."""

    asset: str
    tests: int
    avg_pnl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """The results of one version; None where it has none."""

    version: int
    tests_run: int
    profitable_tests: int
    best_pnl: float | None
    avg_pnl: float | None


class AgentStatsRepository:
    """Figures of agents of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def totals(self, agent_id: UUID) -> AgentTotals:
        rows = await self._session.execute(_TOTALS, {"agent_id": agent_id})
        return AgentTotals(**rows.mappings().one())

    async def by_asset(self, agent_id: UUID) -> list[AssetFigures]:
        """Return the assets it was tested on, by name."""
        rows = await self._session.execute(_BY_ASSET, {"agent_id": agent_id})
        return [AssetFigures(**row) for row in rows.mappings()]

    async def by_version(self, agent_id: UUID) -> list[VersionFigures]:
        """Return every version, the newest first."""
        rows = await self._session.execute(_BY_VERSION, {"agent_id": agent_id})
        return [VersionFigures(**row) for row in rows.mappings()]
