"""What an agent's tests came to, all together, by asset and by version."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from api.schemas.base import Shape
from db.repositories.agent_stats import AgentTotals, AssetFigures, VersionFigures


class AssetPerformance(Shape):
    tests: int
    avg_pnl: float


class VersionPerformance(Shape):
    """Of a version that was not tested yet, figures are 0."""

    version: int
    tests_run: int
    profitable_tests: int
    best_pnl: float
    avg_pnl: float

    @classmethod
    def of(cls, figures: VersionFigures) -> Self:
        return cls(
            version=figures.version,
            tests_run=figures.tests_run,
            profitable_tests=figures.profitable_tests,
            best_pnl=figures.best_pnl or 0.0,
            avg_pnl=figures.avg_pnl or 0.0,
        )


class AgentStatsOut(Shape):
    """Percentages; where there is nothing to measure yet, figures are 0 and the ratio is null."""

    total_tests: int
    profitable_tests: int
    profit_rate: float = Field(description="The share of profitable tests.")
    best_pnl: float
    worst_pnl: float
    avg_pnl: float
    avg_win_rate: float
    avg_drawdown: float = Field(description="A magnitude: the smaller the better.")
    total_trades: int
    best_sharpe: float | None
    total_cost_usd: float = Field(
        description="What models were paid in all tests, those without a result included."
    )
    performance_by_asset: dict[str, AssetPerformance] = Field(
        examples=[{"BTC/USDT": {"tests": 3, "avg_pnl": 4.2}}]
    )
    by_version: list[VersionPerformance]

    @classmethod
    def of(
        cls,
        totals: AgentTotals,
        assets: Sequence[AssetFigures],
        versions: Sequence[VersionFigures],
    ) -> Self:
        profit_rate = totals.profitable_tests / totals.total_tests if totals.total_tests else 0.0
        return cls(
            total_tests=totals.total_tests,
            profitable_tests=totals.profitable_tests,
            profit_rate=profit_rate * 100,
            best_pnl=totals.best_pnl or 0.0,
            worst_pnl=totals.worst_pnl or 0.0,
            avg_pnl=totals.avg_pnl or 0.0,
            avg_win_rate=totals.avg_win_rate or 0.0,
            avg_drawdown=totals.avg_drawdown or 0.0,
            total_trades=totals.total_trades,
            best_sharpe=totals.best_sharpe,
            total_cost_usd=totals.total_cost_usd,
            performance_by_asset={
                each.asset: AssetPerformance(tests=each.tests, avg_pnl=each.avg_pnl)
                for each in assets
            },
            by_version=[VersionPerformance.of(each) for each in versions],
        )


class AgentStatsAnswer(Shape):
    stats: AgentStatsOut
