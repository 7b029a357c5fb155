"""An API with a worker that follows an exchange at which an hour takes a second."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from uuid import uuid4

import httpx
import numpy as np
from numpy.typing import NDArray
from temporalio.client import Client as TemporalClient

from activities.live_candles import LiveCandles
from integrations.exchanges.exchange_market import open_market
from integrations.openrouter.client import OpenRouterClient
from local.issuer import Issuer
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from settings import ApiSettings
from tests.api.world import World, opened_world
from tests.issuing import ISSUER
from tests.loopback import serve_app
from trading.candles import CandleSeries, Timeframe
from worker import FernetKeyRing, build_activities, build_workers

HOUR = Timeframe.HOUR_1.milliseconds


@contextmanager
def quick_exchange() -> Iterator[str]:
    """Serve the exchange; gives its address."""
    clock = ExchangeClock(speed=HOUR / 1000)
    clock.set(now_ms=1_700_000_000_000)
    with serve_app(exchange_server.create_app(clock, tick_seconds=0.2), has_sockets=True) as url:
        yield url


@asynccontextmanager
async def live_world(
    settings: ApiSettings,
    issuer: Issuer,
    simulators_url: str,
    exchange_url: str,
    temporal_client: TemporalClient,
) -> AsyncIterator[World]:
    """Open a world with a worker that follows the exchange."""
    queue, exchange = f"live-{uuid4().hex}", uuid4().hex[:8]
    own = settings.model_copy(
        update={"temporal_task_queue": queue, "market_data_source": f"ccxt:{exchange}"}
    )
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(opened_world(own, issuer, simulators_url))
        http = await stack.enter_async_context(httpx.AsyncClient())
        market = open_market("simulated", base_url=exchange_url)
        await market.open()
        stack.push_async_callback(market.close)
        database = world.services.database
        activities = build_activities(
            database,
            world.services.redis,
            OpenRouterClient(http, own.openrouter_base_url),
            FernetKeyRing(own.encryption_keys),
            LiveCandles(database, market, f"exchange:{exchange}"),
            storage=world.services.storage,
            issuer=ISSUER,
        )
        for worker in build_workers(temporal_client, queue, activities, grace=timedelta(seconds=1)):
            await stack.enter_async_context(worker)
        yield world


def rising() -> CandleSeries:
    """Ten days without a single loss."""
    close: NDArray[np.float64] = np.cumprod(np.full(240, 1.001)) * 30_000
    open_: NDArray[np.float64] = close / 1.001
    first = 1_704_067_200_000
    return CandleSeries(
        open_time=first + HOUR * np.arange(240),
        open=open_,
        high=close,
        low=open_,
        close=close,
        volume=np.full(240, 10.0),
    )
