"""What a fold came to, rounded as a certificate states it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from certificates.canonical import ResultFacts, rounded
from trading.candles import CandleSeries
from trading.decisions import Decision
from trading.metrics import Metrics, buy_and_hold, compute_metrics, total_costs
from trading.orders import ExitType
from trading.parity import Recording
from trading.rules import Intrabar, Rules
from trading.simulation import Replay, Sighting, replay


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """All that a fold reads: the candles that were stepped, what was decided, and the rules."""

    candles: CandleSeries
    decisions: Mapping[int, Decision]
    sightings: Mapping[int, Sighting]
    rules: Rules
    ending: ExitType | None

    @classmethod
    def of(cls, recording: Recording) -> Self:
        return cls(
            candles=recording.candles,
            decisions=recording.decisions,
            sightings=recording.sightings,
            rules=recording.rules,
            ending=recording.ending,
        )

    def fold(self, rules: Rules | None = None) -> Replay:
        return replay(
            self.candles,
            self.decisions,
            rules or self.rules,
            ending=self.ending,
            sightings=self.sightings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    metrics: Metrics
    result: ResultFacts
    ambiguous_candles: int


def figures_of(course: Course, told: Replay) -> Figures:
    """Measure a fold of a course, as `activities.measuring` measures a test."""
    stepped = course.candles.slice(0, told.equity.size)
    # What is undefined is None in the metrics; numpy need not say so as well.
    with np.errstate(all="ignore"):
        metrics = compute_metrics(
            stepped.open_time,
            told.equity,
            told.trades,
            exposed_candles=told.state.exposed_candles,
            starting_capital=course.rules.starting_capital,
            timeframe_ms=course.rules.timeframe_ms,
            benchmark=buy_and_hold(stepped, course.rules),
        )
    return Figures(
        metrics=_rounded_metrics(metrics),
        result=_result(course, stepped, told),
        ambiguous_candles=told.state.ambiguous_candles,
    )


def _result(course: Course, stepped: CandleSeries, told: Replay) -> ResultFacts:
    state, capital = told.state, course.rules.starting_capital
    costs = total_costs(state, float(stepped.close[-1]) if len(stepped) else 0.0)
    other = _other_return(course, told)
    return ResultFacts(
        starting_capital=rounded(capital),
        ending_capital=rounded(state.equity),
        total_pnl=rounded(state.equity - capital),
        trades=state.trades_total,
        winning_trades=state.trades_won,
        losing_trades=state.trades_lost,
        gross_pnl=rounded(costs.gross_pnl),
        fees=rounded(costs.fees),
        slippage=rounded(costs.slippage),
        open_position_at_end=state.position is not None,
        other_intrabar_return=None if other is None else rounded(other),
        equity_sha256=_equity_hash(stepped, told, course.rules),
    )


def _other_return(course: Course, told: Replay) -> float | None:
    """The return under the other reading of ambiguous candles, where there were any."""
    if not told.state.ambiguous_candles:
        return None
    is_pessimistic = course.rules.intrabar is Intrabar.PESSIMISTIC
    other = Intrabar.OPTIMISTIC if is_pessimistic else Intrabar.PESSIMISTIC
    outcome = course.fold(replace(course.rules, intrabar=other))
    return outcome.state.equity / course.rules.starting_capital - 1


def _equity_hash(stepped: CandleSeries, told: Replay, rules: Rules) -> str:
    digest = hashlib.sha256()
    closes = (stepped.open_time + rules.timeframe_ms).tolist()
    for time, equity in zip(closes, told.equity.tolist(), strict=True):
        digest.update(f"{time},{equity!r}\n".encode())
    return digest.hexdigest()


def _rounded_metrics(metrics: Metrics) -> Metrics:
    changes: dict[str, Any] = {
        name: rounded(value) for name, value in asdict(metrics).items() if isinstance(value, float)
    }
    return replace(metrics, **changes)
