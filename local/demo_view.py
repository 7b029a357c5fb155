"""What the demo shows while it runs: its steps, and how the test stands, event by event."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.spinner import Spinner
from rich.text import Text

from local.demo_client import Frame, Json

REFRESHES_PER_SECOND = 8
# Where nothing can be drawn over: a line for every tenth of the test.
LINES_OF_PROGRESS = 10
_STEP_WIDTH = 12

Change = Callable[[Json], dict[str, Any]]


def _stats(data: Json) -> Json:
    return {
        "candles": data["current_candle"],
        "equity": data["equity"],
        "pnl_pct": data["pnl_pct"],
        "max_drawdown_pct": data["max_drawdown_pct"],
        "trades": data["trades_total"],
        "won": data["trades_won"],
        "position": data["current_position"],
    }


def _error(data: Json) -> Json:
    """An error that the test survives is followed by a pause."""
    return {"trouble" if data["recoverable"] else "failure": data["message"]}


CHANGES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "stats_update": _stats,
        "ai_decision": lambda data: {"decision": data},
        "session_error": _error,
        "error": _error,
        "session_paused": lambda data: {"pause_reason": data["reason"]},
        "session_resumed": lambda _: {"pause_reason": None, "trouble": None},
        "session_completed": lambda data: {"result_id": data["result_id"]},
        "connection_lost": lambda _: {"is_connected": False},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a test stands, as far as its events have told."""

    changes: ClassVar[Mapping[str, Change]] = CHANGES

    total_candles: int
    candles: int = 0
    equity: float
    pnl_pct: float = 0.0
    max_drawdown_pct: float = 0.0
    trades: int = 0
    won: int = 0
    position: Json | None = None
    decision: Json | None = None
    trouble: str | None = None
    pause_reason: str | None = None
    is_connected: bool = True
    result_id: str | None = None
    failure: str | None = None

    def after(self, frame: Frame) -> Self:
        """The standing once an event is known; events that change nothing change nothing."""
        tell = self.changes.get(frame["event"])
        changes = {} if tell is None else tell(frame["data"])
        return replace(self, **{"is_connected": True, **changes})


AnyStanding = TypeVar("AnyStanding", bound=Standing)
Show = Callable[[AnyStanding], None]
Describe = Callable[[AnyStanding], Sequence[Text]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing(Generic[AnyStanding]):
    """How a test is shown, from `start` on.

    `passing` is worth a look while it can be drawn over, and no line. Of `lines` there are about
    as many in a whole test.
    """

    start: AnyStanding
    describe: Describe[AnyStanding]
    passing: Describe[AnyStanding]
    lines: int = LINES_OF_PROGRESS


class View:
    """The screen, or a file or pipe in its place, which gets plain lines."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @property
    def is_drawn_over(self) -> bool:
        """Whether what is shown can be replaced: on a terminal that understands how."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def line(self, text: str | Text = "") -> None:
        """A line that stays, however long: the terminal breaks it, so that it copies well."""
        self.console.print(text, soft_wrap=True, markup=False)

    def step(self, name: str, what: str) -> None:
        """Something that the demo has done."""
        self.line(Text.assemble((f"{name:<{_STEP_WIDTH}}", "bold cyan"), what))

    @contextmanager
    def waiting(self, describe: Callable[[], str]) -> Iterator[None]:
        """Say what is waited for while it lasts."""
        if not self.is_drawn_over:
            self.line(f"{describe()} ...")
            yield
            return
        spinner = Spinner("dots")

        def drawn() -> RenderableType:
            spinner.update(text=Text(f"{describe()} ..."))
            return spinner

        with self._live(drawn):
            yield

    @contextmanager
    def watching(self, drawing: Drawing[AnyStanding]) -> Iterator[Show[AnyStanding]]:
        """Show the test as it stands, again and again."""
        if not self.is_drawn_over:
            yield _Lines(self, drawing).show
            return
        picture = _Picture(drawing)
        with self._live(lambda: picture):
            yield picture.show

    def _live(self, drawn: Callable[[], RenderableType]) -> Live:
        return Live(
            console=self.console,
            get_renderable=drawn,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )


class _Picture(Generic[AnyStanding]):
    """The progress bar and the lines below it."""

    def __init__(self, drawing: Drawing[AnyStanding]) -> None:
        self._drawing = drawing
        self._standing = drawing.start
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("candle"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            expand=True,
        )
        self._task = self._progress.add_task("", total=drawing.start.total_candles)

    def show(self, standing: AnyStanding) -> None:
        self._standing = standing
        self._progress.update(self._task, completed=standing.candles)

    def __rich__(self) -> RenderableType:
        lines = [*self._drawing.passing(self._standing), *self._drawing.describe(self._standing)]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(self._progress, *lines)


class _Lines(Generic[AnyStanding]):
    """A few lines now and then."""

    def __init__(self, view: View, drawing: Drawing[AnyStanding]) -> None:
        self._view = view
        self._drawing = drawing
        self._shown = drawing.start
        self._told_candles = drawing.start.candles

    def show(self, standing: AnyStanding) -> None:
        was, self._shown = self._shown, standing
        part = max(1, standing.total_candles // self._drawing.lines)
        if standing.candles // part > self._told_candles // part:
            self._told_candles = standing.candles
            figures, *others = self._drawing.describe(standing)
            self._view.line(f"candle {standing.candles:>4}/{standing.total_candles}  {figures}")
            for other in others:
                self._view.line(f"{'':>12}{other}")
        if was.is_connected and not standing.is_connected:
            self._view.line(_LOST)


_LOST = "The connection to the API broke; connecting again ..."


def describe(standing: Standing) -> list[Text]:
    """The figures, the last decision, and what is the matter if anything is; each in one line."""
    figures = Text.assemble(account(standing), f"  {held(standing)}")
    return [figures, decision(standing), *matter(standing)]


def account(standing: Standing) -> Text:
    """Equity, profit, drawdown and trades."""
    return Text.assemble(
        f"equity {standing.equity:,.2f}  P&L ",
        signed(standing.pnl_pct, " %"),
        f"  drawdown {abs(standing.max_drawdown_pct):.2f} %"
        f"  trades {standing.trades}, {standing.won} won",
    )


def held(standing: Standing) -> str:
    """The open position, if there is one."""
    position = standing.position
    if position is None:
        return "no position"
    return f"{position['type']} since {price(position['entry_price'])}"


def matter(standing: Standing) -> list[Text]:
    """What is the matter, if anything is."""
    if not standing.is_connected:
        return [Text(_LOST, style="yellow")]
    if standing.pause_reason is not None:
        return [Text(f"paused: {standing.trouble or standing.pause_reason}", style="yellow")]
    return []


def decision(standing: Standing) -> Text:
    """The last decision and its reasons."""
    taken = standing.decision
    if taken is None:
        return Text("no decision yet", style="dim")
    confidence = taken["confidence"]
    sure = "" if confidence is None else f" {confidence:.0f} %"
    reasoning = " ".join(str(taken["reasoning"]).split())
    return Text.assemble(
        f"candle {taken['candle_index'] + 1}: ",
        (f"{taken['action']}{sure}", _ACTION_STYLES.get(taken["action"], "bold")),
        f"  {reasoning}",
    )


_ACTION_STYLES = MappingProxyType({"LONG": "bold green", "SHORT": "bold red", "HOLD": "dim"})


def backtest_drawing(start: Standing, lines: int = LINES_OF_PROGRESS) -> Drawing[Standing]:
    """How a backtest is shown."""
    return Drawing(start=start, describe=describe, passing=lambda _: (), lines=lines)


def signed(value: float, unit: str = "") -> Text:
    """A gain or a loss, coloured where there are colours."""
    return Text(f"{value + 0.0:+,.2f}{unit}", style="green" if value >= 0 else "red")


def price(value: float) -> str:
    """A price with as many digits as its size deserves."""
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.6g}"  # noqa: PLR2004


def counted(count: int, what: str) -> str:
    """`1 candle`, `1,000 candles`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
