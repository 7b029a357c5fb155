"""The catalogue of models: for everybody, with prices, and while OpenRouter is away."""

import json

import pytest

from integrations.openrouter.well_known import WELL_KNOWN_MODELS
from settings import ApiSettings
from tests.api.world import Person, World, error_of, opened_world
from tests.loopback import response, serve_script

FIELDS = [
    *("id", "name", "provider", "description", "context_window", "capabilities", "tags"),
    *("is_multimodal", "is_free", "structured_data", "price_prompt", "price_completion"),
]


async def test_everybody_sees_the_simulated_models_and_their_prices(world: World) -> None:
    async with world.http() as nobody:
        answer = await nobody.get("/api/models")

    assert answer.status_code == 200
    models = {model["id"]: model for model in answer.json()}
    assert list(models["simulated/momentum"]) == FIELDS
    momentum = models["simulated/momentum"]
    assert momentum.pop("description").startswith("Rule-based, not a language model.")
    assert momentum == {
        "id": "simulated/momentum",
        "name": "Simulated: Momentum",
        "provider": "simulated",
        "context_window": 128_000,
        "capabilities": ["structured_outputs"],
        "tags": ["simulated"],
        "is_multimodal": False,
        "is_free": False,
        "structured_data": True,
        "price_prompt": 0.15e-6,
        "price_completion": 0.6e-6,
    }
    assert not models["simulated/momentum:no-json"]["structured_data"]


async def test_a_model_with_json_but_without_schemas_does_not_claim_them(world: World) -> None:
    models = {model["id"]: model for model in (await world.http().get("/api/models")).json()}

    plain = models["simulated/momentum:no-schema"]
    assert (plain["capabilities"], plain["structured_data"]) == ([], True)


CATALOGUE = [
    {
        "id": "maker/seer:free",
        "name": "Maker: Seer (free)",
        "context_length": 1_000_000,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0", "completion": "0"},
        "supported_parameters": ["tools", "reasoning", "temperature"],
    },
    {"id": "maker/auto", "pricing": {"prompt": "-1", "completion": "-1"}, "architecture": 7},
]


async def test_what_openrouter_says_of_a_model_is_put_into_our_words(
    settings: ApiSettings, world: World
) -> None:
    async with serve_script() as script:
        script.answers = [[response(200, json.dumps({"data": CATALOGUE}).encode())]]
        own = settings.model_copy(update={"openrouter_base_url": script.url})
        async with opened_world(own, world.issuer, world.issuer_url) as scripted:
            seer, auto = (await scripted.http().get("/api/models")).json()

    assert seer["provider"] == "maker"
    assert seer["capabilities"] == ["image", "reasoning", "tools"]
    assert seer["tags"] == ["free", "long_context"]
    assert (seer["is_multimodal"], seer["is_free"], seer["structured_data"]) == (True, True, False)
    assert (auto["name"], auto["context_window"], auto["is_free"]) == ("maker/auto", None, False)
    assert (auto["price_prompt"], auto["price_completion"]) == (None, None)


@pytest.mark.parametrize("body", [b'{"data": []}', b"<html>", None])
async def test_without_a_catalogue_there_are_well_known_models_and_agents_can_be_made(
    settings: ApiSettings, world: World, ada: Person, body: bytes | None
) -> None:
    async with serve_script() as script:
        script.answers = [[None if body is None else response(200, body)]]
        own = settings.model_copy(update={"openrouter_base_url": script.url})
        async with opened_world(own, world.issuer, world.issuer_url) as stranded:
            models = (await stranded.http().get("/api/models")).json()
            agent = await stranded.again(ada).add_agent(model="maker/known-to-nobody")
            asked = len(script.requests)

    assert [model["id"] for model in models] == [each.id for each in WELL_KNOWN_MODELS]
    assert all(model["price_prompt"] is None and not model["is_free"] for model in models)
    assert agent["model"] == "maker/known-to-nobody"
    assert asked == 1
    refused = await ada.put(f"/api/agents/{agent['id']}", {"model": "maker/known-to-none"})
    error_of(refused, 422, "VALIDATION_ERROR")
