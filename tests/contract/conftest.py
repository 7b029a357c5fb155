"""A whole installation with a worker and a live market, served as the API's process serves it."""

from collections.abc import AsyncIterator

import pytest

from api.realtime import pulse
from tests.api.conftest import exchange_url, issuer, live, quiet_logs, settings, simulators_url
from tests.api.sockets import Address, serving
from tests.api.world import World

__all__ = ["exchange_url", "issuer", "live", "quiet_logs", "settings", "simulators_url"]


@pytest.fixture(scope="module")
async def address(live: World) -> AsyncIterator[Address]:
    """Where the API listens; its heart beats faster than in production, so that it is heard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulse, "HEARTBEAT_S", 0.5)
        async with serving(live) as address:
            yield address
