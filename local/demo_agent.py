"""The demo's agent: the key that it decides with, a model that the key opens, and its words."""

import hashlib
from dataclasses import dataclass
from typing import Final

from local.demo_client import ApiClient, DemoFailed, Json
from local.demo_tour import Tour
from local.stack import given_settings

SIMULATED_KEY = "sk-or-v1-of-nobody"
REAL_MODELS: Final = ("openai/gpt-4o-mini", "google/gemini-2.5-flash-lite", "openrouter/auto")
# A language model takes seconds and costs money: fewer decisions, and a limit.
REAL_INTERVAL = 16
REAL_LIMIT_USD = 0.5

INDICATORS: Final = ("rsi_14", "ema_20", "macd", "atr_14")
STRATEGY = (
    "Trade momentum. Go long when the price breaks out of its recent range upwards, short when it "
    "breaks out downwards, and leave when the move fades. Always set a stop and keep losses small."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """Who decides, with which key, and how often."""

    model: str
    key_id: str
    is_simulated: bool

    @property
    def terms(self) -> Json:
        """Its part of a backtest's start."""
        if self.is_simulated:
            return {"decision_mode": "every_candle"}
        return {
            "decision_mode": "every_n_candles",
            "decision_interval_candles": REAL_INTERVAL,
            "max_cost_usd": REAL_LIMIT_USD,
        }

    @property
    def forward_terms(self) -> Json:
        """Its part of a forward test's start, which is watched for a few candles."""
        limit = {} if self.is_simulated else {"max_cost_usd": REAL_LIMIT_USD}
        return {"decision_mode": "every_candle", **limit}


async def find_brain(tour: Tour, simulated_model: str) -> Brain:
    """A key that works, and a model that it opens. Raises `DemoFailed`."""
    secret = given_settings().get("OPENROUTER_API_KEY", SIMULATED_KEY)
    key = await _ensure_key(tour.client, secret)
    validation = await tour.client.post(f"/api/api-keys/{key['id']}/validate")
    if not validation["valid"]:
        raise DemoFailed(
            f"{validation['error']} Set OPENROUTER_API_KEY to one that "
            f"{tour.record.settings['OPENROUTER_BASE_URL']} takes."
        )
    known = validation["models_available"] or []
    model = next((each for each in (simulated_model, *REAL_MODELS) if each in known), None)
    if model is None:
        raise DemoFailed(f"None of the demo's models is on offer: {', '.join(REAL_MODELS)}.")
    is_simulated = model == simulated_model
    whose = "the simulated OpenRouter: nothing is paid"
    if not is_simulated:
        whose = f"OpenRouter: a test spends {REAL_LIMIT_USD} USD at most"
    tour.view.step("Key", f"{key['key_prefix']}, stored encrypted, of {whose}")
    return Brain(model=model, key_id=key["id"], is_simulated=is_simulated)


async def ensure_agent(tour: Tour, brain: Brain, name: str) -> Json:
    """The agent of that name, made or brought up to date."""
    name = f"{name} (simulated model)" if brain.is_simulated else name
    wanted = {
        "name": name,
        "mode": "omni",
        "model": brain.model,
        "api_key_id": brain.key_id,
        "indicators": list(INDICATORS),
        "strategy_prompt": STRATEGY,
    }
    found = await tour.client.get("/api/agents", search=name, limit=100)
    same = [each for each in found["agents"] if each["name"] == name]
    if same:
        answer = await tour.client.put(f"/api/agents/{same[0]['id']}", wanted)
    else:
        answer = await tour.client.post("/api/agents", wanted)
    agent: Json = answer["agent"]
    tour.view.step(
        "Agent",
        f"{agent['name']}, {'found' if same else 'made'}: {agent['model']}, sees "
        f"{', '.join(agent['indicators'])}",
    )
    return agent


async def _ensure_key(client: ApiClient, secret: str) -> Json:
    """The user's key of this secret; its label tells it from others without showing it."""
    label = f"Demo {hashlib.sha256(secret.encode()).hexdigest()[:8]}"
    stored = (await client.get("/api/api-keys"))["api_keys"]
    same: list[Json] = [key for key in stored if key["label"] == label]
    if same:
        return same[0]
    new = {"provider": "openrouter", "api_key": secret, "label": label}
    added: Json = (await client.post("/api/api-keys", new))["api_key"]
    return added
