"""Laboratories: one with workers for all tests that disturb none, and one for each that does."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from cryptography.fernet import Fernet
from redis.asyncio import Redis
from temporalio.client import Client

from db.engine import Database
from local.simulators.openrouter import create_app
from migrations.run import upgrade
from tests.laboratory import Laboratory
from tests.loopback import serve_app


@pytest.fixture(scope="session")
def openrouter_url() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What laboratories share."""

    database: Database
    redis: Redis
    client: Client
    http: httpx.AsyncClient
    openrouter_url: str

    def laboratory(self, task_queue: str) -> Laboratory:
        return Laboratory(
            database=self.database,
            redis=self.redis,
            client=self.client,
            task_queue=task_queue,
            openrouter_url=self.openrouter_url,
            http=self.http,
        )


@pytest.fixture(scope="session")
async def connections(
    database: Database, redis_url: str, temporal_client: Client, openrouter_url: str
) -> AsyncIterator[Connections]:
    async with httpx.AsyncClient() as http, Redis.from_url(redis_url) as redis:
        yield Connections(
            database=database,
            redis=redis,
            client=temporal_client,
            http=http,
            openrouter_url=openrouter_url,
        )


@pytest.fixture(scope="session")
async def workshop(connections: Connections) -> AsyncIterator[Laboratory]:
    """A laboratory whose workers work as long as tests run."""
    workshop = connections.laboratory(f"workshop-{uuid4().hex}")
    async with workshop.worker():
        yield workshop


@pytest.fixture
async def staffed(connections: Connections, workshop: Laboratory) -> Laboratory:
    """A user of the test's own, and workers that are there already."""
    laboratory = connections.laboratory(workshop.task_queue)
    laboratory.fernet_key = workshop.fernet_key
    await laboratory.sign_up()
    await laboratory.http.delete(f"{laboratory.openrouter_url}/debug/requests")
    return laboratory


@pytest.fixture
async def laboratory(connections: Connections, task_queue: str) -> Laboratory:
    """A user and a task queue of the test's own, and no workers but those it starts."""
    laboratory = connections.laboratory(task_queue)
    await laboratory.sign_up()
    await laboratory.http.delete(f"{laboratory.openrouter_url}/debug/requests")
    return laboratory


@pytest.fixture
def fernet_key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
async def apart(
    empty_postgres_url: str, connections: Connections, task_queue: str
) -> AsyncIterator[Laboratory]:
    """A laboratory with a database of its own, where no other test's sessions wait for help."""
    upgrade(empty_postgres_url)
    database = Database.connect(empty_postgres_url, pool_size=5)
    laboratory = connections.laboratory(task_queue)
    laboratory.database = database
    await laboratory.sign_up()
    yield laboratory
    await database.dispose()
