"""One API for all these tests, over real servers; each test has its own users."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from temporalio.client import Client as TemporalClient

from local.issuer import Issuer, create_key
from local.simulators.app import OPENROUTER_PATH, create_app
from settings import ApiSettings
from tests.api.clerk import WEBHOOK_SECRET
from tests.api.live import live_world, quick_exchange
from tests.api.sockets import Address, serving
from tests.api.world import Person, World, api_settings, opened_world
from tests.issuing import KEY
from tests.loopback import serve_app
from tests.quiet_logging import configure_test_logging

# No test gets there; those of the limits have their own.
UNLIMITED = 1_000_000


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """As in production: an exception is one line, not a page with everybody's variables."""
    configure_test_logging()


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    path: Path = tmp_path_factory.mktemp("issuer") / "key.pem"
    create_key(path)
    return Issuer.from_file(path)


@pytest.fixture(scope="session")
def simulators_url(issuer: Issuer) -> Iterator[str]:
    with serve_app(create_app(issuer)) as address:
        yield address


@pytest.fixture(scope="session")
def settings(
    postgres_url: str,
    redis_url: str,
    temporal_address: str,
    simulators_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> ApiSettings:
    """No worker serves this task queue; a test that wants one takes a queue of its own."""
    return api_settings(
        environment="development",
        database_url=postgres_url,
        redis_url=redis_url,
        temporal_address=temporal_address,
        temporal_task_queue=f"api-{uuid4().hex}",
        encryption_key=Fernet.generate_key().decode(),
        storage_bucket=str(tmp_path_factory.mktemp("storage")),
        certificate_public_keys=KEY.public_key.base64,
        link_signing_key="the-key-that-links-of-tests-are-signed-with",
        clerk_webhook_secret=WEBHOOK_SECRET,
        clerk_jwks_url=f"{simulators_url}/.well-known/jwks.json",
        openrouter_base_url=f"{simulators_url}{OPENROUTER_PATH}",
        rate_limit_per_minute=UNLIMITED,
        test_starts_per_minute=UNLIMITED,
    )


@pytest.fixture(scope="session")
async def world(settings: ApiSettings, issuer: Issuer, simulators_url: str) -> AsyncIterator[World]:
    async with opened_world(settings, issuer, simulators_url) as world:
        yield world


@pytest.fixture(scope="module")
def exchange_url() -> Iterator[str]:
    with quick_exchange() as url:
        yield url


@pytest.fixture(scope="module")
async def live(
    settings: ApiSettings,
    issuer: Issuer,
    simulators_url: str,
    exchange_url: str,
    temporal_client: TemporalClient,
) -> AsyncIterator[World]:
    """A world with workers, on the live market of that exchange."""
    async with live_world(settings, issuer, simulators_url, exchange_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="session")
async def address(world: World) -> AsyncIterator[Address]:
    """Where the world's app listens for sockets."""
    async with serving(world) as address:
        yield address


@pytest.fixture
async def ada(world: World) -> AsyncIterator[Person]:
    async with world.person(email="ada@example.com", first_name="Ada") as person:
        yield person


@pytest.fixture
async def bob(world: World) -> AsyncIterator[Person]:
    async with world.person() as person:
        yield person
