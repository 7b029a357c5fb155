"""Backtests over REST: what a start stores, what it refuses, and how a test is steered."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from db.models.sessions import SessionRecord
from db.repositories.sessions import SessionRepository
from settings import ApiSettings
from tests.api.world import Person, World, a_backtest, created, error_of, opened_world, upload
from tests.laboratory import FIRST_CANDLE, walk
from trading.candles import CandleSeries

LONG_AGO = datetime(2023, 9, 23, tzinfo=UTC)
NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def agent(ada: Person) -> dict[str, Any]:
    """An agent that could be tested: it has a key, and there are candles."""
    await ada.add_key()
    await upload(ada)
    return await ada.add_agent()


async def test_a_start_stores_the_whole_test(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    answer = await ada.start(
        agent["id"],
        asset="BTC/usdt",
        decision_mode="every_n_candles",
        decision_interval_candles=4,
        fee_bps=7,
        allow_leverage=True,
        indicator_readiness_threshold=100,
        some_field_of_the_future=1,
    )

    session = created(answer)["session"]
    assert (session["status"], session["asset"], session["timeframe"]) == (
        "initializing",
        "BTC/USDT",
        "1h",
    )
    assert session["total_candles"] == 48
    assert session["end_date"] == "2024-01-05T00:00:00Z"
    assert session["websocket_url"] == f"ws://api.test/ws/backtest/{session['id']}"
    assert session["workflow_id"] == f"backtest-{session['id']}"
    assert session["preview_candles"][0]["timestamp"] == "2024-01-03T00:00:00Z"
    assert session["preview_candles"][0]["close"] == float(walk(240).close[48])
    row = await row_of(world, session["id"])
    assert (row.decision_interval_candles, row.first_decision_candle) == (4, 0)
    assert row.data_source == "upload"
    assert row.data_fingerprint == walk(240).slice(48, 96).fingerprint()
    assert row.warm_up_candles > 20
    assert (
        row.rules
        | {
            "fee_rate": 0.0007,
            "slippage_rate": 0.0005,
            "mode": "omni",
            "allow_leverage": True,
            "safety_mode": True,
            "max_position_size": 0.5,
            "max_loss_per_trade": 0.05,
            "max_total_drawdown": 0.2,
            "starting_capital": 10_000.0,
            "timeframe_ms": 3_600_000,
        }
        == row.rules
    )
    assert await world.services.temporal.is_running(row.id)


async def test_the_status_says_where_a_test_stands(ada: Person, agent: dict[str, Any]) -> None:
    session = created(await ada.start(agent["id"]))["session"]

    shown = (await ada.get(f"/api/arena/backtest/{session['id']}")).json()["session"]
    active = (await ada.get("/api/arena/backtest/active")).json()["sessions"]

    assert (shown["status"], shown["current_candle"], shown["progress_pct"]) == (
        "initializing",
        0,
        0.0,
    )
    assert (shown["current_equity"], shown["current_pnl_pct"]) == (10_000.0, 0.0)
    assert (shown["open_position"], shown["result_id"], shown["error"]) == (None, None, None)
    assert [each["id"] for each in active] == [session["id"]]
    assert active[0]["duration_display"] == "0s"


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"asset": "bitcoin"}, "VALIDATION_ERROR", ["body", "asset"]),
        ({"timeframe": "1w"}, "VALIDATION_ERROR", ["body", "timeframe"]),
        ({"starting_capital": 99}, "VALIDATION_ERROR", ["body", "starting_capital"]),
        ({"starting_capital": 1_000_001}, "VALIDATION_ERROR", ["body", "starting_capital"]),
        ({"fee_bps": -1}, "VALIDATION_ERROR", ["body", "fee_bps"]),
        ({"playback_speed": "warp"}, "VALIDATION_ERROR", ["body", "playback_speed"]),
        (
            {"decision_interval_candles": 0},
            "VALIDATION_ERROR",
            ["body", "decision_interval_candles"],
        ),
        ({"council_mode": True}, "VALIDATION_ERROR", ["body"]),
        ({"end_date": None}, "VALIDATION_ERROR", ["body"]),
        ({"start_date": "soon"}, "VALIDATION_ERROR", ["body", "start_date"]),
        ({"end_date": "2024-01-01"}, "VALIDATION_ERROR", ["body", "end_date"]),
        ({"timeframe": "4h"}, "NO_CANDLES", ["body", "start_date"]),
        ({"asset": "doge-usdt"}, "NO_CANDLES", ["body", "start_date"]),
        (
            {"start_date": "2025-01-01", "end_date": "2025-02-01"},
            "NO_CANDLES",
            ["body", "start_date"],
        ),
        ({"date_preset": "bull", "data_source": "nowhere"}, "NO_CANDLES", ["body", "start_date"]),
        (
            {
                "start_date": "2024-01-01",
                "end_date": "2024-01-01T05:00:00Z",
                "indicator_readiness_threshold": 100,
            },
            "VALIDATION_ERROR",
            ["body", "indicator_readiness_threshold"],
        ),
    ],
)
async def test_a_bad_start_is_refused_and_stores_nothing(
    ada: Person, agent: dict[str, Any], change: dict[str, Any], code: str, place: list[str]
) -> None:
    answer = await ada.start(agent["id"], **change)

    assert error_of(answer, 422, code)["errors"][0]["loc"] == place
    assert (await ada.get("/api/arena/backtest/active")).json() == {"sessions": []}


async def test_council_mode_is_said_not_to_be_there_yet(ada: Person, agent: dict[str, Any]) -> None:
    council = {"council_models": ["a", "b"], "council_chairman_model": "c"}

    refused = await ada.start(agent["id"], council_mode=True, **council)
    accepted = await ada.start(agent["id"], council_mode=False, **council)

    assert "not available yet" in refused.json()["detail"]
    assert accepted.status_code == 201


async def test_a_start_needs_an_agent_of_ones_own_with_a_key(
    ada: Person, bob: Person, agent: dict[str, Any]
) -> None:
    keyless = await bob.add_agent()
    await upload(bob)
    archived = await ada.add_agent("Retired")
    await ada.delete(f"/api/agents/{archived['id']}?archive=true")

    error_of(await bob.start(agent["id"]), 404, "AGENT_NOT_FOUND")
    error_of(await ada.start(NOBODY), 404, "AGENT_NOT_FOUND")
    error_of(await ada.start(archived["id"]), 404, "AGENT_NOT_FOUND")
    error_of(await bob.start(keyless["id"]), 409, "NO_API_KEY")


@pytest.mark.parametrize(
    ("preset", "first", "total"),
    [("7d", "2024-01-04T00:00:00Z", 168), ("30d", "2024-01-01T00:00:00Z", 240)],
)
async def test_a_moving_preset_ends_at_the_newest_candle(
    ada: Person, agent: dict[str, Any], preset: str, first: str, total: int
) -> None:
    answer = await ada.start(agent["id"], date_preset=preset, start_date=None, end_date=None)

    session = created(answer)["session"]
    assert (session["start_date"], session["total_candles"]) == (first, total)
    assert session["end_date"] == "2024-01-11T00:00:00Z"


async def test_a_moving_preset_is_of_the_first_set_that_is_long_enough(
    ada: Person, agent: dict[str, Any]
) -> None:
    await upload(ada, shifted(walk(30, seed=3), LONG_AGO - FIRST_CANDLE))

    answer = await ada.start(agent["id"], date_preset="7d", start_date=None, end_date=None)

    session = created(answer)["session"]
    assert session["start_date"] == "2024-01-04T00:00:00Z"
    assert session["total_candles"] == 168


async def test_a_test_begins_where_its_candles_begin(ada: Person, agent: dict[str, Any]) -> None:
    answer = await ada.start(agent["id"], start_date="2010-01-01", end_date="2024-01-02")

    session = created(answer)["session"]
    assert (session["start_date"], session["total_candles"]) == ("2024-01-01T00:00:00Z", 48)


@pytest.mark.parametrize(("blind", "first"), [(False, 0), (True, 47)])
async def test_an_agent_is_ready_by_the_values_that_it_sees(
    world: World, ada: Person, agent: dict[str, Any], blind: bool, first: int
) -> None:
    """The formula has a value at real prices from the start, and blind only at the last candle."""
    closes = walk(240).close[48:96]
    above = float(max(closes[:-1])) / float(closes[0]) * 100
    custom = [{"name": "late", "formula": f"log(close - {above!r})"}]
    series = raised_at_the_end(walk(240), 95)
    await upload(ada, series)
    demanding = await ada.add_agent("Demanding", custom_indicators=custom)

    answer = await ada.start(demanding["id"], blind=blind, indicator_readiness_threshold=100)

    row = await row_of(world, created(answer)["session"]["id"])
    assert row.first_decision_candle == first


async def test_what_is_left_out_may_be_null(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    answer = await ada.start(
        agent["id"], indicator_readiness_threshold=None, decision_interval_candles=None
    )

    row = await row_of(world, created(answer)["session"]["id"])
    assert (row.indicator_readiness_threshold, row.decision_interval_candles) == (0, 1)


async def test_a_start_that_is_sent_again_starts_nothing_more(
    ada: Person, bob: Person, agent: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": "a-click"}

    async def start(**changes: Any) -> httpx.Response:
        body = a_backtest(agent["id"], **changes)
        return await ada.http.post("/api/arena/backtest/start", json=body, headers=key)

    first = created(await start())
    again = created(await start())
    other = await start(fee_bps=3)

    assert again == first
    assert error_of(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert len((await ada.get("/api/arena/backtest/active")).json()["sessions"]) == 1
    created(await ada.start(agent["id"]))
    assert len((await ada.get("/api/arena/backtest/active")).json()["sessions"]) == 2


async def test_two_clicks_at_once_start_one_test(ada: Person, agent: dict[str, Any]) -> None:
    url, key = "/api/arena/backtest/start", {"Idempotency-Key": "a-double-click"}
    body = a_backtest(agent["id"])

    answers = await asyncio.gather(*(ada.http.post(url, json=body, headers=key) for _ in range(4)))

    sessions = {created(answer)["session"]["id"] for answer in answers}
    active = (await ada.get("/api/arena/backtest/active")).json()["sessions"]
    assert sessions == {each["id"] for each in active}
    assert len(active) == 1


async def test_the_preview_has_at_most_500_candles(ada: Person, agent: dict[str, Any]) -> None:
    await upload(ada, walk(800, seed=2))

    session = created(await ada.start(agent["id"], start_date="2024-01-01", end_date="2024-02-10"))[
        "session"
    ]

    assert session["total_candles"] == 800
    assert len(session["preview_candles"]) == 500


async def test_a_start_takes_the_set_that_covers_its_range(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    long_ago = shifted(walk(240, seed=3), LONG_AGO - FIRST_CANDLE)
    await upload(ada, long_ago)

    answer = await ada.start(agent["id"], start_date="2023-09-25", end_date="2023-09-26")

    row = await row_of(world, created(answer)["session"]["id"])
    offset = int((datetime(2023, 9, 25, tzinfo=UTC) - LONG_AGO).total_seconds()) // 3_600
    assert row.data_fingerprint == long_ago.slice(offset, offset + 48).fingerprint()


async def test_plans_limit_tests_at_once(
    settings: ApiSettings, world: World, ada: Person, agent: dict[str, Any]
) -> None:
    production = settings.model_copy(update={"environment": "production"})
    async with opened_world(production, world.issuer, world.issuer_url) as strict:
        person = strict.again(ada)
        answers = await asyncio.gather(*(person.start(agent["id"]) for _ in range(5)))

    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 2
    for answer in refused:
        error_of(answer, 409, "TOO_MANY_ACTIVE_TESTS")


async def test_a_start_while_temporal_is_away_is_kept_for_later(
    settings: ApiSettings, world: World, ada: Person, agent: dict[str, Any]
) -> None:
    lost = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with opened_world(lost, world.issuer, world.issuer_url) as stranded:
        person = stranded.again(ada)
        answer = await person.start(agent["id"])
        active = (await person.get("/api/arena/backtest/active")).json()["sessions"]
        shown = await person.get(f"/api/arena/backtest/{active[0]['id']}")
        paused = await person.post(f"/api/arena/backtest/{active[0]['id']}/pause")
        ready = await person.get("/api/ready")

    assert "starts by itself" in error_of(answer, 503, "UPSTREAM_UNAVAILABLE")["detail"]
    assert [each["status"] for each in active] == ["initializing"]
    assert shown.json()["session"]["status"] == "initializing"
    error_of(paused, 503, "UPSTREAM_UNAVAILABLE")
    assert ready.json()["temporal"] == "down"


async def test_another_users_test_does_not_exist(
    ada: Person, bob: Person, agent: dict[str, Any]
) -> None:
    path = f"/api/arena/backtest/{created(await ada.start(agent['id']))['session']['id']}"

    for answer in (
        await bob.get(path),
        await bob.post(f"{path}/pause"),
        await bob.post(f"{path}/resume"),
        await bob.post(f"{path}/speed", {"speed": "slow"}),
        await bob.post(f"{path}/stop"),
    ):
        error_of(answer, 404, "SESSION_NOT_FOUND")
    assert (await bob.get("/api/arena/backtest/active")).json() == {"sessions": []}


async def test_a_finished_test_takes_no_more_wishes(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    session_id = created(await ada.start(agent["id"]))["session"]["id"]
    async with world.services.database.as_system() as session:
        await session.execute(
            text(
                "UPDATE trading_sessions SET status = 'failed', completed_at = now(),"
                ' error = \'{"error_code": "InternalFailure", "message": "sorry"}\''
                " WHERE id = :id"
            ),
            {"id": session_id},
        )
    path = f"/api/arena/backtest/{session_id}"

    for answer in (
        await ada.post(f"{path}/pause"),
        await ada.post(f"{path}/resume"),
        await ada.post(f"{path}/speed", {"speed": "fast"}),
        await ada.post(f"{path}/stop"),
    ):
        error_of(answer, 409, "SESSION_FINISHED")
    shown = (await ada.get(path)).json()["session"]
    assert (shown["status"], shown["error"]["message"]) == ("failed", "sorry")


async def row_of(world: World, session_id: str) -> SessionRecord:
    async with world.services.database.as_system() as session:
        found = await SessionRepository(session).get(UUID(session_id))
    assert found is not None
    return found


def raised_at_the_end(series: CandleSeries, index: int) -> CandleSeries:
    """The same candles, of which one closes at twice the price."""
    close, high = series.close.copy(), series.high.copy()
    close[index] *= 2
    high[index] = max(high[index], close[index])
    return replace(series, close=close, high=high)


def shifted(series: CandleSeries, by: timedelta) -> CandleSeries:
    return CandleSeries(
        open_time=series.open_time + int(by.total_seconds() * 1000),
        open=series.open,
        high=series.high,
        low=series.low,
        close=series.close,
        volume=series.volume,
    )


async def test_a_user_who_is_shut_out_while_a_start_is_under_way_starts_nothing(
    world: World, ada: Person, agent: dict[str, Any]
) -> None:
    await ada.get("/api/users/me")  # known for some seconds, as one who may
    async with world.services.database.as_system() as session:
        await session.execute(
            text("UPDATE users SET is_active = false WHERE clerk_id = :id"), {"id": ada.subject}
        )

    error_of(await ada.start(agent["id"]), 403, "FORBIDDEN")
    async with world.services.database.as_system() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM trading_sessions WHERE agent_id = :id"), {"id": agent["id"]}
        )
    assert left == 0
