"""What the demo shows at the end: the figures, the last trades, the curve, and where to look."""

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from local.data_directory import DEFAULT_DATA_DIR, DataDirectory
from local.demo_client import Json
from local.demo_view import View, counted, price, signed
from local.simulators.exchange import SIMULATED_SOURCE

TRADES_SHOWN = 8
CHART_HEIGHT = 16
CHART_WIDTH_LIMIT = 110
TICKS = 5
# Columns from which on a trade is told in full.
WIDE = 100


def report(
    view: View,
    result: Json,
    trades: Sequence[Json],
    *,
    file: Path | None,
    is_simulated_model: bool,
    seconds: float,
) -> None:
    """The figures, the last trades and the equity curve; `file` is where the candles are from."""
    view.line()
    view.line(_title(result, seconds))
    view.line()
    view.console.print(_figures(figures(result, file=file, is_simulated_model=is_simulated_model)))
    view.line()
    view.line(Text(_heading(trades), style="bold"))
    if trades:
        view.console.print(_trades(trades[-TRADES_SHOWN:], width=view.console.width))
    if len(result["equity_curve"]) > 1 and view.console.encoding.startswith("utf"):
        view.line()
        view.line(Text.assemble(("Equity", "bold"), (" and, dotted, buy & hold", "dim")))
        width = min(view.console.width, CHART_WIDTH_LIMIT)
        view.console.print(equity_chart(result, width=width), no_wrap=True, crop=True)


def _title(result: Json, seconds: float) -> Text:
    return Text.assemble(
        (f"Result: {result['agent_name']} on {result['asset']} {result['timeframe']}", "bold"),
        f", {counted(result['total_candles'], 'candle')} in {seconds:.0f} s",
    )


def _figures(named: Iterable[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in named:
        table.add_row(name, value)
    return table


def figures(
    result: Json, *, file: Path | None, is_simulated_model: bool
) -> Iterable[tuple[str, Text]]:
    """What a test came to, name and value, in the order of interest."""
    costs = result["costs"]
    money = f"{result['starting_capital']:,.2f} to {result['ending_capital']:,.2f}"
    yield "Return", Text.assemble(signed(result["total_pnl_pct"], " %"), f"  {money}")
    yield "Buy & hold", _percent(result["buy_and_hold_return_pct"])
    yield (
        "Trades",
        Text(
            f"{result['total_trades']}: {result['winning_trades']} won, "
            f"{result['losing_trades']} lost"
        ),
    )
    yield "Win rate", Text(f"{result['win_rate']:.1f} %" if result["total_trades"] else "none")
    yield "Max drawdown", Text(f"{result['max_drawdown_pct']:.2f} %")
    yield "Sharpe ratio", _ratio(result["sharpe_ratio"]) + _few_days(result)
    yield "Profit factor", _ratio(result["profit_factor"])
    yield "Fees", Text(f"{costs['fees']:,.2f}")
    yield "Slippage", Text(f"{costs['slippage']:,.2f}")
    unpaid = ", simulated: nothing was paid" if is_simulated_model else ""
    yield "Model cost", Text(f"{costs['model_usd']:.4f} USD{unpaid} ({result['tokens']:,} tokens)")
    yield "Invalid replies", Text(str(result["invalid_replies"]))
    yield "Ambiguous", Text(_ambiguity(result["ambiguous_candles"]))
    yield "Market", _market(result["data_source"], file)
    yield "Model", _model(result["model"], is_simulated=is_simulated_model)


def _percent(value: float | None) -> Text:
    return Text("not known") if value is None else signed(value, " %")


def _ratio(value: float | None) -> Text:
    return Text("undefined" if value is None else f"{value:,.2f}")


def _few_days(result: Json) -> Text:
    if not result["low_sample"]:
        return Text()
    days = counted(result["daily_returns"], "day")
    return Text(f"  from {days} only: says little", style="dim")


def _ambiguity(candles: int) -> str:
    return f"{counted(candles, 'candle')} with both stop and target in reach; the stop counts"


def _market(source: str | None, file: Path | None) -> Text:
    if source == SIMULATED_SOURCE:
        return Text("SIMULATED: a seeded random walk, no real prices", style="yellow")
    return Text(f"{source}: {file}" if file else str(source))


def _model(model: str, *, is_simulated: bool) -> Text:
    if is_simulated:
        return Text(f"SIMULATED: {model}, fixed rules, no language model", style="yellow")
    return Text(model)


def _heading(trades: Sequence[Json]) -> str:
    if not trades:
        return "No trades"
    shown = min(len(trades), TRADES_SHOWN)
    return "The trade" if len(trades) == 1 else f"The last {shown} of {len(trades)} trades"


def _trades(trades: Sequence[Json], *, width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    shown = [name for name in _COLUMNS if width >= WIDE or name not in _WIDE_COLUMNS]
    for name in shown:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    for trade in trades:
        cells = _trade(trade)
        table.add_row(*(cells[name] for name in shown))
    return table


_COLUMNS: Final = (
    *("#", "side", "entered", "price", "left at", "held", "left by", "P&L", "on margin"),
)
_WORDS: Final = frozenset({"side", "entered", "left by"})
_WIDE_COLUMNS: Final = frozenset({"held", "on margin"})


def _trade(trade: Json) -> dict[str, str | Text]:
    """What the table says of a trade, by column."""
    cells: dict[str, str | Text] = dict.fromkeys(_COLUMNS, "")
    cells |= {
        "#": str(trade["trade_number"]),
        "side": Text(trade["type"], style="green" if trade["type"] == "long" else "red"),
        "entered": datetime.fromisoformat(trade["entry_time"]).strftime("%m-%d %H:%M"),
        "price": price(trade["entry_price"]),
    }
    if trade["exit_price"] is None:
        return cells | {"left by": "still open"}
    return cells | {
        "left at": price(trade["exit_price"]),
        "held": trade["duration_display"],
        "left by": trade["exit_type"].replace("_", " "),
        "P&L": signed(trade["pnl_amount"]),
        "on margin": signed(trade["pnl_pct"], " %"),
    }


def equity_chart(result: Json, *, width: int) -> Text:
    """Equity and, dotted, buy & hold over the time of the test."""
    import plotext  # noqa: PLC0415  (slow to import, and needed here only)

    curve, held = result["equity_curve"], result["buy_and_hold_curve"]
    plotext.terminal.limit(width=False, height=False)  # a pipe has a width as well
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, CHART_HEIGHT)
    for points, marker in (
        (held, plotext.marker("·", "gray")),
        (curve, plotext.marker("braille", "green" if result["total_pnl_pct"] >= 0 else "red")),
    ):
        if points:
            times = [point["time"] / 1000 for point in points]
            signal = figure.signal(times, [point["value"] for point in points], marker=marker)
            signal.lines()
            figure.draw(signal)
    _label(figure, [*curve, *held])
    return Text.from_ansi(figure.build().string().rstrip())


def _label(figure: Any, points: Sequence[Json]) -> None:
    """Dates below and money beside the curve."""
    times = _spread([point["time"] / 1000 for point in points])
    days = [datetime.fromtimestamp(at, tz=UTC).strftime("%m-%d %H:%M") for at in times]
    values = _spread([point["value"] for point in points])
    figure.ruler("x").ticks(times, days)
    figure.ruler("y").ticks(values, [f"{value:,.0f}" for value in values])


def _spread(values: Sequence[float]) -> list[float]:
    """Evenly spaced numbers from the least to the greatest."""
    low, high = min(values), max(values)
    step = (high - low) / (TICKS - 1)
    return [low + step * number for number in range(TICKS)] if step else [low]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a test can be looked at; `path` is that of its result, or, unfinished, of itself."""

    what: str
    path: str
    api: str
    documentation: str
    web_ui: str | None
    namespace: str
    workflow_id: str

    @property
    def workflow(self) -> str:
        if self.web_ui is None:
            return self.workflow_id
        return f"{self.web_ui}/namespaces/{self.namespace}/workflows/{self.workflow_id}"


def where_next(view: View, directory: DataDirectory, addresses: Addresses) -> None:
    """Where to look, what to type, and how to stop."""
    token = f"$({alphalab_command(directory, 'token')})"
    view.line()
    view.line(Text("Where next", style="bold"))
    view.step(addresses.what, f"{addresses.api}{addresses.path}")
    view.step("", f'curl -s -H "Authorization: Bearer {token}" {addresses.api}{addresses.path}')
    view.step("API docs", addresses.documentation)
    view.step("Web UI", addresses.workflow)
    view.step("Data", str(directory.path))
    view.step("Logs", str(directory.logs))
    view.step("Stop", f"{alphalab_command(directory, 'down')}  (the stack runs until then)")


def alphalab_command(directory: DataDirectory, *arguments: str) -> str:
    """A command line for this directory, as it can be typed here and now."""
    words = [_program(), *arguments]
    if directory.path != DEFAULT_DATA_DIR.absolute():
        words += ["--data-dir", str(directory.path)]
    return shlex.join(words)


def _program() -> str:
    """`alphalab` where that finds this installation, else the way to it."""
    installed = Path(sys.executable).with_name("alphalab")
    if shutil.which("alphalab") == str(installed) or not installed.exists():
        return "alphalab"
    here = Path.cwd()
    return str(installed.relative_to(here) if installed.is_relative_to(here) else installed)
