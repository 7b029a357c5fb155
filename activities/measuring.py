"""What a finished test came to: its metrics and curves, as a result's row has them."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from activities.contexts import SessionContext
from activities.step_rows import clamped_percent
from db.market_frames import MarketFrame
from db.models import NewResult
from db.recordings import recorded_decision, sightings_of, trade_of
from db.repositories.finished_sessions import (
    FinishedSessionRepository,
    SessionTotals,
)
from db.repositories.steps import StepRepository
from events.durations import display_duration
from events.payloads import percent, result_id
from events.shapes import FinalStats
from trading.metrics import (
    Costs,
    Metrics,
    buy_and_hold,
    compute_metrics,
    drawdowns,
    thin_curve,
    total_costs,
)
from trading.orders import ExitType
from trading.rules import Intrabar
from trading.simulation import Sighting, SimulationState, Step, replay

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

# Metrics that are fractions inside and percent in a result.
_FRACTIONS = frozenset(
    (
        "total_return",
        "cagr",
        "max_drawdown",
        "volatility",
        "win_rate",
        "exposure",
        "buy_and_hold_return",
        "excess_return",
        "kelly",
        "probabilistic_sharpe",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a test ended: its last act and why; `closes` says whether a position was to be closed.

    `sighting` is what a stop closed the position by, where that was not a candle's close.
    """

    step: Step
    reason: str
    closes: bool = True
    sighting: Sighting | None = None

    def seen_after(self, stepped: int) -> dict[int, Sighting]:
        """The last sighting under the number of the candle that it belongs to."""
        return {} if self.sighting is None else {stepped: self.sighting}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A test's figures; `equity` has a point for every candle stepped, at its close."""

    open_times: Times
    equity: Floats
    benchmark: Floats
    metrics: Metrics
    costs: Costs
    totals: SessionTotals
    state: SimulationState
    starting_capital: float
    optimistic_pnl: float | None

    @property
    def pnl_pct(self) -> float:
        return clamped_percent(self.state.equity / self.starting_capital - 1)

    @property
    def is_profitable(self) -> bool:
        """A test that never traded proves nothing."""
        return self.pnl_pct >= 0 and self.state.trades_total > 0

    @property
    def max_drawdown_pct(self) -> float:
        """A positive magnitude."""
        return clamped_percent(self.metrics.max_drawdown or 0.0)

    def final_stats(self, duration_seconds: float) -> FinalStats:
        """The figures of `session_completed`."""
        return {
            "ending_capital": self.state.equity,
            "total_pnl_pct": self.pnl_pct,
            "total_trades": self.state.trades_total,
            "winning_trades": self.state.trades_won,
            "losing_trades": self.state.trades_lost,
            "win_rate": percent(self.metrics.win_rate),
            "max_drawdown_pct": 0.0 - self.max_drawdown_pct,
            "sharpe_ratio": self.metrics.sharpe,
            "profit_factor": self.metrics.profit_factor,
            "duration_seconds": duration_seconds,
            "duration_display": display_duration(duration_seconds),
        }


async def measure(
    session: AsyncSession, context: SessionContext, frame: MarketFrame, ended: Ended
) -> Measured:
    """Measure a test from what it stored; the last point of equity is the one after its end."""
    finished = FinishedSessionRepository(session)
    curve = await StepRepository(session).equity_curve(context.session_id)
    open_times = np.array([time for time, _ in curve], dtype=np.int64)
    equity = np.array([value for _, value in curve], dtype=np.float64)
    if equity.size:
        equity[-1] = ended.step.equity
    trades = [trade_of(row) for row in await finished.trades(context.session_id)]
    if ended.step.closed is not None:
        trades.append(ended.step.closed)  # its row is written with the result
    stepped = frame.candles.slice(0, len(curve))
    benchmark = await asyncio.to_thread(buy_and_hold, stepped, context.rules)
    state = ended.step.state
    close = float(stepped.close[-1]) if len(curve) else 0.0
    return Measured(
        open_times=open_times,
        equity=equity,
        benchmark=benchmark,
        metrics=await asyncio.to_thread(
            compute_metrics,
            open_times,
            equity,
            trades,
            exposed_candles=state.exposed_candles,
            starting_capital=context.rules.starting_capital,
            timeframe_ms=context.rules.timeframe_ms,
            benchmark=benchmark,
        ),
        costs=total_costs(state, close),
        totals=await finished.totals(context.session_id),
        state=state,
        starting_capital=context.rules.starting_capital,
        optimistic_pnl=await _other_outcome(finished, context, frame, ended, len(curve)),
    )


async def _other_outcome(
    finished: FinishedSessionRepository,
    context: SessionContext,
    frame: MarketFrame,
    ended: Ended,
    stepped: int,
) -> float | None:
    """The return under the other intrabar setting, where a candle was ambiguous.

    The guards of the other outcome may let it run on for longer than this test did.
    """
    if not ended.step.state.ambiguous_candles:
        return None
    is_pessimistic = context.rules.intrabar is Intrabar.PESSIMISTIC
    other = Intrabar.OPTIMISTIC if is_pessimistic else Intrabar.PESSIMISTIC
    decisions = {
        row.candle_number: recorded_decision(row)
        for row in await finished.decisions(context.session_id)
    }
    trades = await finished.trades(context.session_id)
    # Beside the event loop, like all that takes long: model calls must not miss a heartbeat.
    outcome = await asyncio.to_thread(
        replay,
        frame.candles.slice(0, stepped),
        decisions,
        replace(context.rules, intrabar=other),
        ending=_ending(ended),
        sightings=sightings_of(trades) | ended.seen_after(stepped),
    )
    return outcome.state.equity / context.rules.starting_capital - 1


def _ending(ended: Ended) -> ExitType | None:
    if ended.reason != "stopped":
        return ExitType.END_OF_TEST
    return ExitType.MANUAL if ended.closes else None


def result_row(
    context: SessionContext,
    frame: MarketFrame,
    ended: Ended,
    measured: Measured,
    *,
    at: datetime,
) -> NewResult:
    """The row of a session's result."""
    settings, state, totals = context.settings, measured.state, measured.totals
    metrics = measured.metrics
    holding, times = metrics.average_holding_ms, _close_times(context, measured)
    return NewResult(
        id=result_id(context.session_id),
        session_id=context.session_id,
        user_id=context.user_id,
        agent_id=settings.agent_id,
        agent_version_id=settings.agent_version_id,
        agent_name=settings.agent_name,
        model=settings.model,
        type=settings.type,
        asset=settings.asset,
        mode=context.rules.mode.value,
        timeframe=settings.timeframe,
        start_date=settings.start_date,
        end_date=settings.end_date or _last_close(context, measured),
        duration_seconds=(at - totals.started_at).total_seconds(),
        total_trades=state.trades_total,
        winning_trades=state.trades_won,
        losing_trades=state.trades_lost,
        total_pnl_amount=state.equity - measured.starting_capital,
        total_pnl_pct=measured.pnl_pct,
        win_rate=percent(metrics.win_rate),
        max_drawdown_pct=measured.max_drawdown_pct,
        sharpe_ratio=metrics.sharpe,
        profit_factor=metrics.profit_factor,
        starting_capital=measured.starting_capital,
        ending_capital=state.equity,
        avg_trade_pnl=metrics.average_trade_pnl,
        best_trade_pnl=metrics.best_trade_pnl,
        worst_trade_pnl=metrics.worst_trade_pnl,
        avg_holding_seconds=None if holding is None else holding / 1000,
        gross_pnl=measured.costs.gross_pnl,
        fees=measured.costs.fees,
        slippage_cost=measured.costs.slippage,
        cost_usd=totals.cost_usd,
        tokens=totals.tokens,
        metrics=_metrics_json(metrics),
        config=_config_json(context, measured),
        equity_curve=equity_points(times, measured.equity, measured.starting_capital),
        buy_and_hold_curve=benchmark_points(times, measured.benchmark),
        total_candles=state.next_candle,
        gaps=frame.candles.slice(0, state.next_candle).gaps(context.frame_key.timeframe),
        ambiguous_candles=state.ambiguous_candles,
        optimistic_pnl_pct=_optional_percent(measured.optimistic_pnl),
        missed_candles=totals.missed_candles,
        paused_candles=totals.paused_candles,
        late_decisions=totals.late_decisions,
        invalid_replies=totals.invalid_replies,
        possibly_paid_twice=totals.possibly_paid_twice,
        blind=settings.blind,
        low_sample=metrics.low_sample,
        open_position_at_end=state.position is not None,
        end_reason=ended.reason,
        data_source=settings.data_source,
        data_fingerprint=totals.data_fingerprint,
        model_source=totals.model_source,
    )


def _last_close(context: SessionContext, measured: Measured) -> datetime:
    """Where a test ended that had no end; without a candle, where it began."""
    if not measured.open_times.size:
        return context.settings.start_date
    close_ms = int(_close_times(context, measured)[-1])
    return datetime.fromtimestamp(close_ms / 1000, tz=UTC)


def _optional_percent(fraction: float | None) -> float | None:
    return None if fraction is None else clamped_percent(fraction)


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    """Every metric; fractions as percent under `…_pct`, durations in seconds."""
    found: dict[str, Any] = {}
    for name, value in asdict(metrics).items():
        if name in _FRACTIONS:
            found[f"{name}_pct"] = percent(value)
        elif name.endswith("_ms"):
            found[f"{name.removesuffix('_ms')}_seconds"] = None if value is None else value / 1000
        else:
            found[name] = value
    return found


def _config_json(context: SessionContext, measured: Measured) -> dict[str, Any]:
    settings = context.settings
    return {
        "rules": settings.rules,
        "decision_mode": settings.decision_mode,
        "decision_interval_candles": settings.decision_interval_candles,
        "first_decision_candle": settings.first_decision_candle,
        "warm_up_candles": settings.warm_up_candles,
        "indicators": settings.indicators,
        "custom_indicators": settings.custom_indicators,
        "strategy_prompt": settings.strategy_prompt,
        "data_set_id": str(settings.data_set_id),
        "decisions": measured.totals.decisions,
        "overridden_decisions": measured.totals.overridden_decisions,
    }


def _close_times(context: SessionContext, measured: Measured) -> Times:
    return measured.open_times + context.rules.timeframe_ms


def equity_points(times: Times, equity: Floats, starting_capital: float) -> list[dict[str, Any]]:
    """At most 1,000 points that keep every extreme; drawdown is negative percent.

    `times` are the closes of the candles, in epoch milliseconds.
    """
    if not equity.size:
        return []
    falls = drawdowns(equity, starting_capital)
    kept = thin_curve(times, equity, starting_capital=starting_capital)
    return [
        {
            "time": int(times[i]),
            "value": float(equity[i]),
            "drawdown": 0.0 - _finite(float(falls[i])) * 100,
        }
        for i in kept
    ]


def benchmark_points(times: Times, benchmark: Floats) -> list[dict[str, Any]]:
    """The curve of buy and hold, as short as that of equity."""
    if not benchmark.size:
        return []
    kept: Sequence[int] = thin_curve(times, benchmark)
    return [{"time": int(times[i]), "value": float(benchmark[i])} for i in kept]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
