"""The API over real servers, and people who use it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI
from temporalio.client import Client

from api.app import create_app
from api.dependencies import Services
from integrations.openrouter.client import OpenRouterClient
from local.issuer import Issuer
from server import services
from settings import ApiSettings, load
from tests.db.accounts import Account
from tests.issuing import ISSUER
from tests.laboratory import walk
from trading.candles import CandleSeries, Timeframe
from worker import FernetKeyRing, build_activities, build_workers

PROMPT = "Go long when momentum turns up and leave when it fades. Keep losses small, always."


@dataclass(slots=True)
class Person:
    """Somebody with a token, speaking HTTP."""

    http: httpx.AsyncClient
    subject: str
    token: str

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **options)

    async def put(self, path: str, body: Any) -> httpx.Response:
        return await self.http.put(path, json=body)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.delete(path, **options)

    async def add_key(self, secret: str = "sk-or-v1-secret-of-a-test") -> str:
        added = await self.post("/api/api-keys", {"provider": "openrouter", "api_key": secret})
        return str(created(added)["api_key"]["id"])

    async def add_agent(self, name: str = "Momentum Max", **changes: Any) -> dict[str, Any]:
        body = {
            "name": name,
            "mode": "omni",
            "model": "simulated/momentum",
            "indicators": ["rsi_14", "ema_20"],
            "strategy_prompt": PROMPT,
        }
        answer = await self.post("/api/agents", body | changes)
        assert answer.status_code == 200, answer.text
        agent: dict[str, Any] = answer.json()["agent"]
        return agent

    async def start(self, agent_id: str, **changes: Any) -> httpx.Response:
        return await self.post("/api/arena/backtest/start", a_backtest(agent_id, **changes))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # asyncio shows it often
class World:
    """One API, its services, and an issuer that its tokens come from."""

    app: FastAPI
    services: Services
    issuer: Issuer
    issuer_url: str

    @asynccontextmanager
    async def person(self, **claims: str) -> AsyncIterator[Person]:
        subject = f"user_{uuid4().hex}"
        token = self.token(subject, **claims)
        async with self.http({"Authorization": f"Bearer {token}"}) as http:
            yield Person(http, subject, token)

    def again(self, person: Person) -> Person:
        """The same person, before this API."""
        http = self.http({"Authorization": f"Bearer {person.token}"})
        return Person(http, person.subject, person.token)

    def http(self, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://api.test", headers=headers or {}
        )

    def token(
        self, subject: str, lifetime: timedelta = timedelta(hours=1), /, **claims: str
    ) -> str:
        return self.issuer.token(
            issuer=self.issuer_url,
            subject=subject,
            issued_at=datetime.now(tz=UTC),
            lifetime=lifetime,
            claims=claims,
        )


def api_settings(**given: Any) -> ApiSettings:
    return load(ApiSettings, **({"public_url": "http://api.test", "_env_file": None} | given))


@asynccontextmanager
async def opened_world(
    settings: ApiSettings, issuer: Issuer, issuer_url: str
) -> AsyncIterator[World]:
    async with services(settings) as made:
        try:
            yield World(app=create_app(made), services=made, issuer=issuer, issuer_url=issuer_url)
        finally:
            await made.relay.close()


@asynccontextmanager
async def staffed_world(
    settings: ApiSettings, issuer: Issuer, issuer_url: str, temporal: Client
) -> AsyncIterator[World]:
    """A world with workers of its own."""
    own = settings.model_copy(update={"temporal_task_queue": f"staffed-{uuid4().hex}"})
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(opened_world(own, issuer, issuer_url))
        http = await stack.enter_async_context(httpx.AsyncClient())
        activities = build_activities(
            world.services.database,
            world.services.redis,
            OpenRouterClient(http, own.openrouter_base_url),
            FernetKeyRing(own.encryption_keys),
            storage=world.services.storage,
            issuer=ISSUER,
        )
        for worker in build_workers(
            temporal, own.temporal_task_queue, activities, grace=timedelta(seconds=1)
        ):
            await stack.enter_async_context(worker)
        yield world


def a_backtest(agent_id: str, **changes: Any) -> dict[str, Any]:
    """Two days of the candles that `upload` puts there."""
    return {
        "agent_id": agent_id,
        "asset": "btc-usdt",
        "timeframe": "1h",
        "start_date": "2024-01-03",
        "end_date": "2024-01-04",
        "starting_capital": 10_000,
        "playback_speed": "instant",
    } | changes


async def upload(
    person: Person, series: CandleSeries | None = None, *, asset: str = "BTC/USDT"
) -> dict[str, Any]:
    """Give the person hourly candles of their own: ten days from the first of January 2024."""
    content = csv(series or walk(240))
    answer = await person.http.post(
        "/api/data/candles/import",
        files={"file": ("candles.csv", content, "text/csv")},
        data={"asset": asset, "timeframe": Timeframe.HOUR_1.value},
    )
    return created(answer)


def csv(series: CandleSeries) -> bytes:
    lines = [",".join(repr(value) for value in row) for row in series.rows()]
    return "\n".join(["time,open,high,low,close,volume", *lines]).encode()


def created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the one error shape and return the body."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code), answer.text
    assert body["status_code"] == status
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert ("errors" in body) == (status == 422)
    return body


async def account_of(world: World, person: Person) -> Account:
    user = (await person.get("/api/users/me")).json()["user"]
    return Account(id=UUID(user["id"]), database=world.services.database)
