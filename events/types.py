"""What the outside hears: one event, its envelope, and the encoding that travels through Redis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Event:
    """Something a session's watchers are told.

    `seq` counts a session's durable events from 1; it is None for what is only worth seeing live.
    `data` carries the clean names; both public vocabularies are made of them at the API's edge.
    `timestamp` is ISO 8601 to the microsecond and unique within the session.
    """

    seq: int | None
    event: str
    data: Mapping[str, Any]
    timestamp: str


def iso_timestamp(at: datetime) -> str:
    """Return `at` as ISO 8601 in UTC with microseconds and `Z`, the one spelling events use."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode_event(event: Event) -> bytes:
    return orjson.dumps(event)


def encode_batch(encoded: Sequence[bytes]) -> bytes:
    """Join events that are already encoded into the JSON array one pub/sub message carries."""
    return b"[" + b",".join(encoded) + b"]"


def decode_event(raw: bytes | str) -> Event:
    return Event(**orjson.loads(raw))


def decode_batch(raw: bytes | str) -> list[Event]:
    return [Event(**fields) for fields in orjson.loads(raw)]
