"""What a start says that a test will cost, and what it costs."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client as TemporalClient

from api.cost_estimates import CostEstimates
from db.market_frames import FrameKey
from db.models import Decision
from db.repositories.running_sessions import RunningSessionRepository
from settings import ApiSettings
from tests.api.world import Person, World, account_of, created, opened_world, upload
from tests.db.accounts import a_decision, store
from tests.laboratory import Laboratory, Plan
from tests.loopback import response, serve_script

Elsewhere = Callable[[str], AbstractAsyncContextManager[World]]

# The prices of the simulated models.
PROMPT_PRICE, REPLY_PRICE = 0.15e-6, 0.6e-6


@pytest.fixture
async def agent(ada: Person) -> dict[str, Any]:
    await ada.add_key()
    await upload(ada)
    return await ada.add_agent()


@pytest.fixture
def elsewhere(world: World, settings: ApiSettings) -> Elsewhere:
    """The same API with OpenRouter at another address."""

    def opened(url: str) -> AbstractAsyncContextManager[World]:
        own = settings.model_copy(update={"openrouter_base_url": url})
        return opened_world(own, world.issuer, world.issuer_url)

    return opened


async def estimate(person: Person, agent_id: str, **changes: Any) -> float | None:
    session = created(await person.start(agent_id, **changes))["session"]
    cost: float | None = session["estimated_cost_usd"]
    return cost


async def test_an_estimate_is_near_to_what_the_test_costs(
    world: World, ada: Person, settings: ApiSettings, temporal_client: TemporalClient
) -> None:
    services, account = world.services, await account_of(world, ada)
    async with httpx.AsyncClient() as http:
        laboratory = Laboratory(
            database=services.database,
            redis=services.redis,
            client=temporal_client,
            task_queue=f"nobody-{uuid4().hex}",
            openrouter_url=settings.openrouter_base_url,
            http=http,
            user_id=account.id,
        )
        session_id = await laboratory.plain(Plan(candles=60, interval=3))
        paid = float((await laboratory.session_row(session_id))["cost_usd"])
    async with services.database.for_user(account.id) as session:
        ran = await RunningSessionRepository(session).settings(session_id)
    assert ran is not None
    frame = await services.frames.get(account.id, FrameKey.of_session(ran))

    estimates = CostEstimates(services.database, services.openrouter)
    first = await estimates.of_backtest(session_id, ran, frame)
    later = await estimates.of_backtest(UUID(int=2**128 - 1), ran, frame)

    assert paid > 0
    assert first is not None
    # The simulator replies more briefly than a model, and counts four characters a token.
    assert paid / 3 < first < paid * 3
    assert later == pytest.approx(paid, rel=0.001)


async def test_an_estimate_is_of_the_candles_to_decide(ada: Person, agent: dict[str, Any]) -> None:
    every = await estimate(ada, agent["id"])
    fourth = await estimate(
        ada, agent["id"], decision_mode="every_n_candles", decision_interval_candles=4
    )

    assert every is not None
    assert every > 0
    assert fourth == pytest.approx(every / 4, rel=0.2)


async def test_what_earlier_decisions_took_counts(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    account = await account_of(world, ada)
    session = created(await ada.start(agent["id"]))["session"]
    tokens = {"tokens_prompt": 1_000, "tokens_completion": 100}
    rows = [a_decision(UUID(session["id"]), i, **tokens) for i in range(3)]
    await store(account, Decision, *rows)

    expected = 48 * (1_000 * PROMPT_PRICE + 100 * REPLY_PRICE)
    assert await estimate(ada, agent["id"]) == pytest.approx(expected, abs=1e-6)
    await ada.put(f"/api/agents/{agent['id']}", {"indicators": ["macd"]})
    assert await estimate(ada, agent["id"]) != pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("price", "expected"), [("0", 0.0), ("-1", None), ("unknown", None)])
async def test_a_free_model_costs_nothing_and_an_unknown_price_is_unknown(
    elsewhere: Elsewhere, ada: Person, agent: dict[str, Any], price: str, expected: float | None
) -> None:
    prices = {"prompt": price, "completion": price}
    catalogue = {"data": [{"id": "simulated/momentum", "pricing": prices}]}
    async with serve_script() as script:
        script.answers = [[response(200, json.dumps(catalogue).encode())]]
        async with elsewhere(script.url) as scripted:
            assert await estimate(scripted.again(ada), agent["id"]) == expected


async def test_a_start_goes_well_while_openrouter_is_away(
    elsewhere: Elsewhere, ada: Person, agent: dict[str, Any]
) -> None:
    async with elsewhere("http://127.0.0.1:1") as stranded:
        assert await estimate(stranded.again(ada), agent["id"]) is None
