"""Rebuilds a session's durable events from the rows that hold them.

First publish, retry and replay all come through here, so they cannot differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from events.payloads import Payload
from events.types import Event, iso_timestamp

Phase = Literal["step", "decision", "control"]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A row of `steps` as far as its events are concerned.

    Its events are numbered from `first_seq` and lie a microsecond apart from `happened_at` on.
    """

    candle_number: int
    phase: Phase
    first_seq: int
    happened_at: datetime
    events: Sequence[dict[str, Any]]
    stats: Payload | None = None


def count_events(record_events: Sequence[dict[str, Any]], phase: Phase) -> int:
    """How many durable events a row stands for: a step also has its candle and its stats."""
    return len(record_events) + (2 if phase == "step" else 0)


def step_events(record: StepRecord, candle: Payload | None) -> list[Event]:
    """Return the row's durable events in order of `seq`.

    `candle` is the payload of the step's candle, which rows do not repeat; other phases have none.
    """
    named = [(each["event"], each["data"]) for each in record.events]
    if record.phase == "step":
        if candle is None or record.stats is None:
            raise ValueError("a step's events need its candle and its stats")
        named = [("candle", candle), *named, ("stats_update", record.stats)]
    return [
        Event(
            seq=record.first_seq + offset,
            event=name,
            data=data,
            timestamp=iso_timestamp(record.happened_at + offset * _MICROSECOND),
        )
        for offset, (name, data) in enumerate(named)
    ]
