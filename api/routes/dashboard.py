"""What a user sees first."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import CurrentUser, InjectedServices
from api.schemas.dashboard import (
    ActivityAnswer,
    ActivityOut,
    ActivityQuery,
    DashboardStatsAnswer,
    QuickStartAnswer,
    StatsOut,
)
from api.schemas.errors import documented
from db.repositories.dashboard import DashboardRepository

router = APIRouter(prefix="/api/dashboard", tags=["dashboard"], responses=documented(401, 403, 503))


@router.get("/stats")
async def dashboard_stats(services: InjectedServices, user: CurrentUser) -> DashboardStatsAnswer:
    async with services.database.for_user(user.id) as session:
        stats = await DashboardRepository(session).stats(user.timezone)
    return DashboardStatsAnswer(stats=StatsOut.of(stats))


@router.get("/activity", responses=documented(422))
async def dashboard_activity(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[ActivityQuery, Query()]
) -> ActivityAnswer:
    """List what happened last, the newest first."""
    async with services.database.for_user(user.id) as session:
        lines = await DashboardRepository(session).history(wanted.limit)
    return ActivityAnswer(activity=[ActivityOut.of(line) for line in lines])


@router.get("/quick-start")
async def quick_start(services: InjectedServices, user: CurrentUser) -> QuickStartAnswer:
    async with services.database.for_user(user.id) as session:
        reached = await DashboardRepository(session).first_steps()
    return QuickStartAnswer.of(reached)
