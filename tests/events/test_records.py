"""Durable events out of stored rows: the same ones, whoever asks and whenever."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from events.records import StepRecord, count_events, step_events
from events.types import (
    Event,
    decode_batch,
    decode_event,
    encode_batch,
    encode_event,
    iso_timestamp,
)

AT = datetime(2025, 11, 27, 10, 15, 0, 999_998, tzinfo=UTC)
OPENED = {"event": "position_opened", "data": {"trade_number": 1}}
CANDLE = {"close": 100.0}
STATS = {"equity": 10_000.0}


def test_a_steps_events_are_its_candle_what_happened_and_its_stats_a_microsecond_apart():
    record = StepRecord(
        candle_number=3, phase="step", first_seq=7, happened_at=AT, events=[OPENED], stats=STATS
    )

    assert step_events(record, CANDLE) == [
        Event(7, "candle", CANDLE, "2025-11-27T10:15:00.999998Z"),
        Event(8, "position_opened", {"trade_number": 1}, "2025-11-27T10:15:00.999999Z"),
        Event(9, "stats_update", STATS, "2025-11-27T10:15:01.000000Z"),
    ]


@pytest.mark.parametrize("phase", ["decision", "control"])
def test_other_rows_have_only_the_events_they_hold(phase):
    record = StepRecord(
        candle_number=3, phase=phase, first_seq=7, happened_at=AT, events=[OPENED, OPENED]
    )

    assert [event.event for event in step_events(record, None)] == ["position_opened"] * 2
    assert count_events(record.events, phase) == 2


def test_a_step_counts_its_candle_and_its_stats():
    assert count_events([], "step") == 2
    assert count_events([OPENED], "step") == 3


@pytest.mark.parametrize(("candle", "stats"), [(None, STATS), (CANDLE, None)])
def test_a_step_without_candle_or_stats_is_refused(candle, stats):
    record = StepRecord(
        candle_number=3, phase="step", first_seq=7, happened_at=AT, events=[], stats=stats
    )
    with pytest.raises(ValueError, match="candle and its stats"):
        step_events(record, candle)


def test_times_are_written_in_utc_with_six_digits():
    there = timezone(timedelta(hours=5, minutes=30))
    assert iso_timestamp(datetime(2025, 1, 1, 5, 30, tzinfo=there)) == "2025-01-01T00:00:00.000000Z"


def test_events_come_back_as_they_were_encoded():
    events = [Event(1, "candle", CANDLE, "t"), Event(None, "ai_thinking", {"text": "ü"}, "u")]

    encoded = [encode_event(event) for event in events]

    assert [decode_event(raw) for raw in encoded] == events
    assert decode_batch(encode_batch(encoded)) == events
    assert decode_batch(encode_batch([])) == []
