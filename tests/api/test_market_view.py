"""What a forward test's watcher sees of the market, computed without any server."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.realtime.market_view import MarketView
from db.models.sessions import SessionRecord
from events.prices import PriceTick
from events.types import Event, iso_timestamp

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR_MS = 3_600_000
# 09:23:15 at the exchange, whatever the time is here.
AT_THE_EXCHANGE = 1_767_225_600_000 + 9 * HOUR_MS + (23 * 60 + 15) * 1000
POSITION = {
    "type": "long",
    "entry_price": 100.0,
    "size": 2.0,
    "leverage": 2.0,
    "stop_loss": 90.0,
    "take_profit": None,
    "opened_at": "2026-01-01T08:00:00.000Z",
}


def session(**changes: Any) -> SessionRecord:
    fields: dict[str, Any] = {
        "user_id": uuid4(),
        "agent_name": "a",
        "workflow_id": "w",
        "rules": {},
        "type": "forward",
        "status": "running",
        "mode": "omni",
        "asset": "BTC/USDT",
        "timeframe": "1h",
        "starting_capital": 1.0,
        "cursor": 10,
        "last_seq": 40,
        "created_at": START,
        "updated_at": START,
    }
    return SessionRecord(**(fields | changes))


def tick(price: float = 110.0, *, after: float = 0.0, **changes: Any) -> PriceTick:
    timestamp = iso_timestamp(START + timedelta(seconds=after))
    fields: dict[str, Any] = {
        "price": price,
        "exchange_ms": AT_THE_EXCHANGE,
        "volume_24h": 7.0,
    } | changes
    return PriceTick(asset="BTC/USDT", status="live", timestamp=timestamp, **fields)


def down(after: float = 0.0) -> PriceTick:
    timestamp = iso_timestamp(START + timedelta(seconds=after))
    return PriceTick(asset="BTC/USDT", status="down", timestamp=timestamp)


def event(name: str, seq: int, **data: Any) -> Event:
    return Event(seq=seq, event=name, data=data, timestamp="t")


def opened(seq: int, **changes: Any) -> Event:
    data = POSITION | {"entry_time": "2026-01-01T09:00:00.000Z", "entry_price": 108.0} | changes
    return event("position_opened", seq, **data)


def shown(view: MarketView, *, after: float = 0.0) -> dict[str, dict[str, Any]]:
    """All that is due now, by name."""
    now = START + timedelta(seconds=after)
    taken: dict[str, dict[str, Any]] = {}
    while (found := view.take(now)) is not None:
        assert found.event not in taken
        assert found.seq is None
        taken[found.event] = dict(found.data)
    return taken


def countdown(view: MarketView, *, after: float = 0.0) -> dict[str, Any]:
    return shown(view, after=after)["countdown_update"]


def test_before_there_is_a_price_nothing_is_shown():
    assert shown(MarketView(session(open_position=POSITION))) == {}


def test_a_price_is_shown_with_the_position_and_the_countdown():
    view = MarketView(session(open_position=POSITION))
    view.hear(tick(110.0, change_24h=1.5))
    found = shown(view)

    assert list(found) == ["price_update", "position_update", "countdown_update"]
    assert found["price_update"] == {
        "price": 110.0,
        "change_24h_pct": 1.5,
        "volume_24h": 7.0,
        "timestamp": iso_timestamp(START),
    }
    assert found["position_update"] == {
        "current_price": 110.0,
        "entry_price": 100.0,
        "unrealized_pnl_amount": 20.0,
        "unrealized_pnl_pct": 20.0,
        "distance_to_sl_pct": pytest.approx(100 * 20 / 110),
        "distance_to_tp_pct": None,
    }
    assert found["countdown_update"] == {
        "seconds_remaining": 2205.0,
        "next_candle_at": "2026-01-01T10:00:00.000Z",
        "display": "36:45",
        "next_ai_intervention_minutes": 37,
    }


def test_of_many_prices_the_newest_is_shown_a_few_times_a_second():
    view = MarketView(session())
    prices = []
    for hundredth in range(100):
        view.hear(tick(float(hundredth), after=hundredth / 100))
        update = shown(view, after=hundredth / 100).get("price_update")
        prices += [update["price"]] if update else []

    assert prices == [0.0, 25.0, 50.0, 75.0]
    assert shown(view, after=1.0)["price_update"]["price"] == 99.0


def test_the_countdown_goes_on_once_a_second_without_a_new_price():
    view = MarketView(session())
    view.hear(tick())
    shown(view)

    assert "countdown_update" not in shown(view, after=0.9)
    assert countdown(view, after=1.0)["seconds_remaining"] == 2204.0
    assert countdown(view, after=70.0)["display"] == "35:35"


def test_a_fast_exchange_is_counted_in_seconds_of_ours():
    view = MarketView(session(timeframe="4h"))
    view.hear(tick(speed=1800.0))
    found = countdown(view, after=0.5)

    # 09:38:15 at the exchange, and noon is 8,505 s of its time away.
    assert found["seconds_remaining"] == pytest.approx(8_505 / 1_800, abs=0.05)
    assert found["display"] == "0:05"
    assert found["next_ai_intervention_minutes"] == 142


def test_above_an_hour_the_display_has_hours():
    view = MarketView(session(timeframe="4h"))
    view.hear(tick())

    assert countdown(view)["display"] == "2:36:45"


def test_a_clock_that_stands_has_no_countdown():
    view = MarketView(session())
    view.hear(tick(speed=0.0))

    assert list(shown(view)) == ["price_update"]


def test_the_agent_is_announced_by_its_cadence_and_not_while_the_test_is_paused():
    cadence = {"decision_mode": "every_n_candles", "decision_interval_candles": 4}
    view = MarketView(session(cursor=10, **cadence))
    view.hear(tick())

    assert countdown(view)["next_ai_intervention_minutes"] == 37 + 2 * 60
    view.note(event("candle", 41, candle_index=10, open_time=AT_THE_EXCHANGE // HOUR_MS * HOUR_MS))
    assert countdown(view, after=1)["next_ai_intervention_minutes"] == 37 + 60
    view.note(event("session_paused", 42))
    assert countdown(view, after=2)["next_ai_intervention_minutes"] is None
    view.note(event("session_resumed", 43))
    assert countdown(view, after=3)["next_ai_intervention_minutes"] is not None


def test_a_position_is_followed_from_its_opening_to_its_end():
    view = MarketView(session())
    view.hear(tick(110.0))
    assert "position_update" not in shown(view)

    view.note(opened(41))
    assert shown(view, after=0.1)["position_update"]["unrealized_pnl_amount"] == 4.0
    view.note(event("position_closed", 42, entry_time="2026-01-01T09:00:00.000Z"))
    view.hear(tick(111.0, after=1))
    assert "position_update" not in shown(view, after=1)


def test_what_the_row_knows_already_is_not_opened_again():
    view = MarketView(session(open_position=None, last_seq=40))
    view.note(opened(40))
    view.hear(tick())

    assert "position_update" not in shown(view)


def test_the_end_of_an_earlier_position_does_not_end_the_one_that_is_open():
    view = MarketView(session(open_position=POSITION))
    view.note(event("position_closed", 41, entry_time="2026-01-01T03:00:00.000Z"))
    view.hear(tick())

    assert "position_update" in shown(view)


def test_the_source_is_said_to_be_down_and_live_again_at_each_change():
    view = MarketView(session(open_position=POSITION))
    view.hear(down())
    assert shown(view) == {
        "price_status": {"asset": "BTC/USDT", "status": "down", "timestamp": iso_timestamp(START)}
    }
    view.hear(down(after=30))
    assert shown(view, after=30) == {}
    view.hear(tick(after=31))
    found = shown(view, after=31)

    assert list(found)[:3] == ["price_status", "price_update", "position_update"]
    assert found["price_status"]["status"] == "live"


def test_a_price_that_is_a_minute_old_is_not_shown():
    view = MarketView(session(open_position=POSITION))
    view.hear(tick())

    assert list(shown(view, after=60)) == ["countdown_update"]


@pytest.mark.parametrize("name", ["session_stopped", "auto_stopped", "session_completed"])
def test_after_the_end_nothing_is_shown(name: str):
    view = MarketView(session())
    view.note(event(name, 41))
    view.hear(tick())

    assert shown(view) == {}
