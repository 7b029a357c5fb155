"""Holds what is certified beside what comes out today."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Self

from certificates.bundle import CERTIFICATE, TRADES
from certificates.canonical import DECIMALS, Document, TraceFacts
from certificates.figures import Course, Figures, figures_of
from certificates.problems import Problem
from certificates.records import TradeRecord, trade_records
from trading.candles import CandleSeries, Timeframe
from trading.metrics import thin_curve
from trading.parity import Difference, Recording, check_parity
from trading.simulation import Replay

# A unit of the last decimal: two machines may round what numpy computed to neighbours.
_UNIT = 1.01 * 10**-DECIMALS
_LAST_BITS = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is counted and not folded, under the names that the document has for it."""

    fingerprint: str
    window_candles: int
    stepped_candles: int
    gaps: int
    decisions: int
    late_decisions: int
    invalid_replies: int

    @classmethod
    def of(
        cls,
        window: CandleSeries,
        stepped: CandleSeries,
        timeframe: Timeframe,
        *,
        decisions: int,
        late_decisions: int,
        invalid_replies: int,
    ) -> Self:
        return cls(
            fingerprint=window.fingerprint(),
            window_candles=len(window),
            stepped_candles=len(stepped),
            gaps=stepped.gaps(timeframe),
            decisions=decisions,
            late_decisions=late_decisions,
            invalid_replies=invalid_replies,
        )


def compare_figures(document: Document, figures: Figures, counted: Counted) -> Iterator[Problem]:
    """Every figure that is another one today."""
    certified, now = document.to_json(), _groups(figures, counted)
    for group, values in now.items():
        for name, value in values.items():
            was = certified[group][name]
            if not _is_same(was, value):
                yield Problem(
                    part="figures",
                    file=CERTIFICATE,
                    field=f"{group}.{name}",
                    message=f"certified {shown(was)}, recomputed {shown(value)}",
                )


def compare_trades(
    recorded: Sequence[TradeRecord], refolded: Sequence[TradeRecord]
) -> Iterator[Problem]:
    """Every value of a trade that is another one today, to the last bit."""
    for line in range(1, max(len(recorded), len(refolded)) + 1):
        if line > len(recorded) or line > len(refolded):
            missing = "is not recorded" if line > len(recorded) else "does not come about"
            yield _trade_problem(line, "trade", f"trade {line} {missing}")
            continue
        was, now = asdict(recorded[line - 1]), asdict(refolded[line - 1])
        for name, value in was.items():
            if value != now[name]:
                text = f"recorded {shown(value)}, recomputed {shown(now[name])}"
                yield _trade_problem(line, name, text)


def compare_trace(document: Document, trace: TraceFacts) -> Iterator[Problem]:
    """Every file that is another one now; one that differs changes the links of those behind it."""
    certified, now = asdict(document.trace), asdict(trace)
    for name, head in certified.items():
        if head != now[name]:
            yield Problem(
                part="figures",
                field=f"trace.{name}",
                message="what is stored is not what was certified",
            )
            return


def compare_recording(
    document: Document,
    recording: Recording,
    counted: Counted,
    drawn: Sequence[Sequence[float]] | None = None,
) -> tuple[Problem, ...]:
    """Fold what is stored today, and compare. Pure, and as slow as the test is long.

    `drawn` are the points of equity that are shown: time of a close (epoch ms) and value. They must
    be those that keep the shape of the whole curve, all of them and no others.
    """
    course = Course.of(recording)
    told = course.fold()
    differences = (
        Problem(
            part="trades",
            field=f"{each.field}{_where(each)}",
            message=f"recorded {shown(each.recorded)}, recomputed {shown(each.refolded)}",
        )
        for each in check_parity(recording).differences
    )
    return (
        *differences,
        *compare_trades(trade_records(recording), trade_records(told)),
        *compare_figures(document, figures_of(course, told), counted),
        *(() if drawn is None else _compare_drawn(drawn, course, told)),
    )


def _where(difference: Difference) -> str:
    if difference.trade_number is not None:
        return f" of trade {difference.trade_number}"
    return "" if difference.candle is None else f" of candle {difference.candle}"


def _compare_drawn(
    drawn: Sequence[Sequence[float]], course: Course, told: Replay
) -> Iterator[Problem]:
    """The first point that is drawn and should not be, or the other way round."""
    closes = course.candles.open_time[: told.equity.size] + course.rules.timeframe_ms
    kept: list[int] = []
    if told.equity.size:
        kept = thin_curve(closes, told.equity, starting_capital=course.rules.starting_capital)
    expected = [(int(closes[i]), float(told.equity[i])) for i in kept]
    for was, now in zip_longest(((time, value) for time, value in drawn), expected):
        if was != now:
            text = f"drawn {shown(was and was[1])}, recomputed {shown(now and now[1])}"
            yield Problem(part="figures", field="equity", message=text)
            return


def shown(value: object) -> str:
    return "none" if value is None else str(value)[:80]


def _groups(figures: Figures, counted: Counted) -> Mapping[str, Mapping[str, Any]]:
    counts = asdict(counted)
    model = ("decisions", "late_decisions", "invalid_replies")
    return {
        "data": {name: value for name, value in counts.items() if name not in model}
        | {"ambiguous_candles": figures.ambiguous_candles},
        "model": {name: counts[name] for name in model},
        "metrics": asdict(figures.metrics),
        "result": asdict(figures.result),
    }


def _is_same(certified: Any, now: Any) -> bool:
    if isinstance(certified, float) or isinstance(now, float):
        numbers = isinstance(certified, float | int) and isinstance(now, float | int)
        return numbers and math.isclose(certified, now, rel_tol=_LAST_BITS, abs_tol=_UNIT)
    return bool(certified == now)


def _trade_problem(line: int, name: str, message: str) -> Problem:
    return Problem(part="trades", file=TRADES, line=line, field=name, message=message)
