"""What a demo shows of a forward test: the next close, the open position, and what it is worth."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Final

from rich.text import Text

from local.demo_client import Frame, Json
from local.demo_view import (
    CHANGES,
    Change,
    Drawing,
    Standing,
    account,
    decision,
    held,
    matter,
    price,
    signed,
)

_MINUTE = 60


def _opened(data: Json) -> Json:
    position = {"type": data["type"], "entry_price": data["entry_price"], "unrealized_pnl": 0.0}
    return {"position": position, "marked": None}


LIVE_CHANGES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        **CHANGES,
        "stats_update": lambda data: {**CHANGES["stats_update"](data), "marked": None},
        "position_opened": _opened,
        "position_closed": lambda _: {"position": None, "marked": None},
        "position_update": lambda data: {"marked": data},
        "price_update": lambda data: {"ticker": data},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStanding(Standing):
    """How a forward test stands; `marked` is the position between two closes."""

    changes: ClassVar[Mapping[str, Change]] = LIVE_CHANGES

    ticker: Json | None = None
    marked: Json | None = None


class Countdown:
    """How long it is until the next close, by our clock, as far as anybody has told."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._ends_at: float | None = None

    def note(self, frame: Frame) -> None:
        """Take over what an event tells, if it is the one that does."""
        if frame["event"] == "countdown_update":
            self._ends_at = self._wall() + frame["data"]["seconds_remaining"]

    def end_at(self, told: str | None) -> None:
        """Take over what a test says of itself, as ISO 8601."""
        self._ends_at = None if told is None else datetime.fromisoformat(told).timestamp()

    @property
    def is_over(self) -> bool:
        """Whether it is time to ask anew."""
        return self._ends_at is None or self._ends_at <= self._wall()

    @property
    def text(self) -> str:
        if self._ends_at is None:
            return "next candle: not known yet"
        if self.is_over:
            return "next candle: now"
        left = self._ends_at - self._wall()
        minutes, seconds = divmod(int(left), _MINUTE)
        shown = f"{minutes}:{seconds:02d}" if minutes else f"{left:.1f} s"
        return f"next candle in {shown}"


def live_drawing(start: LiveStanding, countdown: Countdown, *, lines: int) -> Drawing[LiveStanding]:
    """How a forward test is shown: a line or more for each candle."""
    return Drawing(
        start=start,
        describe=describe_live,
        passing=lambda standing: [Text(countdown.text + _ticker(standing), style="cyan")],
        lines=lines,
    )


def describe_live(standing: LiveStanding) -> list[Text]:
    """The account, the position, the last decision, and what is the matter if anything is."""
    return [account(standing), _position(standing), decision(standing), *matter(standing)]


def _ticker(standing: LiveStanding) -> str:
    ticker = standing.ticker
    if ticker is None or ticker["price"] is None:
        return ""
    change = ticker["change_24h_pct"]
    since = "" if change is None else f" ({change:+.2f} % in 24 h)"
    return f"  price {price(ticker['price'])}{since}"


def _position(standing: LiveStanding) -> Text:
    position, marked = standing.position, standing.marked
    if position is None:
        return Text(held(standing), style="dim")
    if marked is None:
        return Text.assemble(
            f"{held(standing)}  unrealized ", signed(position["unrealized_pnl"] or 0.0)
        )
    return Text.assemble(
        f"{held(standing)}, now {price(marked['current_price'])}  unrealized ",
        signed(marked["unrealized_pnl_amount"]),
        " (",
        signed(marked["unrealized_pnl_pct"], " %"),
        f"){_distance('stop', marked['distance_to_sl_pct'])}"
        f"{_distance('target', marked['distance_to_tp_pct'])}",
    )


def _distance(name: str, percent: float | None) -> str:
    return "" if percent is None else f"  {name} {abs(percent):.2f} % away"
