"""Whether the service lives, and whether what it needs does."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import InjectedServices, Services
from api.schemas.health import Health, Reachability, Readiness

router = APIRouter(prefix="/api", tags=["health"])

_PATIENCE_S = 3.0


@router.get("/health")
async def health(services: InjectedServices) -> Health:
    """Answers without touching anything."""
    return Health(version=services.config.version)


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(services: InjectedServices, response: Response) -> Readiness:
    """200 when everything is there that a test needs, else 503; says what is missing.

    What was seen within the last second is not looked at again.
    """
    async with services.looking:
        state: Readiness | None = services.looked.get("ready")
        if state is None:
            services.looked["ready"] = state = await _look(services)
    if "down" in {state.database, state.redis, state.temporal, state.worker}:
        response.status_code = 503
    return state


async def _look(services: Services) -> Readiness:
    database, redis, (temporal, worker) = await asyncio.gather(
        _database(services), _redis(services), _temporal(services)
    )
    return Readiness(database=database, redis=redis, temporal=temporal, worker=worker)


async def _database(services: Services) -> Reachability:
    try:
        async with asyncio.timeout(_PATIENCE_S), services.database.as_system() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError, TimeoutError):
        return "down"
    return "ok"


async def _redis(services: Services) -> Reachability:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await services.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "down"
    return "ok"


async def _temporal(services: Services) -> tuple[Reachability, int | Literal["down"]]:
    """Temporal itself, and who works for it, which nobody knows while it is away."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            if not await services.temporal.is_reachable():
                return "down", "down"
            return "ok", await services.temporal.poller_count() or "down"
    except TimeoutError:
        return "down", "down"
