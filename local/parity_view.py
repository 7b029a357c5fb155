"""How `alphalab parity` shows that a test is the same in its second fold, or where it is not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trading.parity import Difference, Parity, TimingDrift

DIFFERENCES_SHOWN = 100


class NothingToCompare(RuntimeError):
    """Why there is no recording to compare, in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Whose recording it is, and what came of the comparison."""

    test: str
    agent: str
    asset: str
    timeframe: str
    parity: Parity


def comparison(compared: Compared) -> Group:
    """The figures, the differences if there are any, and the verdict."""
    parity = compared.parity
    heading = f"Parity of the {compared.test} of {compared.agent} on "
    return Group(
        Text(f"{heading}{compared.asset} {compared.timeframe}", style="bold"),
        Text(""),
        _figures(parity),
        _drift(parity.drift),
        *_differences(parity.differences),
        Text(""),
        _verdict(parity),
    )


def _figures(parity: Parity) -> Table:
    table = Table("", "recorded", "folded again", box=None, pad_edge=False)
    for name, *values in _rows(parity):
        table.add_row(Text(name, style="cyan"), *values)
    return table


def _rows(parity: Parity) -> Iterator[tuple[str, ...]]:
    yield "Candles", f"{parity.candles:,}", ""
    yield "Decisions", f"{parity.decisions:,}", ""
    yield "Exits between closes", f"{parity.sightings:,}", ""
    yield "Trades", f"{parity.trades_recorded:,}", f"{parity.trades_refolded:,}"
    yield "Ending equity", repr(parity.recorded_equity), repr(parity.refolded_equity)
    yield "Largest difference of equity", "", repr(parity.max_equity_difference)


def _drift(drift: TimingDrift) -> Text:
    if drift.mean is None or drift.worst is None:
        return Text("")
    mean, worst = drift.mean * 100, drift.worst * 100
    return Text.assemble(
        ("\nTiming drift", "cyan"),
        f" of {drift.entries:,} entries, live price against the open they filled at: "
        f"mean {mean:+.4f} %, worst {worst:+.4f} % (+ is dearer)",
    )


def _differences(differences: tuple[Difference, ...]) -> Iterable[Table | Text]:
    if not differences:
        return
    table = Table("of", "field", "recorded", "folded again", box=None, pad_edge=False)
    for each in differences[:DIFFERENCES_SHOWN]:
        table.add_row(_subject(each), each.field, _shown(each.recorded), _shown(each.refolded))
    yield Text("")
    yield table
    more = len(differences) - DIFFERENCES_SHOWN
    if more > 0:
        yield Text(f"and {more:,} more", style="dim")


def _subject(difference: Difference) -> str:
    if difference.trade_number is not None:
        return f"trade {difference.trade_number}"
    return "the test" if difference.candle is None else f"candle {difference.candle:,}"


def _shown(value: float | str | None) -> str:
    return "none" if value is None else str(value)


def _verdict(parity: Parity) -> Text:
    if parity.is_equal:
        return Text("Equal: every trade and every point of equity, to the last bit.", style="green")
    count = len(parity.differences)
    return Text(f"Not equal: {count:,} difference{'s' * (count > 1)}.", style="bold red")
