"""Each of the kill run's checks of forward tests sees what is wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.payloads import candle_closed_payload
from local.simulators.exchange_clock import ClockOrigin
from tests.chaos.accounts import Row, events_of
from tests.chaos.clients import Received, WatchingClient
from tests.chaos.forward.checks import LOST, evidence_lines, kill_lines
from tests.chaos.forward.plans import ForwardPlan, Subject
from tests.chaos.forward.runs import Evidence
from tests.chaos.kills import Kill
from tests.chaos.plans import Victim
from trading.candles import Candle
from trading.parity import Difference, Parity, TimingDrift

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CANDLES = 6
MISSED, LATE = 2, 3
# Its hours are real ones.
PLAN = ForwardPlan(
    victims=("worker",), loses_temporal=False, exits_between_closes=1, leniency=3600.0
)
ONCE = "candles are stepped once each, from 0 to the cursor"
GRID = "they lie on the grid, from the start on, without a hole"
CLOSED = "a candle is stepped after its close, a missed one after that of the next"
ACCOUNTED = "every candle is decided, late, missed, paused, or the last one"


def evidence(**changes: Any) -> Evidence:
    """A test of six candles: one missed, one late, one at which it and a trade of it ended."""
    rows = [_step(number) for number in range(CANDLES)]
    rows.append(_control(rows[-1], [_closed(1)]))
    rows.append(_control(rows[-1], [_closed(2), {"event": "session_completed", "data": {}}]))
    found = Evidence(
        subject=Subject(model="simulated/flip", asset="ETH/USDT"),
        session={
            "id": "session",
            "cursor": CANDLES,
            "epoch": 1,
            "start_date": BEGAN,
            "last_seq": rows[-1]["last_seq"],
            "missed_candles": 1,
            "paused_candles": 0,
            "late_decisions": 1,
        },
        result={
            "missed_candles": 1,
            "paused_candles": 0,
            "late_decisions": 1,
            "possibly_paid_twice": 0,
        },
        steps=rows,
        decisions=[_decision(number) for number in (0, 1, 3, 4)],
        calls=[_call(number) for number in (0, 1, 3, 4)],
        notices=[_notice("closed-1"), _notice("opened-1"), _notice("finish")],
        requests=Counter(f"digest{number}" for number in (0, 1, 3, 4)),
        parity=_parity(),
        kills=[_kill("worker", 3.5)],
        clock=ClockOrigin(
            exchange_ms=round(BEGAN.timestamp() * 1000),
            wall_ms=BEGAN.timestamp() * 1000,
            speed=1.0,
        ),
        client=_client(rows),
    )
    return replace(found, **changes)


def decided_at(*numbers: int) -> Evidence:
    return evidence(
        decisions=[_decision(number) for number in numbers],
        calls=[_call(number) for number in numbers],
        requests=Counter(f"digest{number}" for number in numbers),
    )


def broken(found: Evidence) -> list[str]:
    lines = [*evidence_lines(found), *kill_lines([found], PLAN)]
    return [line.claim for line in lines if not line.holds]


def test_a_test_as_it_should_be_passes():
    assert broken(evidence()) == []


def without_step(number: int) -> list[Row]:
    return [row for row in evidence().steps if row["candle_number"] != number]


def with_step(number: int, **changes: Any) -> list[Row]:
    steps = list(evidence().steps)
    return [
        row | changes if (row["candle_number"], row["phase"]) == (number, "step") else row
        for row in steps
    ]


@pytest.mark.parametrize(
    ("claim", "steps"),
    [
        (ONCE, lambda: without_step(1)),
        (ONCE, lambda: [evidence().steps[0], *evidence().steps]),
        (ONCE, list),
        (GRID, lambda: with_step(4, open_time=BEGAN + 5 * HOUR)),
        (CLOSED, lambda: with_step(4, happened_at=BEGAN + 4.9 * HOUR)),
        (CLOSED, lambda: with_step(MISSED, happened_at=BEGAN + (MISSED + 1.9) * HOUR)),
        (ACCOUNTED, lambda: with_step(1, events=[])),
    ],
    ids=["skipped", "twice", "none", "off the grid", "early", "missed early", "not met"],
)
def test_candles_that_were_stepped_wrongly_are_seen(claim: str, steps: Callable[[], list[Row]]):
    assert claim in broken(evidence(steps=steps()))


@pytest.mark.parametrize(
    ("claim", "decided"),
    [
        ("no candle has two decisions", (0, 1, 1, 3, 4)),
        (ACCOUNTED, (0, 1, 2, 3, 4)),
        (ACCOUNTED, (0, 3, 4)),
    ],
)
def test_decisions_that_are_double_or_unaccounted_for_are_seen(
    claim: str, decided: tuple[int, ...]
):
    assert claim in broken(decided_at(*decided))


def test_a_candle_is_left_undecided_only_by_the_loss_of_temporals_data():
    undecided = decided_at(0, 1, 3)
    lost = replace(undecided, kills=[_kill(LOST, 5.5)])

    assert ACCOUNTED in broken(undecided)
    assert ACCOUNTED not in broken(lost)


@pytest.mark.parametrize("name", ["missed_candles", "paused_candles", "late_decisions"])
def test_counts_that_differ_from_the_events_are_seen(name: str):
    found = evidence()

    assert broken(replace(found, session=found.session | {name: 7}))
    assert broken(replace(found, result=found.result | {name: 7}))


def test_a_request_is_doubled_only_by_a_kill_and_only_if_that_is_counted():
    found = evidence()
    twice = found.requests + Counter(["digest3"])
    calls = [_call(number, attempts=1 + (number == 3)) for number in (0, 1, 3, 4)]
    counted = found.result | {"possibly_paid_twice": 1}
    known = replace(found, requests=twice, calls=calls, result=counted)
    near = _kill("worker", 4.25)

    assert broken(replace(found, requests=twice))
    assert broken(replace(known, result=found.result, kills=[near]))
    assert broken(known)
    assert broken(replace(known, kills=[near])) == []


def test_a_request_that_nobody_noted_is_seen():
    found = evidence()

    assert broken(replace(found, requests=found.requests + Counter(["another"])))


@pytest.mark.parametrize(
    "keys",
    [("closed-1", "closed-1", "finish"), ("opened-1", "finish"), ("closed-1",)],
    ids=["twice", "an exit untold", "no end"],
)
def test_notices_that_are_double_or_missing_are_seen(keys: tuple[str, ...]):
    assert broken(evidence(notices=[_notice(key) for key in keys]))


def test_another_fold_is_seen():
    difference = Difference(field="equity", recorded=1.0, refolded=2.0, candle=1)

    assert broken(evidence(parity=replace(_parity(), differences=(difference,))))
    assert broken(evidence(parity=replace(_parity(), candles=CANDLES - 1)))


def test_a_client_that_missed_an_event_is_seen():
    found = evidence()
    client = found.client
    assert client is not None
    del client.received[3]

    assert broken(found)


def test_a_test_that_never_moves_again_is_seen():
    assert broken(evidence(kills=[_kill("worker", 100.0)]))


def _parity() -> Parity:
    return Parity(
        candles=CANDLES,
        decisions=4,
        sightings=1,
        trades_recorded=1,
        trades_refolded=1,
        differences=(),
        recorded_equity=1.0,
        refolded_equity=1.0,
        max_equity_difference=0.0,
        drift=TimingDrift(entries=0, mean=None, worst=None),
    )


def _step(number: int) -> Row:
    """Stepped at once, the missed one an hour later together with the next."""
    row = _row("step", number, 3 * number + 1, [])
    open_ms = round((BEGAN + number * HOUR).timestamp() * 1000)
    candle = Candle(open_time=open_ms, open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0)
    met = candle_closed_payload(
        candle, index=number, missed=number == MISSED, paused=False, ai_evaluating=True
    )
    stepped_at = BEGAN + (number + 1 + (number == MISSED)) * HOUR
    return row | {
        "last_seq": row["first_seq"] + 2,
        "open_time": BEGAN + number * HOUR,
        "happened_at": stepped_at + timedelta(seconds=1 + (number == LATE)),
        "events": [{"event": "candle_closed", "data": met}],
        "stats": {"equity": 1.0, "current_candle": number, "total_candles": 0},
    }


def _control(before: Row, events: list[dict[str, Any]]) -> Row:
    row = _row("control", CANDLES - 1, before["last_seq"] + 1, events)
    return row | {
        "last_seq": before["last_seq"] + len(events),
        "happened_at": before["happened_at"] + timedelta(minutes=1),
    }


def _closed(trade_number: int) -> dict[str, Any]:
    return {"event": "position_closed", "data": {"trade_number": trade_number}}


def _row(phase: str, number: int, seq: int, events: list[dict[str, Any]]) -> Row:
    return {
        "candle_number": number,
        "phase": phase,
        "first_seq": seq,
        "stats": None,
        "events": events,
    }


def _decision(number: int) -> Row:
    stepped = _step(number)["happened_at"]
    return {
        "candle_number": number,
        "late": number == LATE,
        "happened_at": stepped + timedelta(minutes=30),
    }


def _call(number: int, *, attempts: int = 1) -> Row:
    return {
        "candle_number": number,
        "status": "done",
        "attempts": attempts,
        "generation_id": f"gen-simulated-digest{number}-1",
    }


def _notice(key: str) -> Row:
    return {"category": "trade_executed", "dedup_key": key}


def _kill(victim: Victim, hours: float) -> Kill:
    return Kill(victim=victim, candle=0, at=(BEGAN + hours * HOUR).timestamp())


def _client(rows: list[Row]) -> WatchingClient:
    received = [
        Received(
            BEGAN.timestamp() + number,
            {"seq": e.seq, "event": e.event, "timestamp": e.timestamp, "data": e.data},
        )
        for number, e in enumerate(events_of(rows))
    ]
    return WatchingClient(api_url="", session_id="", token="", received=received)
