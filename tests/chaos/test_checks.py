"""A check that cannot fail proves nothing: each of these sees what is wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.accounts import events_of
from tests.chaos.checks import Line, run_lines, same_lines, standstills
from tests.chaos.clients import Received, WatchingClient
from tests.chaos.kills import Kill
from tests.chaos.plans import Plan
from tests.chaos.runs import Outcome, Run

CANDLES = 4
PLAN = Plan(candles=CANDLES)
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
STATS = {"equity": 1.0, "current_candle": 1, "total_candles": CANDLES}
TRADE = {"trade_number": 1, "entry_price": 100.0, "exit_price": 101.0}


def a_run(**changes: Any) -> Run:
    """A run of four candles in which everything is as it should be."""
    steps = [_step(number) for number in range(CANDLES)]
    steps.append(_row(CANDLES - 1, "control", 2 * CANDLES + 1, [_event("session_completed")]))
    heard = [
        Received(0.0, {"seq": e.seq, "event": e.event, "timestamp": e.timestamp, "data": e.data})
        for e in events_of(steps)
    ]
    run = Run(
        session_id="session",
        seconds=1.0,
        kills=[],
        outcome=Outcome(
            result={"ending_capital": 1.0},
            trades=[TRADE],
            decisions=[{"candle_number": number} for number in range(CANDLES)],
            possibly_paid_twice=0,
        ),
        steps=steps,
        calls=[_call(number) for number in range(CANDLES)],
        requests=Counter(f"digest{number}" for number in range(CANDLES)),
        clients={"steady": a_client(heard)},
    )
    return replace(run, **changes)


def a_client(received: Sequence[Received]) -> WatchingClient:
    return WatchingClient(api_url="", session_id="", token="", received=list(received))


def broken(lines: Sequence[Line]) -> list[str]:
    return [line.claim for line in lines if not line.holds]


def test_a_run_as_it_should_be_passes():
    assert broken([*run_lines(a_run(), PLAN), *same_lines(a_run(), a_run())]) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda heard: heard[:3] + heard[4:],
        lambda heard: heard[:4] + heard[3:],
        lambda heard: [heard[1], heard[0], *heard[2:]],
        lambda heard: heard[:-1],
        lambda heard: [],
        lambda heard: [*heard[:2], _told(heard[2], timestamp=heard[1].frame["timestamp"])],
        lambda heard: [*heard[:2], _told(heard[2], event="another"), *heard[3:]],
        lambda heard: [*heard[:1], _told(heard[1], data={"equity": 2.0}), *heard[2:]],
    ],
    ids=["missing", "double", "swapped", "cut off", "silent", "same time", "renamed", "changed"],
)
def test_a_client_that_heard_something_else_is_seen(spoil: Any):
    run = a_run()
    run.clients["steady"].received[:] = spoil(run.clients["steady"].received)

    assert broken([*run_lines(run, PLAN)])


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": []},
        {"calls": []},
        {"requests": Counter(f"digest{number}" for number in range(CANDLES - 1))},
    ],
    ids=["no candles", "no calls", "a decision that nobody asked for"],
)
def test_what_is_not_there_is_seen(changes: dict[str, Any]):
    assert broken([*run_lines(a_run(**changes), PLAN)])


def test_a_request_that_is_repeated_without_being_counted_is_seen():
    run = a_run()
    run.requests["digest2"] = 2

    assert broken([*run_lines(run, PLAN)])


def test_a_request_that_is_counted_twice_away_from_any_kill_is_seen():
    run = a_run(calls=[_call(number, attempts=1 + (number == 2)) for number in range(CANDLES)])
    counted = replace(run.outcome, possibly_paid_twice=1)
    near = Kill(victim="worker", candle=3, at=0.0)

    assert broken([*run_lines(replace(run, outcome=counted), PLAN)])
    assert broken([*run_lines(replace(run, kills=[near]), PLAN)])
    assert not broken([*run_lines(replace(run, outcome=counted, kills=[near]), PLAN)])


@pytest.mark.parametrize(
    "changes",
    [
        {"trades": [TRADE | {"exit_price": 101.00000000000001}]},
        {"trades": []},
        {"decisions": [{"candle_number": 0}]},
        {"result": {"ending_capital": 1.1}},
    ],
    ids=["the last digit of a trade", "no trade", "fewer decisions", "another result"],
)
def test_another_outcome_is_seen(changes: dict[str, Any]):
    run = a_run()

    assert broken([*same_lines(replace(run, outcome=replace(run.outcome, **changes)), run)])


def test_a_standstill_is_all_the_silence_after_a_kill():
    times = [0.0, 1.0, 7.0, 7.1, 12.1, 12.2]
    kill = Kill(victim="worker", candle=1, at=BEGAN.timestamp() + 1.5)
    steps = [
        _step(n) | {"happened_at": BEGAN + timedelta(seconds=at)} for n, at in enumerate(times)
    ]

    [stood] = standstills(a_run(steps=steps, kills=[kill]))

    assert stood.session_seconds == pytest.approx(6.0 + 5.0)


def _step(number: int) -> dict[str, Any]:
    return _row(number, "step", 2 * number + 1, []) | {"stats": STATS}


def _row(number: int, phase: str, first_seq: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "candle_number": number,
        "phase": phase,
        "equity": 1.0,
        "drawdown": 0.0,
        "first_seq": first_seq,
        "happened_at": BEGAN + timedelta(seconds=first_seq),
        "stats": None,
        "events": events,
    }


def _event(name: str) -> dict[str, Any]:
    return {"event": name, "data": {}}


def _call(number: int, *, attempts: int = 1) -> dict[str, Any]:
    generation = f"gen-simulated-digest{number}-1"
    return {"candle_number": number, "attempts": attempts, "generation_id": generation}


def _told(received: Received, **changes: Any) -> Received:
    return Received(received.at, received.frame | changes)
