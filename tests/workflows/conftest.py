"""A laboratory with a task queue of its own for each test."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from redis.asyncio import Redis
from temporalio.client import Client

from db.engine import Database
from local.simulators.openrouter import create_app
from tests.laboratory import Laboratory
from tests.loopback import serve_app


@pytest.fixture(scope="session")
def openrouter_url() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@pytest.fixture
async def laboratory(
    database: Database,
    redis_url: str,
    temporal_client: Client,
    task_queue: str,
    openrouter_url: str,
) -> AsyncIterator[Laboratory]:
    async with httpx.AsyncClient() as http, Redis.from_url(redis_url) as redis:
        laboratory = Laboratory(
            database=database,
            redis=redis,
            client=temporal_client,
            task_queue=task_queue,
            openrouter_url=openrouter_url,
            http=http,
        )
        await laboratory.sign_up()
        yield laboratory
