"""What a finished test was worth. Ratios are fractions; what is undefined is None, never NaN."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.candles import CandleSeries
from trading.execution import entry_fill, exit_fill
from trading.orders import Side, Trade
from trading.portfolio import MILLISECONDS_PER_DAY, SimulationState
from trading.rules import Rules

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

DAYS_PER_YEAR = 365  # crypto trades every day
LOW_SAMPLE = 30
# What is equal may differ by rounding: returns by this much, amounts by this share of the largest.
_ROUNDING = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Amounts in quote units, durations in milliseconds, all else fractions or plain ratios.

    `max_drawdown` is positive. `low_sample` marks ratios of fewer than 30 daily returns.
    """

    total_return: float | None
    cagr: float | None
    max_drawdown: float | None
    longest_drawdown_ms: int | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    volatility: float | None
    probabilistic_sharpe: float | None
    win_rate: float | None
    profit_factor: float | None
    expectancy: float | None
    sqn: float | None
    kelly: float | None
    best_trade_pnl: float | None
    worst_trade_pnl: float | None
    average_trade_pnl: float | None
    average_holding_ms: float | None
    exposure: float | None
    buy_and_hold_return: float | None
    excess_return: float | None
    daily_returns: int
    low_sample: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The way from prices to equity: `gross_pnl - fees - slippage` is the change of equity."""

    gross_pnl: float
    fees: float
    slippage: float


def compute_metrics(
    open_times: Times,
    equity: Floats,
    trades: Sequence[Trade],
    *,
    exposed_candles: int,
    starting_capital: float,
    timeframe_ms: int,
    benchmark: Floats | None = None,
) -> Metrics:
    """All metrics of a test; without a candle, all are None.

    `equity` has one point per candle, at its close; `benchmark` is the equity of buy and hold.
    """
    returns = daily_returns(open_times, equity, starting_capital)
    total = _last_return(equity, starting_capital)
    held = None if benchmark is None else _last_return(benchmark, starting_capital)
    drawdown = max_drawdown(equity, starting_capital)
    growth = _cagr(total, open_times, timeframe_ms)
    pnl = np.array([trade.pnl_amount for trade in trades], dtype=np.float64)
    wins, losses = pnl[pnl > 0], pnl[pnl <= 0]
    return Metrics(
        total_return=total,
        cagr=growth,
        max_drawdown=drawdown,
        longest_drawdown_ms=_longest_drawdown(open_times, equity, starting_capital, timeframe_ms),
        sharpe=_sharpe(returns),
        sortino=_sortino(returns),
        calmar=_divide(growth, drawdown),
        volatility=_volatility(returns),
        probabilistic_sharpe=_probabilistic_sharpe(returns),
        win_rate=_divide(wins.size, pnl.size),
        profit_factor=_divide(float(wins.sum()), -float(losses.sum())),
        expectancy=_expectancy(wins, losses),
        sqn=_sqn(pnl),
        kelly=_kelly(wins, losses),
        best_trade_pnl=_finite(pnl.max()) if pnl.size else None,
        worst_trade_pnl=_finite(pnl.min()) if pnl.size else None,
        average_trade_pnl=_mean(pnl),
        average_holding_ms=_mean(_holding_times(trades)),
        exposure=_divide(exposed_candles, equity.size),
        buy_and_hold_return=held,
        excess_return=None if total is None or held is None else total - held,
        daily_returns=returns.size,
        low_sample=returns.size < LOW_SAMPLE,
    )


def total_costs(state: SimulationState, last_close: float) -> Costs:
    """Gross result, fees and slippage of a test, an open position included at the last close."""
    gross, position = state.gross_pnl, state.position
    if position is not None:
        gross += position.unrealized_pnl(last_close) + position.entry_slippage
    return Costs(gross_pnl=gross, fees=state.fees_paid, slippage=state.slippage_paid)


def buy_and_hold(series: CandleSeries, rules: Rules) -> Floats:
    """Equity at each close of a long of the whole capital from the first open to the last close.

    Sized and charged as the engine would: the notional is the capital, the fee comes on top.
    """
    if not len(series):
        return np.empty(0, dtype=np.float64)
    entry = entry_fill(Side.LONG, float(series.open[0]), rules.slippage_rate)
    exit_price = exit_fill(Side.LONG, float(series.close[-1]), rules.slippage_rate)
    size = rules.starting_capital / entry
    equity = rules.starting_capital + size * (series.close - entry) - rules.fee_rate * size * entry
    equity[-1] += size * (exit_price - series.close[-1]) - rules.fee_rate * size * exit_price
    return equity


def daily_returns(open_times: Times, equity: Floats, starting_capital: float) -> Floats:
    """The change of equity over each UTC day that has a candle, by the day of its open.

    There are none when equity was used up: no ratio means anything then.
    """
    if not equity.size:
        return np.empty(0, dtype=np.float64)
    days = open_times // MILLISECONDS_PER_DAY
    is_last = np.append(days[1:] != days[:-1], True)
    closes = np.concatenate(([starting_capital], equity[is_last]))
    if (closes[:-1] <= _ROUNDING * starting_capital).any():
        return np.empty(0, dtype=np.float64)
    return closes[1:] / closes[:-1] - 1


def max_drawdown(equity: Floats, starting_capital: float) -> float | None:
    """The deepest fall from an earlier high, as a positive fraction of it."""
    if not equity.size:
        return None
    return _finite(drawdowns(equity, starting_capital).max())


def drawdowns(equity: Floats, starting_capital: float) -> Floats:
    """How far below the highest equity so far each point is, the starting capital included."""
    peaks = np.maximum(np.maximum.accumulate(equity), starting_capital)
    result: Floats = (peaks - equity) / peaks
    return result


def thin_curve(
    times: Times, equity: Floats, limit: int = 1000, *, starting_capital: float | None = None
) -> list[int]:
    """Indices, ascending, of at most `limit` (six or more) points that keep the curve's shape.

    First, last, global peak, deepest trough (the point of the greatest drawdown, counted from
    the starting capital where it is given), and the lowest and highest of each stretch of time.
    """
    if equity.size <= limit:
        return list(range(equity.size))
    base = float(equity[0]) if starting_capital is None else starting_capital
    trough = int(np.argmax(drawdowns(equity, base)))
    kept = {0, equity.size - 1, int(np.argmax(equity)), trough}
    edges = np.linspace(times[0], times[-1], max((limit - len(kept)) // 2, 1) + 1)
    cuts = [0, *np.searchsorted(times, edges[1:-1]).tolist(), equity.size]
    for begin, end in itertools.pairwise(cuts):
        if begin < end:
            kept.add(begin + int(np.argmin(equity[begin:end])))
            kept.add(begin + int(np.argmax(equity[begin:end])))
    return sorted(kept)


def _finite(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _divide(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return _finite(numerator / denominator)


def _mean(values: Floats) -> float | None:
    return _finite(values.mean()) if values.size else None


def _spread(values: Floats, unit: float = 1.0) -> float | None:
    """The sample's standard deviation; None where it is undefined or nothing but rounding."""
    if values.size < 2:  # noqa: PLR2004
        return None
    spread = float(values.std(ddof=1))
    return spread if spread > _ROUNDING * unit else None


def _last_return(equity: Floats, starting_capital: float) -> float | None:
    return _finite(equity[-1] / starting_capital - 1) if equity.size else None


def _cagr(total: float | None, open_times: Times, timeframe_ms: int) -> float | None:
    if total is None or total < -1:
        return None
    days = (int(open_times[-1] - open_times[0]) + timeframe_ms) / MILLISECONDS_PER_DAY
    try:
        return _finite((1 + total) ** (DAYS_PER_YEAR / days) - 1)
    except OverflowError:
        return None


def _longest_drawdown(
    open_times: Times, equity: Floats, starting_capital: float, timeframe_ms: int
) -> int | None:
    """The longest time from a high to the first point at or above it, or to the end."""
    if not equity.size:
        return None
    times = np.concatenate((open_times[:1], open_times + timeframe_ms))
    values = np.concatenate(([starting_capital], equity))
    at_high = values >= np.maximum.accumulate(values)
    high_times = np.append(times[at_high], times[-1])
    is_fallen = np.append(np.diff(np.flatnonzero(at_high)) > 1, not at_high[-1])
    return int((np.diff(high_times) * is_fallen).max())


def _volatility(returns: Floats) -> float | None:
    if returns.size < 2:  # noqa: PLR2004
        return None
    return _finite(returns.std(ddof=1) * math.sqrt(DAYS_PER_YEAR))


def _sharpe(returns: Floats) -> float | None:
    ratio = _divide(_mean(returns), _spread(returns))
    return None if ratio is None else ratio * math.sqrt(DAYS_PER_YEAR)


def _sortino(returns: Floats) -> float | None:
    if not returns.size:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0) ** 2)))
    ratio = _divide(_mean(returns), downside if downside > _ROUNDING else None)
    return None if ratio is None else ratio * math.sqrt(DAYS_PER_YEAR)


def _probabilistic_sharpe(returns: Floats) -> float | None:
    """The probability that the true Sharpe ratio is above 0 (Bailey, López de Prado 2012)."""
    ratio = _divide(_mean(returns), _spread(returns))
    if ratio is None:
        return None
    standardised = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float(np.mean(standardised**3)), float(np.mean(standardised**4))
    error = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    if not error > 0:
        return None
    return _normal_cdf(ratio * math.sqrt(returns.size - 1) / math.sqrt(error))


def _normal_cdf(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2


def _expectancy(wins: Floats, losses: Floats) -> float | None:
    count = wins.size + losses.size
    return _divide(float(wins.sum()) + float(losses.sum()), count)


def _sqn(pnl: Floats) -> float | None:
    if not pnl.size:
        return None
    ratio = _divide(_mean(pnl), _spread(pnl, unit=float(np.abs(pnl).max())))
    return None if ratio is None else ratio * math.sqrt(pnl.size)


def _kelly(wins: Floats, losses: Floats) -> float | None:
    average_win, average_loss = _mean(wins), _mean(losses)
    payoff = _divide(average_win, None if average_loss is None else -average_loss)
    if not payoff:
        return None
    count = wins.size + losses.size
    return _finite((wins.size - losses.size / payoff) / count)


def _holding_times(trades: Sequence[Trade]) -> Floats:
    return np.array([trade.exit_time - trade.entry_time for trade in trades], dtype=np.float64)
