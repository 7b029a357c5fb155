"""Positions of forward tests while a candle forms: they open at once and end when they must."""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowExecutionStatus

from activities import price_feeds
from db.recordings import load_recording
from db.repositories.sessions import SessionRepository
from integrations.exchanges.exchange_market import open_market
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from tests.laboratory import Laboratory, Plan
from tests.loopback import serve_app
from trading.candles import Timeframe
from trading.orders import Trade

HOUR = Timeframe.HOUR_1.milliseconds
ORIGIN = 1_700_000_000_000 // HOUR * HOUR
ASSET = "LINK/USDT"
SCALP = Plan(type="forward", asset=ASSET, model="simulated/scalp")
HOLDING = Plan(type="forward", asset=ASSET, model="simulated/always-long")


@pytest.fixture
def clock() -> ExchangeClock:
    """An hour of the exchange takes two seconds."""
    clock = ExchangeClock(speed=HOUR / 2_000)
    clock.set(now_ms=ORIGIN)
    return clock


@pytest.fixture
def exchange_url(clock: ExchangeClock) -> Iterator[str]:
    with serve_app(exchange_server.create_app(clock)) as url:
        yield url


@pytest.fixture
async def live(laboratory: Laboratory, exchange_url: str) -> AsyncIterator[Laboratory]:
    laboratory.market = market = open_market("simulated", base_url=exchange_url)
    await market.open()
    yield laboratory
    await market.close()


async def stop(laboratory: Laboratory, session_id: UUID) -> dict[str, Any]:
    await laboratory.temporal.signal_stop(session_id, "a-stop", True, "forward")
    await laboratory.ended(session_id, type="forward")
    return await laboratory.session_row(session_id)


async def refolded(laboratory: Laboratory, session_id: UUID) -> tuple[list[Trade], list[Trade]]:
    """The trades that the test recorded, and those of its fold."""
    async with laboratory.database.for_user(laboratory.user_id) as session:
        record = await SessionRepository(session).get(session_id)
        assert record is not None
        recording = await load_recording(session, record)
    return [plain(each) for each in recording.trades], [
        plain(each) for each in recording.refold().trades
    ]


def plain(trade: Trade) -> Any:
    return (
        trade.side,
        trade.entry_candle,
        trade.entry_price,
        trade.exit_candle,
        trade.exit_price,
        trade.exit_time,
        trade.exit_type,
        trade.pnl_amount,
    )


async def ended_early(laboratory: Laboratory, session_id: UUID) -> list[dict[str, Any]]:
    """Trades that a minute ended."""
    return await laboratory.rows(
        "SELECT * FROM trades WHERE session_id = :id AND exit_type IN ('stop_loss', 'take_profit')"
        " AND jsonb_typeof(sighting->'minute') = 'object' ORDER BY trade_number",
        session_id,
    )


async def notices(laboratory: Laboratory, session_id: UUID) -> list[tuple[str, str]]:
    """What the user was told, by category and key."""
    rows = await laboratory.rows(
        "SELECT category, dedup_key FROM notifications WHERE session_id = :id"
        " ORDER BY category, dedup_key",
        session_id,
    )
    return [(row["category"], row["dedup_key"]) for row in rows]


async def test_trouble_with_the_model_is_told_and_so_is_the_end(live: Laboratory):
    async with live.worker():
        session_id = await live.started(
            Plan(type="forward", asset=ASSET, model="simulated/hold:402-always")
        )
        await live.paused(session_id)
        await stop(live, session_id)

    told = await notices(live, session_id)
    assert [category for category, _ in told] == ["paused", "test_completed"]


async def test_a_position_opens_while_its_candle_forms_and_ends_at_the_minute_that_touches_it(
    live: Laboratory,
):
    async with live.worker():
        session_id = await live.started(SCALP)
        opened = await live.reached(session_id, lambda row: row["open_position"] is not None)
        early: list[dict[str, Any]] = []
        for cursor in range(opened["cursor"] + 1, opened["cursor"] + 30):
            if early := await ended_early(live, session_id):
                break
            await live.stepped(session_id, cursor)
        row = await stop(live, session_id)

    first = early[0]
    names = [
        (each["event"], each["data"].get("candle_index")) for each in await live.events(session_id)
    ]
    closed = names.index(("position_closed", first["exit_candle"]))
    assert names.index(("position_opened", first["entry_candle"])) < closed
    if ("candle_closed", first["exit_candle"]) in names:
        assert closed < names.index(("candle_closed", first["exit_candle"]))
    minute = first["sighting"]["minute"]
    level = float(first["exit_price"])
    assert minute["low"] <= level * 1.001
    assert level * 0.999 <= minute["high"]
    recorded, again = await refolded(live, session_id)
    assert recorded == again != []
    told = await notices(live, session_id)
    assert told == sorted(set(told))
    assert ("trade_executed", f"opened-{first['trade_number']}") in told
    is_stop = first["exit_type"] == "stop_loss"
    category = "stop_loss_hit" if is_stop else "trade_executed"
    assert (category, f"closed-{first['trade_number']}") in told
    assert ("test_completed", "finish") in told
    assert (
        row["last_seq"]
        == (
            await live.rows(
                "SELECT max(last_seq) AS seq FROM steps WHERE session_id = :id", session_id
            )
        )[0]["seq"]
    )
    decided = await live.rows(
        "SELECT live_price FROM decisions WHERE session_id = :id AND trade_id IS NOT NULL",
        session_id,
    )
    assert all(each["live_price"] > 0 for each in decided)


async def test_a_stop_inside_an_outage_is_filled_at_the_candle_and_the_price_it_was_reached(
    live: Laboratory, clock: ExchangeClock
):
    clock.set(now_ms=ORIGIN + 120 * HOUR)
    async with live.worker():
        session_id = await live.started(HOLDING)
        before = await live.reached(session_id, lambda row: row["open_position"] is not None)
    clock.set(advance_ms=30 * HOUR)
    async with live.worker():
        await live.reached(
            session_id,
            lambda row: row["cursor"] >= before["cursor"] + 30 and row["open_position"] is not None,
        )
        await stop(live, session_id)

    trade, *_, last = await live.trades(session_id)
    # The stop itself closes the last one; of that, too, the user is told.
    category = "stop_loss_hit" if last["exit_type"] == "stop_loss" else "trade_executed"
    assert (category, f"closed-{last['trade_number']}") in await notices(live, session_id)
    candles = await live.rows(
        "SELECT c.* FROM candles c JOIN trading_sessions s ON s.data_set_id = c.data_set_id"
        " WHERE s.id = :id AND c.open_time >= s.start_date ORDER BY c.open_time",
        session_id,
    )
    touching = (
        index
        for index, candle in enumerate(candles)
        if index >= trade["entry_candle"]
        and (candle["low"] <= trade["stop_loss"] or candle["high"] >= trade["take_profit"])
    )
    steps = await live.events(session_id, "candle_closed")
    missed = {each["data"]["candle_index"] for each in steps if each["data"]["missed"]}
    index = next(touching)
    assert trade["exit_candle"] == index in missed
    assert trade["exit_type"] == "stop_loss"
    reached = min(candles[index]["open"], trade["stop_loss"])
    assert float(trade["exit_price"]) == pytest.approx(float(reached) * (1 - 5e-4), rel=1e-12)
    recorded, again = await refolded(live, session_id)
    assert recorded == again


async def test_an_asset_has_one_feed_which_ends_when_nobody_wants_it(
    live: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(price_feeds, "LINGER_S", 0.3)
    async with live.worker():
        for _ in range(3):
            await live.temporal.want("a-source", "ADA/USDT")
        handle = live.client.get_workflow_handle("prices-a-source-ADA/USDT")
        await handle.result()
        described = await handle.describe()
    assert described.status is WorkflowExecutionStatus.COMPLETED
