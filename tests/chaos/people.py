"""A user of the stack: everything through REST, patient where the API may be away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import httpx

from tests.chaos.plans import FIRST_CANDLE
from tests.chaos.stacks import ChaosStack, StackFailed

PATIENCE_SECONDS = 90.0
PROMPT = "Go long when momentum turns up and leave when it fades. Keep losses small, always."
INDICATORS = ["rsi_14", "ema_20", "macd", "atr_14"]

Json = dict[str, Any]
TestType = Literal["backtest", "forward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a token."""

    http: httpx.AsyncClient
    token: str

    async def get(self, path: str) -> Json:
        """The body of a 200, however often it has to be asked for. Raises StackFailed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = await self.http.get(path)
            except httpx.TransportError as e:
                problem = type(e).__name__
            else:
                if answer.is_success:
                    body: Json = answer.json()
                    return body
                problem = f"{answer.status_code} {answer.text}"
                if answer.is_client_error:
                    raise StackFailed(f"GET {path}: {problem}")
            if time.monotonic() > deadline:
                raise StackFailed(f"GET {path}: {problem}")
            await asyncio.sleep(0.1)

    async def post(self, path: str, body: Json | None = None) -> Json:
        """The body of a 2xx. Raises StackFailed."""
        return _body(await self.http.post(path, json=body))

    async def add_agent(self, name: str, model: str) -> str:
        return str((await self.post("/api/agents", _agent(name, model)))["agent"]["id"])

    async def change_agent(self, agent_id: str, name: str, model: str) -> None:
        _body(await self.http.put(f"/api/agents/{agent_id}", json=_agent(name, model)))

    async def start(self, agent_id: str, *, candles: int, interval: int = 1) -> str:
        """Start a backtest of exactly so many candles at instant speed; return its session's id."""
        wanted = {
            "agent_id": agent_id,
            "asset": "btc-usdt",
            "timeframe": "1h",
            "start_date": FIRST_CANDLE.isoformat(),
            "end_date": (FIRST_CANDLE + timedelta(hours=candles)).isoformat(),
            "starting_capital": 10_000,
            "playback_speed": "instant",
            "decision_mode": "every_n_candles" if interval > 1 else "every_candle",
            "decision_interval_candles": interval,
        }
        session: Json = (await self.post("/api/arena/backtest/start", wanted))["session"]
        if session["total_candles"] != candles:
            raise StackFailed(f"{session['total_candles']} candles instead of {candles}")
        return str(session["id"])

    async def start_forward(self, agent_id: str, asset: str) -> str:
        """Start a forward test on hourly candles; return its session's id."""
        wanted = {
            "agent_id": agent_id,
            "asset": asset,
            "timeframe": "1h",
            "starting_capital": 10_000,
            "decision_mode": "every_candle",
        }
        return str((await self.post("/api/arena/forward/start", wanted))["session"]["id"])

    async def session(self, session_id: str, type: TestType = "backtest") -> Json:
        found: Json = (await self.get(f"/api/arena/{type}/{session_id}"))["session"]
        return found

    async def control(
        self, session_id: str, what: str, body: Json | None = None, type: TestType = "backtest"
    ) -> Json:
        return await self.post(f"/api/arena/{type}/{session_id}/{what}", body)

    async def result(self, session_id: str) -> Json:
        result_id = (await self.session(session_id))["result_id"]
        found: Json = (await self.get(f"/api/results/{result_id}"))["result"]
        return found

    async def pages(self, path: str, name: str, *, limit: int) -> list[Json]:
        """Every page of a list."""
        found: list[Json] = []
        page, pages = 0, 1
        while page < pages:
            page += 1
            body = await self.get(f"{path}?limit={limit}&page={page}")
            found += body[name]
            pages = body["pagination"]["total_pages"]
        return found


def _agent(name: str, model: str) -> Json:
    return {
        "name": name,
        "mode": "omni",
        "model": model,
        "indicators": INDICATORS,
        "strategy_prompt": PROMPT,
    }


def _body(answer: httpx.Response) -> Json:
    if not answer.is_success:
        request = answer.request
        raise StackFailed(f"{request.method} {request.url}: {answer.status_code} {answer.text}")
    found: Json = answer.json()
    return found


@asynccontextmanager
async def signed_up(stack: ChaosStack) -> AsyncIterator[Person]:
    """A new user of the stack, with a key."""
    token = await stack.alphalab("token", "--sub", "user_chaos", "--email", "chaos@example.com")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=stack.api_url, headers=headers, timeout=30.0, trust_env=False
    ) as http:
        person = Person(http=http, token=token)
        await person.post("/api/users/sync")
        await person.post("/api/api-keys", {"api_key": "sk-or-v1-a-key-of-nobody"})
        yield person
