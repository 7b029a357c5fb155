"""A whole installation with a worker and a live market, served as the API's process serves it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from temporalio.client import Client as TemporalClient

from api.realtime import pulse
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.conftest import issuer, quiet_logs, settings, simulators_url
from tests.api.live import live_world, quick_exchange
from tests.api.sockets import Address, serving
from tests.api.world import World

__all__ = ["issuer", "quiet_logs", "settings", "simulators_url"]


@pytest.fixture(scope="module")
def exchange_url() -> Iterator[str]:
    with quick_exchange() as url:
        yield url


@pytest.fixture(scope="module")
async def staffed(
    settings: ApiSettings,
    issuer: Issuer,
    simulators_url: str,
    exchange_url: str,
    temporal_client: TemporalClient,
) -> AsyncIterator[World]:
    async with live_world(settings, issuer, simulators_url, exchange_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="module")
async def address(staffed: World) -> AsyncIterator[Address]:
    """Where the API listens; its heart beats faster than in production, so that it is heard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulse, "HEARTBEAT_S", 0.5)
        async with serving(staffed) as address:
            yield address
