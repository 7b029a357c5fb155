"""The dashboard: figures, what happened last, and a new user's first steps."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID, uuid5

from pydantic import Field

from api.schemas.base import Filters, Shape
from db.repositories.dashboard import DashboardStats, FirstSteps, HistoryLine

ActivityType = Literal[
    "test_started",
    "test_completed",
    "test_failed",
    "agent_created",
    "agent_updated",
    "agent_deleted",
    "certificate_generated",
]
StepId = Literal["create_agent", "run_backtest", "get_certificate"]


class Trends(Shape):
    """`win_rate_change` compares the last seven days with the seven before, in points."""

    agents_this_week: int
    tests_today: int
    win_rate_change: float


class BestAgent(Shape):
    id: UUID
    name: str


class StatsOut(Shape):
    """Where there is nothing to measure yet, figures are 0."""

    total_agents: int
    tests_run: int
    best_pnl: float
    avg_win_rate: float
    trends: Trends
    best_agent: BestAgent | None

    @classmethod
    def of(cls, stats: DashboardStats) -> Self:
        best = None
        if stats.best_agent_id is not None and stats.best_agent_name is not None:
            best = BestAgent(id=stats.best_agent_id, name=stats.best_agent_name)
        return cls(
            total_agents=stats.total_agents,
            tests_run=stats.tests_run,
            best_pnl=stats.best_pnl or 0.0,
            avg_win_rate=stats.avg_win_rate or 0.0,
            trends=Trends(
                agents_this_week=stats.agents_this_week,
                tests_today=stats.tests_today,
                win_rate_change=stats.win_rate_change or 0.0,
            ),
            best_agent=best,
        )


class DashboardStatsAnswer(Shape):
    stats: StatsOut


class ActivityQuery(Filters):
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class ActivityOut(Shape):
    id: UUID
    type: ActivityType
    agent_name: str | None
    description: str = Field(examples=["Backtest on BTC/USDT 1h: +4.20 % in 17 trades"])
    pnl: float | None
    result_id: UUID | None
    session_id: UUID | None
    action_url: str | None
    timestamp: datetime

    @classmethod
    def of(cls, line: HistoryLine) -> Self:
        return cls.model_validate(
            {
                "id": uuid5(line.id, line.type),
                "type": line.type,
                "agent_name": line.agent_name,
                "description": line.description,
                "pnl": line.pnl,
                "result_id": line.result_id,
                "session_id": line.session_id,
                "action_url": _address(line),
                "timestamp": line.at,
            }
        )


class ActivityAnswer(Shape):
    activity: list[ActivityOut]


class QuickStartStep(Shape):
    id: StepId
    label: str
    description: str
    is_complete: bool
    href: str
    cta_text: str


class QuickStartAnswer(Shape):
    steps: list[QuickStartStep]
    progress_pct: float

    @classmethod
    def of(cls, reached: FirstSteps) -> Self:
        steps = [
            QuickStartStep(
                id="create_agent",
                label="Create an agent",
                description="Choose a model, indicators and a strategy in your own words.",
                is_complete=reached.has_agent,
                href="/dashboard/agents/new",
                cta_text="Create agent",
            ),
            QuickStartStep(
                id="run_backtest",
                label="Run a backtest",
                description="Let it trade the past, candle by candle.",
                is_complete=reached.has_backtest,
                href="/dashboard/arena/backtest",
                cta_text="Start backtest",
            ),
            QuickStartStep(
                id="get_certificate",
                label="Get a certificate",
                description="Have a profitable result certified, for anybody to verify.",
                is_complete=reached.has_certificate,
                href="/dashboard/results",
                cta_text="See results",
            ),
        ]
        done = sum(step.is_complete for step in steps)
        return cls(steps=steps, progress_pct=round(done / len(steps) * 100, 2))


def _address(line: HistoryLine) -> str | None:
    if line.result_id is not None:
        return f"/dashboard/results/{line.result_id}"
    if line.session_id is not None and line.session_type is not None:
        return f"/dashboard/arena/{line.session_type}/{line.session_id}"
    if line.agent_id is not None:
        return f"/dashboard/agents/{line.agent_id}"
    return None
