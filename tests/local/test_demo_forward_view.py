"""What the demo shows of a forward test, event by event, and what it chooses by itself."""

import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from local.demo_forward import BACKTEST_CANDLES, duration, stretches, timeframe_for
from local.demo_forward_view import Countdown, LiveStanding, describe_live, live_drawing
from local.demo_market import market_of
from local.demo_view import View
from trading.candles import Timeframe

NOW = 1_795_000_000.0
START = LiveStanding(total_candles=3, equity=10_000.0)


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data}


def stats(candle: int, position: dict[str, Any] | None = None) -> dict[str, Any]:
    return event(
        "stats_update", current_candle=candle, equity=10_012.5, pnl_pct=0.125, trades_won=0,
        max_drawdown_pct=-0.1, trades_total=0, current_position=position,
    )  # fmt: skip


OPENED = event("position_opened", type="long", entry_price=30_000.0, trade_number=1)
MARKED = event(
    "position_update", current_price=30_300.0, entry_price=30_000.0, unrealized_pnl_amount=25.0,
    unrealized_pnl_pct=1.0, distance_to_sl_pct=-2.5, distance_to_tp_pct=None,
)  # fmt: skip
CLOSED = event("position_closed", type="long", pnl_amount=25.0)
HELD = {"type": "long", "entry_price": 30_000.0, "unrealized_pnl": -12.0}


def position_line(*frames: dict[str, Any]) -> str:
    standing = START
    for frame in frames:
        standing = standing.after(frame)
    return describe_live(standing)[1].plain


def test_the_position_is_told_from_its_fill_to_its_end():
    opened = "long since 30,000.00"

    assert position_line() == "no position"
    assert position_line(OPENED) == f"{opened}  unrealized +0.00"
    assert position_line(OPENED, stats(2, HELD)) == f"{opened}  unrealized -12.00"
    assert position_line(OPENED, stats(2, HELD), MARKED) == (
        f"{opened}, now 30,300.00  unrealized +25.00 (+1.00 %)  stop 2.50 % away"
    )
    assert position_line(OPENED, MARKED, stats(2, HELD)) == f"{opened}  unrealized -12.00"
    assert position_line(OPENED, MARKED, CLOSED) == "no position"


def test_the_countdown_runs_by_our_clock_from_whoever_told_it():
    wall = NOW
    countdown = Countdown(wall=lambda: wall)
    assert (countdown.is_over, countdown.text) == (True, "next candle: not known yet")

    countdown.end_at(datetime.fromtimestamp(NOW + 90, tz=UTC).isoformat())
    assert countdown.text == "next candle in 1:30"

    countdown.note(event("countdown_update", seconds_remaining=1.7))
    countdown.note(MARKED)
    wall += 0.5
    assert (countdown.is_over, countdown.text) == (False, "next candle in 1.2 s")

    wall += 2
    assert (countdown.is_over, countdown.text) == (True, "next candle: now")


def test_on_a_terminal_countdown_and_price_stand_above_the_account():
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, legacy_windows=False)
    countdown = Countdown(wall=lambda: NOW)
    countdown.note(event("countdown_update", seconds_remaining=1.5))
    price = event("price_update", price=30_250.0, change_24h_pct=-1.5, volume_24h=1.0)

    with View(console).watching(live_drawing(START, countdown, lines=3)) as show:
        show(START.after(stats(1)).after(price))

    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    told = drawn.index("next candle in 1.5 s  price 30,250.00 (-1.50 % in 24 h)")
    assert drawn.index("candle 1/3") < told < drawn.index("equity 10,012.50")


def test_without_a_terminal_each_candle_from_where_it_joins_is_told_once():
    file = io.StringIO()
    console = Console(file=file, width=100, highlight=False)
    joined = LiveStanding(candles=5, total_candles=8, equity=10_000.0)

    with View(console).watching(live_drawing(joined, Countdown(), lines=8)) as show:
        standing = joined
        for candle in (1, 2, 5, 6, 6, 7):
            standing = standing.after(stats(candle))
            show(standing)

    told = re.findall(r"^candle +(\d+)/8 ", file.getvalue(), re.MULTILINE)
    assert told == ["6", "7"]
    assert "next candle" not in file.getvalue()


@pytest.mark.parametrize(
    ("speed", "least_seconds", "timeframe"),
    [
        (1, 2, Timeframe.MINUTE_1),
        (1800, 2, Timeframe.HOUR_1),
        (1799, 2, Timeframe.HOUR_1),
        (1801, 2, Timeframe.HOURS_2),
        (1800, 20, Timeframe.HOURS_12),
        (86_400, 2, Timeframe.DAY_1),
    ],
)
def test_a_candle_lasts_long_enough_to_look_at_it(
    speed: float, least_seconds: float, timeframe: Timeframe
):
    assert timeframe_for(speed, least_seconds) == timeframe


def test_backtests_begin_with_the_candles_that_rose_most():
    series = market_of(None, asset=None, timeframe=None).series

    parts = stretches(series)

    rises = [part.close[-1] / part.open[0] for part in parts]
    assert rises == sorted(rises, reverse=True)
    assert rises[0] > 1.05
    assert {len(part) for part in parts} == {BACKTEST_CANDLES}
    starts = sorted(int(part.open_time[0]) for part in parts)
    assert starts == series.open_time[::BACKTEST_CANDLES].tolist()


def test_a_duration_is_told_roughly():
    assert [duration(each) for each in (40.4, 119, 1_200, 72_000)] == [
        "40 s", "119 s", "20 min", "20 h",
    ]  # fmt: skip
