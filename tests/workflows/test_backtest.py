"""A backtest as its user sees it: from its start to its result."""

import asyncio
import zlib
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import orjson
import pytest

from tests.laboratory import WARM_UP, Laboratory, Plan, default_rules, walk
from workflows import policies

SPEEDS = ("slow", "normal", "fast", "instant")


async def test_a_backtest_runs_to_its_result(staffed: Laboratory):
    session_id = await staffed.run(Plan(candles=30))

    row = await staffed.session_row(session_id)
    events = await staffed.streamed(session_id)
    assert row["status"] == "completed"
    assert row["cursor"] == 30
    assert [event.seq for event in events] == list(range(1, row["last_seq"] + 1))
    timestamps = [event.timestamp for event in events]
    assert timestamps == sorted(set(timestamps))
    assert events[-1].event == "session_completed"


async def test_the_same_test_twice_gives_the_same_trades_to_the_last_digit(staffed: Laboratory):
    plan = Plan(candles=16, model="simulated/flip")

    one, other = await asyncio.gather(staffed.run(plan), staffed.run(plan))

    assert await staffed.trades(one) == await staffed.trades(other) != []
    assert await staffed.decisions(one) == await staffed.decisions(other)
    equity = "SELECT equity, drawdown FROM steps WHERE session_id = :id ORDER BY last_seq"
    assert await staffed.rows(equity, one) == await staffed.rows(equity, other)


async def test_the_workflow_adds_nothing_to_what_its_activities_do(staffed: Laboratory):
    plan = Plan(candles=12, model="simulated/flip")

    ours, plain = await staffed.run(plan), await staffed.plain(plan)

    assert await staffed.trades(ours) == await staffed.trades(plain) != []
    assert await staffed.decisions(ours) == await staffed.decisions(plain)
    steps = "SELECT candle_number, phase, first_seq, last_seq FROM steps WHERE session_id = :id"
    order = " ORDER BY last_seq"
    assert await staffed.rows(steps + order, ours) == await staffed.rows(steps + order, plain)


async def test_stretches_at_instant_speed_give_what_single_steps_give(
    staffed: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(policies.PLAYBACK_DELAY, "fast", timedelta(milliseconds=1))
    chunked = Plan(candles=36, model="simulated/flip", interval=9)

    at_once, stepped = await asyncio.gather(
        staffed.run(chunked), staffed.run(replace(chunked, speed="fast"))
    )

    assert await staffed.trades(at_once) == await staffed.trades(stepped) != []
    assert await staffed.decisions(at_once) == await staffed.decisions(stepped)
    assert [candle for candle, _, _ in await staffed.decisions(at_once)] == [0, 9, 18, 27]
    # Each candle has its step, its numbers, its events and its point of equity, either way.
    steps = (
        "SELECT candle_number, first_seq, last_seq, equity, drawdown, stats->'equity' AS exact,"
        " jsonb_path_query_array(events, '$[*].event') AS happened"
        " FROM steps WHERE session_id = :id AND phase = 'step' ORDER BY last_seq"
    )
    assert await staffed.rows(steps, at_once) == await staffed.rows(steps, stepped)


async def test_each_speed_leaves_its_time_between_two_candles(staffed: Laboratory):
    plans = [Plan(candles=3, model="simulated/hold", speed=speed) for speed in SPEEDS]

    sessions = await asyncio.gather(*(staffed.run(plan) for plan in plans))

    for speed, session_id in zip(SPEEDS, sessions, strict=True):
        at = await staffed.rows(
            "SELECT happened_at FROM steps WHERE session_id = :id AND phase = 'step'"
            " ORDER BY last_seq",
            session_id,
        )
        gaps = [b["happened_at"] - a["happened_at"] for a, b in pairwise(at)]
        assert len(gaps) == 2
        assert min(gaps) >= policies.PLAYBACK_DELAY[speed]


async def test_a_blind_test_hides_asset_prices_and_time_and_trades_in_real_ones(
    staffed: Laboratory,
):
    plan = Plan(candles=12, model="simulated/flip", blind=True)

    blind, seeing = await asyncio.gather(staffed.run(plan), staffed.run(replace(plan, blind=False)))

    query = "SELECT prompt_text FROM decisions WHERE session_id = :id ORDER BY candle_number"
    prompts = [
        orjson.loads(zlib.decompress(row["prompt_text"]))[-1]["content"]
        for row in await staffed.rows(query, blind)
    ]
    first_close = float(walk(WARM_UP + plan.candles).close[WARM_UP])
    assert len(prompts) == 12
    assert not any("BTC" in prompt or "2024" in prompt for prompt in prompts)
    assert f"{first_close:.2f}"[:4] not in prompts[0].split("<candles>")[1].split("</candles>")[0]
    actions = [action for _, action, _ in await staffed.decisions(blind)]
    assert actions == [action for _, action, _ in await staffed.decisions(seeing)]
    for hidden, shown in zip(
        await staffed.trades(blind), await staffed.trades(seeing), strict=True
    ):
        assert hidden["entry_price"] == shown["entry_price"]
        assert float(hidden["stop_loss"]) == pytest.approx(float(shown["stop_loss"]))


async def test_a_guard_ends_the_test_and_closes_the_position(staffed: Laboratory):
    rules = default_rules(max_total_drawdown=0.0005)
    session_id = await staffed.run(Plan(candles=20, model="simulated/always-long", rules=rules))

    row, result = await staffed.session_row(session_id), await staffed.result(session_id)
    trades = await staffed.trades(session_id)
    assert row["status"] == "completed"
    assert row["cursor"] < 20
    assert result["end_reason"] == row["end_reason"] == "max_drawdown_exceeded"
    assert trades[-1]["exit_type"] == "guard"
    assert trades[-1]["exit_candle"] == row["cursor"] - 1


async def test_stops_on_the_wrong_side_are_rejected_orders(staffed: Laboratory):
    session_id = await staffed.run(Plan(candles=3, model="simulated/always-long:wrong-side"))

    rejected = await staffed.events(session_id, "order_rejected")
    assert await staffed.trades(session_id) == []
    assert {each["data"]["reason"] for each in rejected} == {"wrong_side", "end_of_test"}
    assert (await staffed.session_row(session_id))["status"] == "completed"


async def test_a_defect_of_ours_fails_the_session_and_ends_its_workflow(staffed: Laboratory):
    """Three candles more than the data holds: a start that no code of ours makes."""
    session_id = await staffed.started(Plan(candles=3, model="simulated/hold", total_candles=6))

    row = await staffed.reached(session_id, lambda row: row["status"] == "failed")

    assert row["end_reason"] == "system_error"
    assert row["error"]["error_code"] == "InternalFailure"
    last = (await staffed.streamed(session_id))[-1]
    assert (last.event, last.data["recoverable"]) == ("session_error", False)
    assert last.seq == row["last_seq"]
    assert await staffed.temporal.wait_result(session_id, timedelta(seconds=10)) is None
    assert not await staffed.temporal.is_running(session_id)
