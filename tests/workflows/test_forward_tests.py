"""Forward tests on the simulated exchange, whose hours pass in parts of a second."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType

from activities import departures
from activities.reconciliation import Reconciler
from db.recordings import load_recording
from db.repositories.sessions import SessionRepository
from integrations.exchanges.clocks import SimulatedClock
from integrations.exchanges.connection import Connection
from integrations.exchanges.exchange_market import ExchangeMarket, open_market
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from tests.laboratory import Laboratory, Plan
from tests.loopback import serve_app
from trading.candles import Timeframe
from trading.schedule import GRACE_MS
from workflows.runtime import workflow_id

MINUTE, HOUR = Timeframe.MINUTE_1.milliseconds, Timeframe.HOUR_1.milliseconds
ORIGIN = 1_700_000_000_000
# Not the asset of other tests: a live data set is there for everybody's backtests.
ASSET = "LINK/USDT"
FLIP = Plan(type="forward", asset=ASSET, model="simulated/flip")
HOLDING = Plan(type="forward", asset=ASSET, model="simulated/always-long")
SLOW = Plan(type="forward", asset=ASSET, model="simulated/always-long:delay-500")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    url: str
    clock: ExchangeClock


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """An exchange at which an hour takes 0.6 s."""
    clock = ExchangeClock(speed=HOUR / 600)
    clock.set(now_ms=ORIGIN)
    with serve_app(exchange_server.create_app(clock)) as url:
        yield Exchange(url=url, clock=clock)


@pytest.fixture
async def live(laboratory: Laboratory, exchange: Exchange) -> AsyncIterator[Laboratory]:
    laboratory.market = market = open_market("simulated", base_url=exchange.url)
    await market.open()
    yield laboratory
    await market.close()


@pytest.fixture
async def live_apart(apart: Laboratory, exchange: Exchange) -> AsyncIterator[Laboratory]:
    apart.market = market = open_market("simulated", base_url=exchange.url)
    await market.open()
    yield apart
    await market.close()


async def stop(laboratory: Laboratory, session_id: UUID) -> dict[str, Any]:
    await laboratory.temporal.signal_stop(session_id, "a-stop", True, "forward")
    await laboratory.ended(session_id, type="forward")
    return await laboratory.session_row(session_id)


async def stepped_into(
    laboratory: Laboratory, session_id: UUID, candles: int = 0
) -> dict[str, Any]:
    """Wait for so many candles and then for a position; return the row.

    A busy machine is late with its decisions: it takes some candles more to get one.
    """
    return await laboratory.reached(
        session_id,
        lambda row: row["cursor"] >= candles and row["open_position"] is not None,
        seconds=60,
    )


async def break_with(laboratory: Laboratory, exchange: Exchange, **fault: Any) -> None:
    answer = await laboratory.http.post(f"{exchange.url}/debug/faults", json=[fault])
    assert answer.is_success, answer.text


async def backtested(laboratory: Laboratory, row: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The trades of the recorded candles and decisions, folded without any workflow."""
    async with laboratory.database.for_user(laboratory.user_id) as session:
        record = await SessionRepository(session).get(row["id"])
        assert record is not None
        recording = await load_recording(session, record)
    return [
        (each.side.value, each.entry_candle, each.exit_candle, each.entry_price, each.exit_price)
        for each in recording.refold().trades
    ]


async def traded(laboratory: Laboratory, row: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("type", "entry_candle", "exit_candle", "entry_price", "exit_price")
    return [
        tuple(value if isinstance(value, int | str) else float(value) for value in values)
        for values in (
            [trade[name] for name in names] for trade in await laboratory.trades(row["id"])
        )
    ]


async def test_it_decides_once_at_every_close_and_trades_as_a_backtest_would(live: Laboratory):
    async with live.worker():
        session_id = await live.started(replace(FLIP, ai_summary=True))
        await stepped_into(live, session_id, 12)
        row = await stop(live, session_id)

    assert (row["status"], row["end_reason"]) == ("stopped", "stopped")
    assert (await live.result(session_id))["ai_summary"].startswith("[simulated] ")
    decided = [number for number, _, _ in await live.decisions(session_id)]
    assert decided == sorted(set(decided))
    # The stop may have come between the last candle's step and its decision.
    assert len(decided) + row["missed_candles"] >= row["cursor"] - 1 >= 11
    assert await traded(live, row) == await backtested(live, row) != []
    asked = (await live.http.get(f"{live.openrouter_url}/debug/requests")).json()
    assert asked["total"] <= len(decided) + 2  # one may have been cut short, one sums up


async def test_those_that_wait_for_one_close_look_at_it_one_after_another(
    live: Laboratory, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(departures, "PACE_S", 1_000.0)
    exchange.clock.set(now_ms=ORIGIN - ORIGIN % HOUR - 10 * MINUTE, speed=1.0)
    ids = [await live.started(HOLDING) for _ in range(3)]
    async with live.worker():
        waits = [await first_wait(live, each) for each in ids]
        for each in ids:
            await stop(live, each)

    # Two thousand seconds are more than half of an hour: two hundred are left of them.
    assert sorted(wait.delay for wait in waits) == pytest.approx([0, 200, 1_000])
    in_ten_minutes = pytest.approx(600 + GRACE_MS / 1000, abs=60)
    assert all(wait.seconds == in_ten_minutes for wait in waits)
    # The summary of the day is due at midnight, by our own clock.
    for wait in waits:
        until = min(wait.seconds + wait.delay, 86_400 - wait.began % 86_400)
        assert wait.timer_seconds == pytest.approx(until, abs=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a test was told to wait, and its timer, which began at a Unix time."""

    began: float
    seconds: float
    delay: float
    timer_seconds: float


async def first_wait(laboratory: Laboratory, session_id: UUID) -> Wait:
    handle = laboratory.client.get_workflow_handle(workflow_id(session_id, "forward"))
    async with asyncio.timeout(60):
        while True:
            told: dict[str, float] = {}
            async for event in handle.fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED:
                    timer = event.timer_started_event_attributes.start_to_fire_timeout
                    return Wait(
                        began=event.event_time.ToNanoseconds() / 1e9,
                        seconds=told["seconds"],
                        delay=told["delay"],
                        timer_seconds=timer.ToTimedelta().total_seconds(),
                    )
                if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                    result = event.activity_task_completed_event_attributes.result
                    found = json.loads(result.payloads[0].data or b"null")
                    told = found if isinstance(found, dict) and "delay" in found else told
            await asyncio.sleep(0.1)


async def test_what_closed_while_nobody_worked_is_stepped_without_a_decision(
    live: Laboratory, exchange: Exchange
):
    async with live.worker():
        session_id = await live.started(HOLDING)
        before = await stepped_into(live, session_id)
    exchange.clock.set(advance_ms=30 * HOUR)
    async with live.worker():
        await live.reached(session_id, lambda row: row["cursor"] >= before["cursor"] + 32)
        row = await stop(live, session_id)

    steps = await live.events(session_id, "candle_closed")
    missed = [step["data"]["candle_index"] for step in steps if step["data"]["missed"]]
    decided = {number for number, _, _ in await live.decisions(session_id)}
    assert row["missed_candles"] == len(missed) >= 29
    assert decided.isdisjoint(missed)
    assert [step["data"]["candle_index"] for step in steps] == list(range(row["cursor"]))
    assert await traded(live, row) == await backtested(live, row) != []


async def test_a_paused_test_steps_on_and_takes_no_decisions(live: Laboratory):
    async with live.worker():
        session_id = await live.started(FLIP)
        await stepped_into(live, session_id, 3)
        await live.temporal.signal_pause(session_id, "a-pause", "forward")
        paused = await live.paused(session_id)
        await live.stepped(session_id, paused["cursor"] + 4)
        decided = len(await live.decisions(session_id))
        await live.stepped(session_id, paused["cursor"] + 6)
        assert len(await live.decisions(session_id)) == decided
        await live.temporal.signal_resume(session_id, "a-resume", "forward")
        async with asyncio.timeout(20):
            while len(await live.decisions(session_id)) == decided:
                await asyncio.sleep(0.05)
        row = await stop(live, session_id)

    assert row["paused_candles"] >= 5
    assert await traded(live, row) == await backtested(live, row) != []


async def test_a_test_whose_workflow_was_lost_is_started_again_from_its_row(
    live_apart: Laboratory,
):
    async with live_apart.worker():
        session_id = await live_apart.started(FLIP)
        await stepped_into(live_apart, session_id)
        handle = live_apart.client.get_workflow_handle(workflow_id(session_id, "forward"))
        await handle.terminate("as if Temporal had lost it")
        row = await live_apart.session_row(session_id)
        await asyncio.sleep(1)
        await Reconciler(live_apart.database, live_apart.temporal).run_once(
            unchanged_for=timedelta(0)
        )
        await live_apart.stepped(session_id, row["cursor"] + 4)
        row = await stop(live_apart, session_id)

    steps = await live_apart.events(session_id, "candle_closed")
    assert [step["data"]["candle_index"] for step in steps] == list(range(row["cursor"]))
    assert await traded(live_apart, row) == await backtested(live_apart, row) != []


async def test_the_forward_test_of_a_user_who_was_deactivated_is_stopped(live_apart: Laboratory):
    async with live_apart.worker():
        running, lost = await live_apart.started(FLIP), await live_apart.started(FLIP)
        for each in (running, lost):
            await stepped_into(live_apart, each)
        await live_apart.client.get_workflow_handle(workflow_id(lost, "forward")).terminate(
            "a test"
        )
        async with live_apart.database.as_system() as session:
            await session.execute(
                text("UPDATE users SET is_active = false WHERE id = :id"),
                {"id": live_apart.user_id},
            )

        await Reconciler(live_apart.database, live_apart.temporal).run_once()
        for each in (running, lost):
            await live_apart.ended(each, type="forward")

    for each in (running, lost):
        row = await live_apart.session_row(each)
        assert (row["status"], row["open_position"]) == ("stopped", None)


async def test_a_decision_that_comes_after_the_next_close_is_kept_and_fills_nothing(
    live: Laboratory,
):
    async with live.worker():
        session_id = await live.started(
            Plan(type="forward", asset=ASSET, model="simulated/always-long:delay-500")
        )
        await live.stepped(session_id, 6)
        row = await stop(live, session_id)

    late = await live.rows("SELECT late FROM decisions WHERE session_id = :id", session_id)
    assert row["late_decisions"] == sum(each["late"] for each in late) > 0
    rejected = await live.events(session_id, "order_rejected")
    assert {event["data"]["reason"] for event in rejected} >= {"late"}
    assert await traded(live, row) == await backtested(live, row)


async def test_an_asset_that_the_exchange_does_not_list_fails_the_test_at_once(
    live: Laboratory, exchange: Exchange
):
    await break_with(live, exchange, kind="gone", asset=ASSET)
    async with live.worker():
        session_id = await live.started(FLIP)
        row = await live.reached(session_id, lambda row: row["status"] == "failed")
    assert row["error"]["error_code"] == "AssetUnavailable"


def ahead(exchange: Exchange, hours: int) -> int:
    """The opening of the candle that forms so many hours from now."""
    return exchange.clock.now_ms // HOUR * HOUR + hours * HOUR


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "answer", "status": 429, "path": "/klines", "times": 3, "retry_after": 1},
        {"kind": "answer", "status": 503, "path": "/klines", "times": 2},
        {"kind": "late", "timeframe": "1h", "by_ms": HOUR // 2},
        {"kind": "revised", "timeframe": "1h"},
        {"kind": "halt"},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
async def test_what_an_exchange_does_wrong_leads_to_no_wrong_fill(
    live: Laboratory, exchange: Exchange, fault: dict[str, Any]
):
    async with live.worker():
        session_id = await live.started(FLIP)
        await live.stepped(session_id, 2)
        if fault["kind"] in {"late", "revised"}:
            fault = fault | {"asset": ASSET, "open_time": ahead(exchange, 1)}
        if fault["kind"] == "halt":
            start = ahead(exchange, 2)
            fault = fault | {"asset": ASSET, "start_ms": start, "end_ms": start + HOUR}
        await break_with(live, exchange, **fault)
        await stepped_into(live, session_id, 10)
        row = await stop(live, session_id)

    steps = await live.events(session_id, "candle_closed")
    times = [step["data"]["open_time"] for step in steps]
    assert times == sorted(set(times))
    holes = (times[-1] - times[0]) // HOUR + 1 - len(times)
    assert holes == (1 if fault["kind"] == "halt" else 0)
    assert await traded(live, row) == await backtested(live, row) != []


async def test_an_exchange_that_leaves_questions_unanswered_is_asked_again(
    laboratory: Laboratory, exchange: Exchange
):
    connection = Connection("binance", source="simulated", base_url=exchange.url, timeout_ms=400)
    market = ExchangeMarket(connection, SimulatedClock(connection, exchange.url))
    laboratory.market = market
    await market.open()
    async with laboratory.worker():
        session_id = await laboratory.started(FLIP)
        before = await laboratory.stepped(session_id, 2)
        await break_with(laboratory, exchange, kind="hang", path="/klines", times=3)
        await stepped_into(laboratory, session_id, before["cursor"] + 6)
        row = await stop(laboratory, session_id)
    await market.close()

    steps = await laboratory.events(session_id, "candle_closed")
    assert [step["data"]["candle_index"] for step in steps] == list(range(row["cursor"]))
    assert await traded(laboratory, row) == await backtested(laboratory, row) != []


async def test_an_asset_that_disappears_is_waited_for_and_its_test_can_be_stopped(
    live: Laboratory, exchange: Exchange
):
    async with live.worker():
        waiting = await live.started(HOLDING)
        stopped = await live.started(HOLDING)
        await without_the_asset_of(live, exchange, waiting, stopped)
        left = await live.session_row(waiting)
        row = await stop(live, stopped)
        await mended(live, exchange)
        await stepped_into(live, waiting, left["cursor"] + 6)
        back = await stop(live, waiting)

    assert (row["status"], left["status"]) == ("stopped", "running")
    last = (await live.trades(stopped))[-1]
    assert last["exit_type"] == "manual"
    # By the last minute seen of the candle that formed, or at the last close.
    assert last["exit_candle"] in {row["cursor"] - 1, row["cursor"]}
    assert back["missed_candles"] >= 4
    for ended in (row, back):
        assert await traded(live, ended) == await backtested(live, ended) != []


async def without_the_asset_of(live: Laboratory, exchange: Exchange, *sessions: UUID) -> None:
    """Take the asset away for five candles, at a moment when all of them hold it.

    The last price before that may have ended a position: then it is tried again.
    """
    held: list[Any] = [None]
    while None in held:
        await mended(live, exchange)
        for session_id in sessions:
            await stepped_into(live, session_id, 2)
        await break_with(live, exchange, kind="gone", asset=ASSET)
        await asyncio.sleep(5 * HOUR / exchange.clock.speed / 1000)
        held = [(await live.session_row(each))["open_position"] for each in sessions]


async def mended(live: Laboratory, exchange: Exchange) -> None:
    answer = await live.http.delete(f"{exchange.url}/debug/faults")
    assert answer.is_success, answer.text
