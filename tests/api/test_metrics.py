"""What Prometheus is shown, and who else is not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from local.issuer import Issuer
from settings import ApiSettings
from tests.api.prices import watching
from tests.api.sockets import serving
from tests.api.world import Person, World, error_of, opened_world, upload

TOKEN = "a-token-of-the-operator"


@pytest.fixture
async def world(settings: ApiSettings, issuer: Issuer, simulators_url: str) -> AsyncIterator[World]:
    """An API that nobody has asked for anything yet."""
    own = settings.model_copy(
        update={"metrics_token": SecretStr(TOKEN), "market_data_source": "ccxt:any"}
    )
    async with opened_world(own, issuer, simulators_url) as world:
        yield world


async def scrape(world: World) -> httpx.Response:
    async with world.http({"Authorization": f"Bearer {TOKEN}"}) as http:
        return await http.get("/metrics")


async def samples(world: World, name: str) -> dict[tuple[str, ...], float]:
    """The samples of that name, by the values of their labels in the order of the labels' names."""
    families = text_string_to_metric_families((await scrape(world)).text)
    found: list[Any] = [sample for family in families for sample in family.samples]
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in found
        if sample.name == name
    }


async def test_it_is_text_for_prometheus(world: World):
    answer = await scrape(world)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE alphalab_http_requests_total counter" in answer.text
    assert "process_resident_memory_bytes" in answer.text


@pytest.mark.parametrize("given", [None, "Bearer ", f"Bearer {TOKEN}!", f"Basic {TOKEN}", "é"])
async def test_nobody_else_is_shown_it(world: World, given: str | None):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    async with world.http() as http:
        answer = await http.get("/metrics", headers=headers)  # type: ignore[arg-type]

    error_of(answer, 401, "UNAUTHORIZED")
    assert TOKEN not in repr(world.services.config)


async def test_a_users_token_does_not_open_it(ada: Person):
    error_of(await ada.get("/metrics"), 401, "UNAUTHORIZED")


async def test_without_the_setting_there_is_nothing(
    settings: ApiSettings, issuer: Issuer, simulators_url: str
):
    async with opened_world(settings, issuer, simulators_url) as closed:
        error_of(await scrape(closed), 404, "NOT_FOUND")


async def test_requests_are_counted_and_timed_by_template(world: World, ada: Person):
    ids = [uuid4() for _ in range(3)]
    for each in ids:
        await ada.get(f"/api/agents/{each}")
    await ada.get("/api/agents")
    await upload(ada)
    async with world.http() as http:
        await http.get(f"/nothing/{ids[0]}")
        await http.request("BREW", "/api/agents")

    assert await samples(world, "alphalab_http_requests_total") == {
        ("GET", "/api/agents/{agent_id}", "404"): 3,
        ("GET", "/api/agents", "200"): 1,
        ("POST", "/api/data/candles/import", "201"): 1,
        ("GET", "none", "404"): 1,
        ("other", "/api/agents", "405"): 1,
    }
    timed = await samples(world, "alphalab_http_request_seconds_count")
    assert timed["GET", "/api/agents/{agent_id}"] == 3
    shown = (await scrape(world)).text
    assert not any(str(each) in shown for each in ids)


async def test_a_failure_of_ours_is_counted_as_one(world: World):
    router = APIRouter()

    @router.get("/api/bugs/{number}")
    async def bug(number: int) -> None:
        raise RuntimeError(f"bug {number}")

    world.app.include_router(router)
    async with world.http() as http:
        assert (await http.get("/api/bugs/7")).status_code == 500

    counted = await samples(world, "alphalab_http_requests_total")
    assert counted["GET", "/api/bugs/{number}", "500"] == 1


async def test_sockets_are_counted_while_they_are_open(world: World):
    async with serving(world) as address:
        async with watching(address, "BTC/USDT"), watching(address, "ETH/USDT"):
            assert await open_sockets(world) == {("/ws/prices/{asset:path}",): 2}
        async with asyncio.timeout(5):
            while await open_sockets(world) != {("/ws/prices/{asset:path}",): 0}:
                await asyncio.sleep(0.02)


async def open_sockets(world: World) -> dict[tuple[str, ...], float]:
    return await samples(world, "alphalab_open_sockets")
