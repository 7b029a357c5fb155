"""Events leave under both vocabularies, and numbers as numbers."""

import json
from typing import Any

import orjson
import pytest

from api.wire import encode_frame, public_data
from events.durations import display_duration
from events.payloads import candle_payload
from events.types import Event
from trading.candles import Candle

CANDLE = Candle(open_time=1_704_067_200_000, open=1.0, high=2.0, low=0.5, close=1.5, volume=10.0)


def test_a_frame_has_both_names_of_its_event_and_its_number_first() -> None:
    text = encode_frame(Event(seq=7, event="order_rejected", data={"reason": "x"}, timestamp="t"))

    assert json.loads(text) == {
        "seq": 7,
        "event": "order_rejected",
        "type": "order_rejected",
        "data": {"reason": "x"},
        "timestamp": "t",
    }
    assert text.startswith('{"seq":7,')


def test_what_is_not_durable_has_no_number() -> None:
    frame = orjson.loads(encode_frame(Event(seq=None, event="x", data={}, timestamp="t")))

    assert "seq" not in frame


def test_no_frame_has_a_nan() -> None:
    event = Event(seq=1, event="x", data={"a": float("nan"), "b": float("inf")}, timestamp="t")

    assert orjson.loads(encode_frame(event))["data"] == {"a": None, "b": None}


def test_a_candle_says_everything_twice() -> None:
    data = public_data("candle", candle_payload(CANDLE, {"rsi_14": None}, index=4, total=10))

    assert data == {
        "index": 4,
        "candle_index": 4,
        "candle_number": 4,
        "total": 10,
        "total_candles": 10,
        "progress_pct": 50.0,
        "timestamp": "2024-01-01T00:00:00.000Z",
        "open": 1.0,
        "high": 2.0,
        "low": 0.5,
        "close": 1.5,
        "volume": 10.0,
        "candle": {
            "time": 1_704_067_200_000,
            "open": 1.0,
            "high": 2.0,
            "low": 0.5,
            "close": 1.5,
            "volume": 10.0,
        },
        "indicators": {"rsi_14": None},
        "missed": False,
    }


@pytest.mark.parametrize(
    "order",
    [
        None,
        {
            "type": "long",
            "entry_price": 1.0,
            "size": 2.0,
            "leverage": 3.0,
            "stop_loss": 0.9,
            "take_profit": None,
        },
    ],
)
def test_a_decision_repeats_its_order_at_the_root(order: dict[str, Any] | None) -> None:
    decided = {"candle_index": 3, "action": "long", "order": order, "overrides": []}

    data = public_data("ai_decision", decided)

    assert (data["action"], data["candle_number"], data["estimated"]) == ("LONG", 3, True)
    assert data["order"] == order
    assert data["entry_price"] == (order and 1.0)
    assert data["size"] == (order and 2.0)
    assert data["leverage"] == (order and 3.0)
    assert data["stop_loss_price"] == (order and 0.9)
    assert data["take_profit_price"] is None


@pytest.mark.parametrize(
    ("event", "clean", "twins"),
    [
        ("position_opened", {"type": "long"}, {"action": "long"}),
        (
            "position_closed",
            {"trade_id": "t", "type": "short", "exit_type": "signal", "pnl_amount": 1.5},
            {"id": "t", "action": "short", "reason": "signal", "pnl": 1.5},
        ),
        (
            "stats_update",
            {
                "equity": 9.0,
                "pnl_pct": 1.0,
                "trades_total": 2,
                "current_candle": 1,
                "total_candles": 4,
            },
            {
                "current_equity": 9.0,
                "equity_change_pct": 1.0,
                "current_pnl_pct": 1.0,
                "total_trades": 2,
                "progress_pct": 25.0,
            },
        ),
        (
            "ai_thinking",
            {"candle_index": 1, "is_complete": True},
            {"candle_number": 1, "status": "complete"},
        ),
        (
            "ai_thinking",
            {"candle_index": 1, "is_complete": False},
            {"candle_number": 1, "status": "analyzing"},
        ),
        ("countdown_update", {"next_candle_at": "t"}, {"next_candle_time": "t"}),
        ("session_paused", {"reason": "user"}, {}),
    ],
)
def test_first_names_have_their_twins(
    event: str, clean: dict[str, Any], twins: dict[str, Any]
) -> None:
    assert public_data(event, clean) == clean | twins


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (8.9, "8s"), (312, "5m 12s"), (15_780, "4h 23m"), (273_600, "3d 4h")],
)
def test_durations_show_two_units(seconds: float, shown: str) -> None:
    assert display_duration(seconds) == shown
