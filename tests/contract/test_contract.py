"""A whole walk through the API as the contract describes it: every call, every event."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import pytest

from api.asyncapi import document as asyncapi_document
from api.event_schemas import camel
from tests.api.live import rising
from tests.api.sockets import Address, refusal
from tests.api.world import PROMPT, World, csv
from tests.contract.client import Listener, Walker, listen, operations_of
from tests.contract.rest import CONTRACT, ERROR, NOT_YET, PAGES, PUBLIC, SIGNED
from tests.contract.sockets import EVENTS
from tests.contract.words import check, decode
from tests.laboratory import walk
from trading.candles import CandleSeries

NOBODY = "00000000-0000-7000-8000-000000000000"
KEY = {"provider": "openrouter", "api_key": "sk-or-v1-secret-of-a-walk"}
# Two days of the candles that are uploaded: at the slow speed three quarters of a minute.
LONG = {"end_date": "2024-01-04"}
LIVE = {"asset": "link-usdt", "timeframe": "1h", "starting_capital": 10_000}


@dataclass(slots=True)
class Visitor:
    """Somebody with a token who walks through the API and listens to its sockets."""

    walker: Walker
    address: Address
    token: str
    listeners: list[Listener]

    async def agent(self, model: str) -> dict[str, Any]:
        body = {
            "name": f"Agent {uuid4().hex[:8]}",
            "mode": "omni",
            "model": model,
            "indicators": ["rsi_14", "macd"],
            "custom_indicators": [{"name": "edge", "formula": "close - sma_20"}],
            "strategy_prompt": PROMPT,
        }
        made = await self.walker.call("POST /api/agents", json=body)
        return dict(made["agent"])

    async def upload(self, series: CandleSeries) -> None:
        await self.walker.call(
            "POST /api/data/candles/import",
            files={"file": ("candles.csv", csv(series), "text/csv")},
            data={"asset": "BTC/USDT", "timeframe": "1h"},
        )

    async def start(self, agent_id: str, **changes: Any) -> str:
        body = {
            "agent_id": agent_id,
            "asset": "btc-usdt",
            "timeframe": "1h",
            "start_date": "2024-01-03",
            "end_date": "2024-01-03",
            "starting_capital": 10_000,
            "playback_speed": "instant",
        }
        started = await self.walker.call("POST /api/arena/backtest/start", json=body | changes)
        return str(started["session"]["id"])

    async def start_forward(self, agent_id: str, **changes: Any) -> str:
        body = LIVE | {"agent_id": agent_id} | changes
        started = await self.walker.call("POST /api/arena/forward/start", json=body)
        return str(started["session"]["id"])

    async def listen(
        self, session_id: str, *, type: str = "backtest", last_seq: int | None = 0, **how: Any
    ) -> Listener:
        seq = "" if last_seq is None else f"last_seq={last_seq}"
        url = self.address.url(session_id, f"token={self.token}&{seq}", type)
        listener = await listen(url, **how)
        self.listeners.append(listener)
        return listener


@pytest.fixture
async def visitor(live: World, address: Address) -> AsyncIterator[Visitor]:
    subject = f"user_{uuid4().hex}"
    token = live.token(subject, email=f"{subject}@example.com")
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{address.port}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as http:
        document = (await http.get("/api/openapi.json")).json()
        yield Visitor(Walker(http, operations_of(document)), address, token, [])


async def test_the_calls_are_those_of_the_contract(address: Address) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address.port}") as http:
        operations = operations_of((await http.get("/api/openapi.json")).json())
    unknown = operations - CONTRACT.keys()
    assert not unknown, f"calls that the contract's table lacks: {sorted(unknown)}"
    assert CONTRACT.keys() - operations == NOT_YET, "not the calls that are known to lack"


@pytest.mark.system
@pytest.mark.timeout(300)
async def test_every_call_and_every_event_is_as_promised(
    visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    walker = visitor.walker
    await walk_health(walker)
    await walk_account(walker)
    await walk_keys(walker)
    await visitor.upload(walk(240))
    await walk_agents(visitor)
    await walk_data(walker)
    result_id = await walk_backtests(visitor)
    await walk_results(walker, result_id)
    await walk_forward_tests(visitor)
    await listen_to_prices(visitor)
    await walk_certificates(walker)
    await walk_inbox(walker)
    await walk_export(walker)
    await walk_removal(visitor)

    heard = {name for listener in visitor.listeners for name in listener.names()}
    with capsys.disabled():
        print(walked(walker, heard))
    assert walker.operations - set(walker.walked) == set(), "calls that nobody walked"
    assert EVENTS.keys() - heard == set(), "events that nobody heard"
    check_document(visitor.listeners)
    problems = {*walker.problems, *(p for each in visitor.listeners for p in each.problems)}
    assert not problems, "\n".join(sorted(problems))


def walked(walker: Walker, heard: set[str]) -> str:
    """The list of what was walked, and of what this server does not have."""
    return "\n".join(
        [
            f"\nwalked {len(walker.walked)} of {len(walker.operations)} calls:",
            *(f"  {each}" for each in sorted(walker.walked)),
            f"not in the OpenAPI document: {', '.join(sorted(NOT_YET)) or 'none'}",
            f"heard {len(heard)} of {len(EVENTS)} events: {', '.join(sorted(heard))}",
        ]
    )


def check_document(listeners: list[Listener]) -> None:
    """What was heard is what the AsyncAPI document says, without a field that it lacks."""
    schemas = asyncapi_document()["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith(("Data", "Event")) and "properties" in schema:
            schemas[name] = schema | {"additionalProperties": False}
    for listener in listeners:
        for frame in listener.frames:
            name = f"{camel(frame['event'])}Event"
            root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
            check(root, frame, name)


async def walk_health(walker: Walker) -> None:
    await walker.call("GET /api/health")
    await walker.call("GET /api/ready")
    await walker.call("GET /api/models")
    await walk_guarded(walker, "GET /metrics")
    await walk_guarded(walker, "POST /api/webhooks/clerk", json={"type": "user.updated"})


async def walk_guarded(walker: Walker, operation: str, **options: Any) -> None:
    """A call that needs a setting or a signature, and without them is refused as every other."""
    method, path = operation.split()
    answer = await walker.http.request(method, path, **options)
    assert answer.status_code in {200, 401, 404, 503}, answer.text
    if answer.status_code != 200:
        check(ERROR, decode(answer.content), operation)
    walker.note(operation)


async def walk_account(walker: Walker) -> None:
    await walker.call("POST /api/users/sync", json={"email": "not@believed.example"})
    me = (await walker.call("GET /api/users/me"))["user"]
    assert me["email"] == f"{me['clerk_id']}@example.com"
    await walker.call("PUT /api/users/me", json={"timezone": "Europe/Berlin"})
    await walker.call("GET /api/users/me/settings")
    changed = await walker.call("PUT /api/users/me/settings", json={"theme": "light"})
    assert changed["settings"]["theme"] == "light"


async def walk_keys(walker: Walker) -> None:
    key_id = (await walker.call("POST /api/api-keys", json=KEY))["api_key"]["id"]
    other = (await walker.call("POST /api/api-keys", json=KEY))["api_key"]["id"]
    keys = (await walker.call("GET /api/api-keys"))["api_keys"]
    assert "secret-of-a-walk" not in json.dumps(keys)
    await walker.call("GET /api/api-keys/{}", key_id)
    await walker.call("PUT /api/api-keys/{}", key_id, json={"label": "walked"})
    await walker.call("POST /api/api-keys/{}/set-default", key_id)
    await walker.call("POST /api/api-keys/{}/validate", key_id)
    await walker.call("DELETE /api/api-keys/{}", other)


async def walk_agents(visitor: Visitor) -> None:
    walker, agent = visitor.walker, await visitor.agent("simulated/momentum")
    shown = await walker.call("GET /api/agents/{}", agent["id"])
    assert shown["id"] == shown["agent"]["id"] == agent["id"]
    listed = await walker.call("GET /api/agents", params={"sort": "newest", "limit": 5})
    assert listed["total"] == len(listed["agents"])
    changed = await walker.call("PUT /api/agents/{}", agent["id"], json={"mode": "monk"})
    assert changed["agent"]["version"] == agent["version"] + 1
    await walker.call("GET /api/agents/{}/versions", agent["id"])
    await walker.call("GET /api/agents/{}/stats", agent["id"])
    copy = await walker.call(
        "POST /api/agents/{}/duplicate", agent["id"], json={"new_name": "A copy"}
    )
    await walker.call("DELETE /api/agents/{}", copy["agent"]["id"], params={"archive": "true"})
    await walker.call("POST /api/agents/{}/restore", copy["agent"]["id"])


async def walk_data(walker: Walker) -> None:
    await walker.call("GET /api/data/assets")
    await walker.call("GET /api/data/timeframes")
    await walker.call("GET /api/data/presets")
    await walker.call("GET /api/data/indicators/catalog")
    span = {
        "asset": "btc-usdt",
        "timeframe": "1h",
        "start": "2024-01-03T00:00:00Z",
        "end": "2024-01-04T00:00:00Z",
    }
    candles = await walker.call("GET /api/data/candles", params=span)
    assert candles["count"] == len(candles["candles"]) > 0
    wanted = span | {"indicators": "rsi_14,ema_20"}
    got = await walker.call("GET /api/data/indicators", params=wanted)
    posted = await walker.call(
        "POST /api/data/indicators", json=span | {"indicators": ["rsi_14", "ema_20"]}
    )
    assert got == posted
    assert got["data"][-1].keys() == {"time", "rsi_14", "ema_20"}


async def walk_backtests(visitor: Visitor) -> str:
    """Walk the arena; return the id of the result of a test with trades."""
    result_id = await walk_whole_backtest(visitor)
    await walk_controls(visitor)
    await walk_trouble(visitor)
    await walk_rejection(visitor)
    return result_id


async def walk_whole_backtest(visitor: Visitor) -> str:
    agent = await visitor.agent("simulated/flip")
    session_id = await visitor.start(agent["id"])
    first = await visitor.listen(session_id)
    again = await visitor.listen(session_id)
    plain = await visitor.listen(session_id, last_seq=None)
    for listener in (first, again, plain):
        assert listener.close_code == 1000
    first.check_promise()
    assert again.numbered == first.numbered, "a replay differs from the first telling"
    kept = {frame["seq"]: frame for frame in first.numbered}
    assert all(kept[frame["seq"]] == frame for frame in plain.numbered)
    session = (await visitor.walker.call("GET /api/arena/backtest/{}", session_id))["session"]
    assert session["status"] == "completed"
    assert first.result_id() == session["result_id"]
    return str(session["result_id"])


async def walk_controls(visitor: Visitor) -> None:
    walker, agent = visitor.walker, await visitor.agent("simulated/hold")
    session_id = await visitor.start(agent["id"], playback_speed="normal", **LONG)
    following = asyncio.create_task(visitor.listen(session_id))
    await walker.call("POST /api/arena/backtest/{}/pause", session_id)
    await walker.call("GET /api/arena/backtest/{}", session_id)
    active = await walker.call("GET /api/arena/backtest/active")
    assert session_id in [each["id"] for each in active["sessions"]]
    await walker.call("POST /api/arena/backtest/{}/resume", session_id)
    await walker.call("POST /api/arena/backtest/{}/speed", session_id, json={"speed": "slow"})
    talking = await visitor.listen(
        session_id,
        until=["heartbeat", "command_ack", "error"],
        says=['{"action": "ping"}', '{"action": "pong"}', "not JSON"],
    )
    assert "replay_complete" in talking.names()
    body = {"close_position": True}
    await walker.call("POST /api/arena/backtest/{}/stop", session_id, json=body)
    whole = await following
    whole.check_promise()
    again = await walker.call("POST /api/arena/backtest/{}/stop", session_id, json=body)
    assert (again["status"], again["result_id"]) == ("completed", whole.result_id())
    assert {"session_paused", "session_resumed", "speed_changed"} <= whole.names()


async def walk_trouble(visitor: Visitor) -> None:
    """A test whose agent loses its key, pauses, and goes on with another."""
    walker, agent = visitor.walker, await visitor.agent("simulated/hold")
    session_id = await visitor.start(agent["id"], playback_speed="slow", **LONG)
    await visitor.listen(session_id, until=["ai_decision"])
    await walker.call("DELETE /api/api-keys/{}", agent["api_key_id"])
    troubled = await visitor.listen(session_id, until=["session_error", "error", "session_paused"])
    reasons = [f["data"]["reason"] for f in troubled.frames if f["event"] == "session_paused"]
    assert reasons == ["no_api_key"]
    other = (await walker.call("POST /api/api-keys", json=KEY))["api_key"]["id"]
    await walker.call("PUT /api/agents/{}", agent["id"], json={"api_key_id": other})
    await walker.call("POST /api/arena/backtest/{}/speed", session_id, json={"speed": "instant"})
    await walker.call("POST /api/arena/backtest/{}/resume", session_id)
    (await visitor.listen(session_id)).check_promise()


async def walk_rejection(visitor: Visitor) -> None:
    """A test that ends at a candle with an order, for which no candle is left."""
    agent = await visitor.agent("simulated/flip")
    session_id = await visitor.start(agent["id"], end_date="2024-01-03T23:00:00Z")
    assert "order_rejected" in (await visitor.listen(session_id)).names()


async def walk_results(walker: Walker, result_id: str) -> None:
    result = (await walker.call("GET /api/results/{}", result_id))["result"]
    assert result["equity_curve"]
    assert result["total_trades"] == result["winning_trades"] + result["losing_trades"] > 0
    listed = await walker.call("GET /api/results", params={"type": "backtest", "limit": 50})
    assert result_id in [each["id"] for each in listed["results"]]
    trades = await walker.call("GET /api/results/{}/trades", result_id, params={"limit": 5})
    assert trades["summary"]["total"] == result["total_trades"]
    page = {"decisions_only": "true", "limit": 5}
    await walker.call("GET /api/results/{}/reasoning", result_id, params=page)
    await walker.call("GET /api/results/{}/parity", result_id)
    await walker.call("GET /api/results/stats")
    for form in ("json", "csv"):
        answer = await walker.call("GET /api/results/{}/export", result_id, params={"format": form})
        assert answer.headers["content-disposition"].startswith("attachment")


async def walk_forward_tests(visitor: Visitor) -> None:
    await visitor.upload(rising())
    agent = await visitor.agent("simulated/always-long")
    await visitor.listen(await visitor.start(agent["id"]))
    await walk_forward_test(visitor, agent["id"])
    await walk_limit(visitor, agent["id"])


async def walk_forward_test(visitor: Visitor, agent_id: str) -> None:
    walker, session_id = visitor.walker, await visitor.start_forward(agent_id)
    following = asyncio.create_task(visitor.listen(session_id, type="forward"))
    await visitor.listen(
        session_id,
        type="forward",
        last_seq=None,
        until=["ai_decision", "position_update", "countdown_update", "price_update"],
    )
    active = await walker.call("GET /api/arena/forward/active")
    assert session_id in [each["id"] for each in active["sessions"]]
    shown = (await walker.call("GET /api/arena/forward/{}", session_id))["session"]
    assert shown["next_candle_at"] is not None
    await walker.call("POST /api/arena/forward/{}/pause", session_id)
    await walker.call("POST /api/arena/forward/{}/resume", session_id)
    stop = {"close_position": True}
    await walker.call("POST /api/arena/forward/{}/stop", session_id, json=stop)
    whole = await following
    whole.check_promise()
    assert whole.close_code == 1000
    assert (await visitor.listen(session_id, type="forward")).numbered == whole.numbered
    await walker.call("GET /api/results/{}", whole.result_id())


async def walk_limit(visitor: Visitor, agent_id: str) -> None:
    """A forward test whose first fees are more than it may lose."""
    limit = {"fee_bps": 500, "auto_stop_on_loss": True, "auto_stop_loss_pct": 0.1}
    session_id = await visitor.start_forward(agent_id, **limit)
    whole = await visitor.listen(session_id, type="forward")
    whole.check_promise()
    assert [f["event"] for f in whole.numbered[-2:]] == ["auto_stopped", "session_completed"]


async def listen_to_prices(visitor: Visitor) -> None:
    """The price of an asset, and of one that the exchange does not have."""
    base = f"ws://127.0.0.1:{visitor.address.port}/ws/prices"
    visitor.listeners += await asyncio.gather(
        listen(f"{base}/btc-usdt", until=["price"]),
        listen(f"{base}/nothing-usdt", until=["price_status"]),
    )


async def walk_certificates(walker: Walker) -> None:
    if "POST /api/certificates" in NOT_YET:
        return
    profitable = await walker.call("GET /api/results", params={"result": "profitable"})
    body = {"result_id": profitable["results"][0]["id"], "include_reasoning_trace": True}
    certificate = await walker.call("POST /api/certificates", json=body)
    for call in ("GET /api/certificates/{}", *_files("pdf", "image", "qr", "bundle")):
        await walker.call(call, certificate["id"])
    code = certificate["verification_code"]
    published = "GET /api/certificates/verify/{}"
    for call in (published, f"{published}/bundle", "GET /verify/{}"):
        await walker.call(call, code)
    await walker.call("GET /.well-known/alphalab-certificate-key")


def _files(*kinds: str) -> list[str]:
    return [f"GET /api/certificates/{{}}/{kind}" for kind in kinds]


async def walk_inbox(walker: Walker) -> None:
    listed = await walker.call("GET /api/notifications")
    assert listed["notifications"], "the end of a test is told"
    await walker.call("POST /api/notifications/{}/read", listed["notifications"][0]["id"])
    await walker.call("GET /api/notifications/unread-count")
    await walker.call("POST /api/notifications/mark-all-read")
    await walker.call("DELETE /api/notifications/clear")
    await walker.call("GET /api/dashboard/stats")
    await walker.call("GET /api/dashboard/activity", params={"limit": 50})
    await walker.call("GET /api/dashboard/quick-start")


async def walk_export(walker: Walker) -> None:
    body = {"include": {"agent_configs": True, "test_results": True}, "format": "json"}
    started = await walker.call("POST /api/export", json=body)
    assert (started["status"], started["download_url"]) == ("processing", None)
    export = await made(walker, started["export_id"])
    assert (export["status"], export["error"]) == ("ready", None)
    link = urlsplit(export["download_url"])
    signed = dict(parse_qsl(link.query))
    file = await walker.call("GET /api/export/{}/download", export["export_id"], params=signed)
    assert link.path == file.request.url.path
    assert file.headers["content-disposition"].startswith("attachment")
    assert {"agents", "results"} <= set(file.json())
    unsigned = signed | {"signature": "0" * 64}
    ids = [export["export_id"]]
    await walker.refused("GET /api/export/{}/download", 403, *ids, params=unsigned)


async def made(walker: Walker, export_id: str) -> Any:
    """The export, as soon as it is there."""
    async with asyncio.timeout(30):
        while True:
            export = await walker.call("GET /api/export/{}", export_id)
            if export["status"] != "processing":
                return export
            await asyncio.sleep(0.05)


async def walk_removal(visitor: Visitor) -> None:
    agent = await visitor.agent("simulated/hold")
    await visitor.walker.call("DELETE /api/agents/{}", agent["id"])
    cleanup = {"session_type": "backtest"}
    await visitor.walker.call("DELETE /api/arena/cleanup", params=cleanup)


async def test_every_refusal_has_the_one_shape(visitor: Visitor) -> None:
    """Without a token 401, for what is not there 404, for what is no JSON 422."""
    walker = visitor.walker
    headers = {"Authorization": ""}
    for operation in sorted(walker.operations - PUBLIC):
        ids = [NOBODY] * operation.count("{}")
        body = await walker.refused(operation, 401, *ids, headers=headers)
        assert body["error_code"] == "UNAUTHORIZED"
    for operation in sorted(SIGNED):
        await walker.refused(operation, 403, *[NOBODY] * operation.count("{}"))
    for operation in sorted(each for each in walker.operations - SIGNED - PAGES if "{}" in each):
        if operation.startswith(("GET", "DELETE")):
            body = await walker.refused(operation, 404, *[NOBODY] * operation.count("{}"))
            assert body["error_code"].endswith("_NOT_FOUND")
    for operation in ("POST /api/agents", "PUT /api/users/me", "POST /api/arena/backtest/start"):
        await walker.refused(operation, 422, content="{", headers={"Content-Type": "text/json"})


async def test_refused_handshakes_have_the_one_shape_too(visitor: Visitor) -> None:
    """As HTTP answers, before anything is accepted."""
    for kind, token, status in (
        ("backtest", visitor.token, 404),
        ("forward", "none", 401),
    ):
        url = visitor.address.url(NOBODY, f"token={token}", kind)
        check(ERROR, decode(await refusal(url, status)), url)
