"""Backtests over REST where an exchange is configured: what is fetched, and what is not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api import backtests
from certificates.signing import new_seed
from local.issuer import Issuer
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from settings import ApiSettings, WorkerSettings, load
from tests.api.sockets import Address, serving
from tests.api.world import Person, World, a_backtest, created, error_of, opened_world, upload
from tests.loopback import serve_app
from worker import build_workers, opened

# Not the asset of other tests: what was fetched is there for everybody's charts.
ASSET = "DOT/USDT"
KEY = {"Idempotency-Key": "a-start"}
# Where this exchange is, whatever time it is here.
NOW = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def exchange_url() -> Iterator[str]:
    """An exchange whose clock stands still."""
    clock = ExchangeClock(speed=0)
    clock.set(now_ms=int(NOW.timestamp() * 1000))
    with serve_app(exchange_server.create_app(clock)) as url:
        yield url


@pytest.fixture(scope="module")
def sourced(settings: ApiSettings, exchange_url: str) -> ApiSettings:
    return settings.model_copy(
        update={
            "temporal_task_queue": f"sourced-{uuid4().hex}",
            "market_data_source": "simulated",
            "exchange_base_url": exchange_url,
        }
    )


@pytest.fixture(scope="module")
async def world_with_source(
    sourced: ApiSettings, issuer: Issuer, simulators_url: str
) -> AsyncIterator[World]:
    async with opened_world(sourced, issuer, simulators_url) as world:
        yield world


@pytest.fixture(scope="module")
async def workers(sourced: ApiSettings) -> AsyncIterator[None]:
    """Workers as `worker.py` makes them of its settings."""
    shared = sourced.model_dump(include=set(WorkerSettings.model_fields))
    settings = load(WorkerSettings, **shared, certificate_signing_key=new_seed(), _env_file=None)
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(opened(settings))
        queue, grace = settings.temporal_task_queue, timedelta(seconds=1)
        for worker in build_workers(given.client, queue, given.activities, grace=grace):
            await stack.enter_async_context(worker)
        yield


@pytest.fixture(scope="module")
async def address(world_with_source: World) -> AsyncIterator[Address]:
    async with serving(world_with_source) as address:
        yield address


@pytest.fixture
async def ada(world_with_source: World) -> AsyncIterator[Person]:
    async with world_with_source.person() as person:
        await person.add_key()
        yield person


async def start(ada: Person, **changes: Any) -> dict[str, Any]:
    agent = await ada.add_agent(f"Agent {uuid4().hex[:8]}", model="simulated/hold")
    slowly = {"decision_mode": "every_n_candles", "decision_interval_candles": 1000}
    answer = await ada.start(agent["id"], **({"asset": ASSET} | slowly | changes))
    session: dict[str, Any] = created(answer)["session"]
    return session


@pytest.mark.usefixtures("workers")
async def test_a_backtest_of_the_exchanges_past_from_start_to_result(ada: Person, address: Address):
    session = await start(ada)
    async with address.watch(session["id"], ada.token, last_seq=0) as watching:
        assert await watching.until_closed(seconds=60) == 1000

    assert (session["total_candles"], session["data_source"]) == (48, "simulated")
    assert (session["start_date"], session["end_date"]) == (
        "2024-01-03T00:00:00Z",
        "2024-01-05T00:00:00Z",
    )
    assert session["preview_candles"][0]["timestamp"] == "2024-01-03T00:00:00Z"
    assert [frame["data"]["index"] for frame in watching.of("candle")] == list(range(48))
    shown = (await ada.get(f"/api/arena/backtest/{session['id']}")).json()["session"]
    result = (await ada.get(f"/api/results/{shown['result_id']}")).json()["result"]
    assert (result["total_candles"], result["data_source"]) == (48, "simulated")
    charted = await ada.get(
        "/api/data/candles",
        params={"asset": ASSET, "timeframe": "1h", "start": "2024-01-03", "end": "2024-01-04"},
    )
    assert charted.json()["count"] == 48


@pytest.mark.usefixtures("workers")
async def test_the_newest_days_end_at_the_exchanges_newest_candle(ada: Person):
    session = await start(ada, date_preset="7d", start_date=None, end_date=None)

    assert (session["total_candles"], session["end_date"]) == (168, "2024-03-01T12:00:00Z")


@pytest.mark.usefixtures("workers")
async def test_an_asset_that_nobody_has_fails_the_test(ada: Person, address: Address):
    session = await start(ada, asset="xyz-usdt")
    async with address.watch(session["id"], ada.token) as watching:
        await watching.until_closed(seconds=20)

    shown = (await ada.get(f"/api/arena/backtest/{session['id']}")).json()["session"]
    assert (shown["status"], shown["error"]["error_code"]) == ("failed", "AssetUnavailable")
    assert (session["total_candles"], session["preview_candles"]) == (0, [])


@pytest.mark.usefixtures("workers")
async def test_candles_of_ones_own_go_first_where_they_cover_the_range(ada: Person):
    await upload(ada, asset=ASSET)

    covered = await start(ada)
    beyond = await start(ada, end_date="2024-01-20")
    named = await start(ada, end_date="2024-01-20", data_source="upload")

    assert (covered["data_source"], covered["total_candles"]) == ("upload", 48)
    assert (beyond["data_source"], beyond["total_candles"]) == ("simulated", 18 * 24)
    # Of a source that is named, as much is taken as there is.
    assert (named["data_source"], named["total_candles"]) == ("upload", 8 * 24)


@pytest.mark.usefixtures("workers")
async def test_a_start_does_not_wait_for_long_and_is_the_same_start_when_repeated(
    ada: Person, exchange_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backtests, "START_PATIENCE_S", 0.2)
    agent = await ada.add_agent()
    body = a_backtest(agent["id"], asset=ASSET, timeframe="15m")
    async with httpx.AsyncClient() as http:
        hangs = [{"kind": "hang", "path": "/klines", "times": 100}]
        await http.post(f"{exchange_url}/debug/faults", json=hangs)
        first, again = [
            created(await ada.post("/api/arena/backtest/start", body, headers=KEY))["session"]
            for _ in range(2)
        ]
        stopped = await ada.post(f"/api/arena/backtest/{first['id']}/stop")
        await http.delete(f"{exchange_url}/debug/faults")

    assert first == again
    assert (first["status"], first["total_candles"]) == ("initializing", 0)
    assert (first["preview_candles"], first["data_source"]) == ([], "simulated")
    assert (first["start_date"], first["end_date"]) == (
        "2024-01-03T00:00:00Z",
        "2024-01-05T00:00:00Z",
    )
    assert (stopped.json()["status"], stopped.json()["result_id"]) == ("failed", None)


async def test_a_source_that_is_not_the_exchange_is_not_fetched_from(ada: Person):
    agent = await ada.add_agent()
    answer = await ada.start(agent["id"], asset=ASSET, timeframe="4h", data_source="import:x")
    error_of(answer, 422, "NO_CANDLES")
