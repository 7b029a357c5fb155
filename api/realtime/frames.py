"""What goes out on sockets: events encoded once per process, and the relay's own messages."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.wire import encode_frame
from events.shapes import Trouble
from events.types import Event, iso_timestamp

# More candles than this in one batch come out of a chunk; nobody's eye follows them one by one.
CANDLES_SHOWN_PER_BATCH = 100


class Frame:
    """An event on its way to the sockets of this process; its text is made once, on demand.

    An optional frame is a candle that clients without `last_seq` need not be shown.
    """

    __slots__ = ("_text", "event", "is_optional")

    def __init__(self, event: Event, *, is_optional: bool = False) -> None:
        self.event = event
        self.is_optional = is_optional
        self._text: str | None = None

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = encode_frame(self.event)
        return self._text


def frames_of(events: Sequence[Event]) -> list[Frame]:
    """Wrap a batch; of many candles without a decision only an even selection is not optional."""
    optional = _optional_candles(events)
    return [Frame(event, is_optional=event.seq in optional) for event in events]


def _optional_candles(events: Sequence[Event]) -> frozenset[int | None]:
    """The numbers of the candles that a chunk stepped and nobody's eye would follow."""
    decided = {event.data["candle_index"] for event in events if event.event == "ai_decision"}
    stretch = [
        event.seq
        for event in events
        if event.event == "candle" and event.data["candle_index"] not in decided
    ]
    stride = -(-len(stretch) // CANDLES_SHOWN_PER_BATCH)
    # Counted from the end, so that the last candle is always shown.
    shown = set(stretch[::-1][:: max(stride, 1)])
    return frozenset(seq for seq in stretch if seq not in shown)


def own_event(name: str, data: Mapping[str, Any]) -> Event:
    """Return an event of the relay itself: it has no number and is never replayed."""
    return Event(seq=None, event=name, data=data, timestamp=iso_timestamp(datetime.now(tz=UTC)))


def own_message(name: str, data: Mapping[str, Any]) -> str:
    return encode_frame(own_event(name, data))


def error_message(error_code: str, message: str) -> str:
    trouble: Trouble = {
        "error_code": error_code,
        "message": message,
        "candle_index": None,
        "recoverable": True,
    }
    return own_message("error", trouble)


def without_seq(event: Event) -> Event:
    """Return a repeat of `event` that cannot be taken for a second delivery."""
    return Event(seq=None, event=event.event, data=event.data, timestamp=event.timestamp)


def is_terminal(event: Event) -> bool:
    """Whether nothing follows `event` in its session."""
    if event.event == "session_completed":
        return True
    return event.event in {"session_error", "error"} and event.data.get("recoverable") is False
