"""What the demo shows of a test, told on a recorded one."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.data_directory import DEFAULT_DATA_DIR, DataDirectory
from local.demo_client import CONNECTION_LOST, DemoFailed
from local.demo_market import Span, market_of
from local.demo_report import alphalab_command, equity_chart, figures, report
from local.demo_view import Standing, View, backtest_drawing, describe
from trading.errors import TradingError

RECORDED: dict[str, Any] = json.loads(
    Path(__file__).with_name("recorded_demo.json").read_text(encoding="utf-8")
)
FRAMES, RESULT, TRADES = RECORDED["frames"], RECORDED["result"], RECORDED["trades"]
START = Standing(total_candles=48, equity=10_000.0)


def _console(*, width: int = 80, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=is_terminal, highlight=False, legacy_windows=False
    )
    return console, file


def _standing(frames: list[dict[str, Any]]) -> Standing:
    standing = START
    for frame in frames:
        standing = standing.after(frame)
    return standing


def _shown(standing: Standing) -> list[str]:
    return [line.plain for line in describe(standing)]


def test_the_standing_follows_the_events_to_the_result():
    standing = _standing(FRAMES)

    assert (standing.candles, standing.trades, standing.won) == (48, 2, 2)
    assert standing.equity == RESULT["ending_capital"]
    assert standing.result_id == RESULT["id"]
    assert standing.position is None
    assert standing.failure is None


def test_it_tells_equity_position_and_the_last_decision():
    until = next(
        number
        for number, frame in enumerate(FRAMES)
        if frame["event"] == "ai_decision" and frame["data"]["candle_index"] == 22
    )

    figures_line, decision_line = _shown(_standing(FRAMES[: until + 1]))

    assert "trades 0, 0 won  short since 28,313.04" in figures_line
    assert decision_line.startswith("candle 23: HOLD 60 %  [simulated] ")


def test_a_broken_connection_is_told_until_the_next_event():
    broken = _standing([*FRAMES[:5], CONNECTION_LOST])

    assert "connecting again" in _shown(broken)[-1]
    assert len(_shown(broken.after(FRAMES[7]))) == 2


def test_trouble_with_the_model_is_told_while_the_test_is_paused():
    trouble = {
        "event": "session_error",
        "data": {"message": "OpenRouter 402: Insufficient credits", "recoverable": True},
    }
    paused = {"event": "session_paused", "data": {"reason": "insufficient_credits"}}
    resumed: dict[str, Any] = {"event": "session_resumed", "data": {}}

    standing = _standing([*FRAMES[:5], trouble, paused])

    assert _shown(standing)[-1] == "paused: OpenRouter 402: Insufficient credits"
    assert standing.failure is None
    assert standing.after(resumed).pause_reason is None


def test_a_fatal_error_is_a_failure():
    fatal = {"event": "session_error", "data": {"message": "a defect", "recoverable": False}}

    assert _standing([fatal]).failure == "a defect"


def test_without_a_terminal_there_are_plain_lines_now_and_then():
    console, file = _console()
    view = View(console)

    with view.watching(backtest_drawing(START)) as show:
        for number in range(len(FRAMES)):
            show(_standing(FRAMES[: number + 1]))
    with view.waiting(lambda: "Starting"):
        pass

    lines = file.getvalue().splitlines()
    assert "\x1b" not in file.getvalue()
    assert [line.split()[1] for line in lines if line.startswith("candle")] == [
        "20/48",
        "24/48",
        "32/48",
        "48/48",
    ]
    assert lines[-1] == "Starting ..."


def test_on_a_terminal_a_bar_is_drawn_and_taken_away_again():
    console, file = _console(width=100, is_terminal=True)

    with View(console).watching(backtest_drawing(START)) as show:
        show(_standing(FRAMES[:12]))

    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "candle 21/48" in drawn
    assert "━" in drawn
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1


def test_no_line_of_the_report_is_wider_than_eighty_columns():
    console, file = _console()

    report(View(console), RESULT, TRADES, file=None, is_simulated_model=True, seconds=3.0)

    printed = file.getvalue()
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert "\x1b" not in printed
    assert "…" not in printed
    assert "end of test" in printed


def test_the_figures_say_what_is_simulated():
    told = {name: text.plain for name, text in figures(RESULT, file=None, is_simulated_model=True)}

    assert told["Return"] == "+0.57 %  10,000.00 to 10,057.25"
    assert told["Trades"] == "2: 2 won, 0 lost"
    assert told["Win rate"] == "100.0 %"
    assert told["Market"].startswith("SIMULATED")
    assert told["Model"].startswith("SIMULATED: simulated/momentum")
    assert "nothing was paid" in told["Model cost"]


def test_real_candles_and_models_are_not_called_simulated():
    real = {**RESULT, "data_source": "upload", "model": "openai/gpt-4o-mini"}

    told = " ".join(
        text.plain
        for _, text in figures(real, file=Path("BTCUSDT_1h.csv"), is_simulated_model=False)
    )

    assert "simulated" not in told.lower()
    assert "BTCUSDT_1h.csv" in told


@pytest.mark.parametrize("width", [40, 80, 110])
def test_the_chart_keeps_to_its_width_and_shows_both_curves(width: int):
    chart = equity_chart(RESULT, width=width).plain

    assert max(len(line) for line in chart.splitlines()) <= width
    assert "·" in chart
    assert re.search("[\u2801-\u28ff]", chart)
    assert "10,084" in chart


def test_a_result_without_trades_is_told_as_well():
    console, file = _console()
    figures_of_nothing = dict.fromkeys(
        ("buy_and_hold_return_pct", "sharpe_ratio", "profit_factor"), None
    )
    nothing = {**RESULT, **figures_of_nothing, "total_trades": 0, "equity_curve": []}

    report(View(console), nothing, [], file=None, is_simulated_model=True, seconds=0.0)

    assert "No trades" in file.getvalue()


def test_a_command_names_the_directory_unless_it_is_the_usual_one():
    usual, other = DataDirectory(DEFAULT_DATA_DIR), DataDirectory(Path("/some where"))

    assert alphalab_command(usual, "down").endswith("alphalab down")
    assert alphalab_command(other, "down").endswith("alphalab down --data-dir '/some where'")


def test_a_file_needs_its_asset_and_timeframe():
    with pytest.raises(DemoFailed, match="--asset BTC/USDT --timeframe 1h"):
        market_of(Path("candles.csv"), asset="BTC/USDT", timeframe=None)


@pytest.mark.parametrize(("asset", "timeframe"), [("nothing", "1h"), ("BTC/USDT", "7x")])
def test_an_unknown_asset_or_timeframe_is_refused(asset: str, timeframe: str):
    with pytest.raises(TradingError):
        market_of(None, asset=asset, timeframe=timeframe)


def test_the_newest_candles_are_traded_to_their_last_close():
    market = market_of(None, asset="eth-usdt", timeframe="4h")

    span = Span.of(market.newest(10), market.timeframe)

    assert market.asset == "ETH/USDT"
    assert (span.end - span.start).total_seconds() == 10 * 4 * 3600
    assert len(market.newest(1_000_000)) == len(market.series)
