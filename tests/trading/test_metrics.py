"""Metrics in numbers worked out by hand, and what holds for any curve."""

import math
import statistics
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trading.scenarios import HOUR, closed_trade, decision, hourly, make_rules
from trading.candles import CandleSeries
from trading.metrics import (
    Floats,
    Metrics,
    Times,
    buy_and_hold,
    compute_metrics,
    daily_returns,
    drawdowns,
    thin_curve,
    total_costs,
)
from trading.orders import ExitType
from trading.simulation import replay

DAY = 24 * HOUR
CURVES = st.lists(st.floats(1, 1e6), min_size=1, max_size=100)


def daily(count: int) -> Times:
    return np.arange(count, dtype=np.int64) * DAY


def measure(
    equity: list[float],
    *,
    pnls: tuple[float, ...] = (),
    times: Times | None = None,
    timeframe_ms: int = DAY,
    benchmark: Floats | None = None,
    **more: Any,
) -> Metrics:
    points = np.array(equity, dtype=np.float64)
    return compute_metrics(
        daily(len(equity)) if times is None else times,
        points,
        more.get("trades", [closed_trade(pnl) for pnl in pnls]),
        exposed_candles=more.get("exposed", 0),
        starting_capital=100.0,
        timeframe_ms=timeframe_ms,
        benchmark=benchmark,
    )


def test_return_growth_and_drawdown():
    metrics = measure([110, 99, 121])
    assert metrics.total_return == pytest.approx(0.21)
    assert metrics.cagr == pytest.approx(1.21 ** (365 / 3) - 1)
    assert metrics.max_drawdown == pytest.approx(0.1)
    assert metrics.calmar == pytest.approx((1.21 ** (365 / 3) - 1) / 0.1)


def test_a_drawdown_from_the_starting_capital_counts():
    assert measure([80, 90]).max_drawdown == pytest.approx(0.2)


def test_ratios_of_daily_returns():
    metrics = measure([110, 99, 118.8])
    returns = [0.1, -0.1, 0.2]
    mean, spread = 0.2 / 3, statistics.stdev(returns)
    assert metrics.daily_returns == 3
    assert metrics.sharpe == pytest.approx(mean / spread * math.sqrt(365))
    assert metrics.sortino == pytest.approx(mean / math.sqrt(0.01 / 3) * math.sqrt(365))
    assert metrics.volatility == pytest.approx(spread * math.sqrt(365))


def test_probabilistic_sharpe_ratio():
    returns = [0.1, -0.1, 0.2]
    mean, spread = statistics.mean(returns), statistics.stdev(returns)
    ratio, variance = mean / spread, statistics.pvariance(returns)
    skewness = sum((r - mean) ** 3 for r in returns) / 3 / variance**1.5
    kurtosis = sum((r - mean) ** 4 for r in returns) / 3 / variance**2
    error = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    expected = statistics.NormalDist().cdf(ratio * math.sqrt(2) / math.sqrt(error))
    assert measure([110, 99, 118.8]).probabilistic_sharpe == pytest.approx(expected)


def test_a_daily_return_belongs_to_the_day_of_the_candles_open():
    times = np.array([22, 23, 24, 25, 80], dtype=np.int64) * HOUR
    returns = daily_returns(times, np.array([90.0, 110.0, 120.0, 121.0, 60.5]), 100.0)
    assert returns.tolist() == pytest.approx([0.1, 0.1, -0.5])


def test_thirty_daily_returns_are_a_sample():
    assert measure([100 + i % 3 for i in range(29)]).low_sample
    assert not measure([100 + i % 3 for i in range(30)]).low_sample


def test_trades():
    metrics = measure([100], pnls=(30, -10, 20, 0, -20))
    assert metrics.win_rate == pytest.approx(0.4)
    assert metrics.profit_factor == pytest.approx(50 / 30)
    assert metrics.expectancy == pytest.approx(0.4 * 25 - 0.6 * 10)
    spread = statistics.stdev([30, -10, 20, 0, -20])
    assert metrics.sqn == pytest.approx(math.sqrt(5) * 4 / spread)
    assert metrics.kelly == pytest.approx(0.4 - 0.6 / (25 / 10))
    assert (metrics.best_trade_pnl, metrics.worst_trade_pnl) == (30, -20)
    assert metrics.average_trade_pnl == pytest.approx(4)


def test_holding_time_and_exposure():
    trades = [closed_trade(1, hours=2), closed_trade(1, hours=4)]
    metrics = measure([100, 100, 100, 100], trades=trades, exposed=3)
    assert metrics.average_holding_ms == 3 * HOUR
    assert metrics.exposure == 0.75


@pytest.mark.parametrize(
    ("equity", "days"),
    [
        ([100, 100, 100], 0),
        ([90, 95, 100], 3),
        ([110, 100, 105, 110, 120], 3),
        ([110, 100, 110, 100, 105, 100], 3),
        ([110, 100, 100, 120, 110, 119, 110, 100], 4),
    ],
)
def test_the_longest_drawdown_runs_from_a_high_until_it_is_regained(equity: list[float], days: int):
    assert measure(equity).longest_drawdown_ms == days * DAY


def test_without_a_loss_there_is_no_profit_factor():
    metrics = measure([100], pnls=(10, 20))
    assert metrics.profit_factor is None
    assert metrics.kelly is None
    assert metrics.win_rate == 1


def test_without_a_win_there_is_no_kelly():
    metrics = measure([100], pnls=(-10, -20))
    assert metrics.profit_factor == 0
    assert metrics.kelly is None
    assert metrics.expectancy == -15


def test_a_test_without_candles_has_no_metrics():
    metrics = asdict(measure([]))
    assert metrics.pop("daily_returns") == 0
    assert metrics.pop("low_sample") is True
    assert set(metrics.values()) == {None}


def test_a_flat_curve_has_no_ratios():
    metrics = measure([100] * 40)
    assert (metrics.total_return, metrics.max_drawdown, metrics.volatility) == (0, 0, 0)
    assert (metrics.sharpe, metrics.sortino, metrics.calmar) == (None, None, None)
    assert metrics.probabilistic_sharpe is None


def test_steady_growth_has_no_sharpe_ratio_made_of_rounding():
    metrics = measure([100 * 1.01**i for i in range(1, 40)])
    assert (metrics.sharpe, metrics.sortino, metrics.probabilistic_sharpe) == (None, None, None)


def test_equal_trades_have_no_sqn():
    assert measure([100], pnls=(0.1, 0.1, 0.1)).sqn is None


def test_growth_too_fast_for_a_float_is_none():
    assert measure([200], timeframe_ms=1000).cagr is None


def test_used_up_equity_has_no_ratios():
    metrics = measure([50, -10, -20])
    assert metrics.total_return == pytest.approx(-1.2)
    assert metrics.max_drawdown == pytest.approx(1.2)
    assert (metrics.cagr, metrics.sharpe, metrics.daily_returns) == (None, None, 0)


@given(
    equity=st.lists(st.floats(-1e12, 1e12), max_size=60),
    pnls=st.lists(st.floats(-1e12, 1e12), max_size=30),
    timeframe=st.sampled_from([60_000, HOUR, DAY]),
)
def test_a_metric_is_a_finite_number_or_none(
    equity: list[float], pnls: list[float], timeframe: int
):
    times = np.arange(len(equity), dtype=np.int64) * timeframe
    metrics = measure(equity, pnls=tuple(pnls), times=times, timeframe_ms=timeframe)
    for name, value in asdict(metrics).items():
        assert value is None or math.isfinite(value), name


@given(equity=CURVES, factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_drawdown_ignores_scale_and_a_new_high(equity: list[float], factor: float):
    points = np.array(equity)
    depths = drawdowns(points, 100.0)
    assert drawdowns(points * factor, 100.0 * factor) == pytest.approx(depths)
    assert ((depths >= 0) & (depths <= 1)).all()
    higher = np.append(points, points.max() + 100)
    assert drawdowns(higher, 100.0).max() == depths.max()


# Buy and hold


def test_buy_and_hold_pays_like_anybody_else():
    series = CandleSeries.from_candles(hourly((100, 101, 99, 100), (100, 121, 99, 120)))
    rules = make_rules(fee_rate=0.001, slippage_rate=0.01)
    size = 10_000 / 101
    equity = buy_and_hold(series, rules)
    assert equity[0] == pytest.approx(10_000 + size * (100 - 101) - 10)
    assert equity[1] == pytest.approx(10_000 + size * (118.8 - 101) - 10 - 0.001 * size * 118.8)


def test_buy_and_hold_is_a_long_of_all_capital():
    prices = [(100 + i, 103 + i, 98 + i, 101 + i) for i in range(10)]
    candles = hourly((100, 100, 100, 100), *prices)
    rules = make_rules(fee_rate=0.001, slippage_rate=0.01)
    traded = replay(CandleSeries.from_candles(candles), {0: decision("long", size=1.0)}, rules)
    held = buy_and_hold(CandleSeries.from_candles(candles[1:]), rules)
    assert traded.equity[1:].tolist() == pytest.approx(held.tolist())


def test_the_excess_return_is_counted_against_buy_and_hold():
    metrics = measure([110, 120], benchmark=np.array([100.0, 150.0]))
    assert metrics.buy_and_hold_return == pytest.approx(0.5)
    assert metrics.excess_return == pytest.approx(-0.3)


def test_nothing_can_be_held_without_candles():
    assert buy_and_hold(CandleSeries.from_candles([]), make_rules()).size == 0


# Costs


def test_costs_explain_the_way_from_prices_to_equity():
    candles = hourly((100, 101, 99, 100), (100, 112, 99, 110))
    rules = make_rules(fee_rate=0.001, slippage_rate=0.01)
    series, decisions = CandleSeries.from_candles(candles), {0: decision("long", size=1.0)}
    for ending in (None, ExitType.END_OF_TEST):
        result = replay(series, decisions, rules, ending=ending)
        costs = total_costs(result.state, 110.0)
        assert costs.gross_pnl == pytest.approx(10_000 / 101 * 10)
        net = costs.gross_pnl - costs.fees - costs.slippage
        assert result.equity[-1] == pytest.approx(10_000 + net)


# The curve that is stored


@given(equity=st.lists(st.floats(1, 1e6), min_size=1, max_size=400), limit=st.integers(6, 50))
def test_a_thinned_curve_keeps_its_extremes(equity: list[float], limit: int):
    points = np.array(equity)
    kept = thin_curve(daily(len(equity)), points, limit, starting_capital=100.0)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(limit, 0)
    assert kept[0] == 0
    assert kept[-1] == len(equity) - 1
    thinned = points[kept]
    assert thinned.max() == points.max()
    assert thinned.min() == points.min()
    depths = drawdowns(points, 100.0)
    assert int(np.argmax(depths)) in kept
    assert drawdowns(thinned, 100.0).max() <= depths.max()


@given(
    steps=st.lists(st.integers(-50, 50), min_size=20, max_size=300),
    pauses=st.lists(st.sampled_from([1, 1, 1, 30]), min_size=300, max_size=300),
    limit=st.integers(6, 60),
)
def test_no_extreme_is_further_from_the_thinned_curve_than_a_stretch(
    steps: list[int], pauses: list[int], limit: int
):
    equity = 10_000.0 + np.cumsum(steps)
    times = np.cumsum(pauses[: len(steps)]) * HOUR
    kept = thin_curve(times, equity, limit, starting_capital=10_000.0)
    stretch = (times[-1] - times[0]) / max((limit - 4) // 2, 1)
    for time, value in zip(times, equity, strict=True):
        beside = equity[[index for index in kept if abs(times[index] - time) <= stretch]]
        assert beside.min() <= value <= beside.max()


def test_the_deepest_trough_is_kept_although_it_is_nowhere_lowest():
    equity = np.array([10.0, 11, 100, 20] + [100.0] * 16)
    assert thin_curve(daily(20), equity, 6, starting_capital=10.0) == [0, 2, 3, 19]


def test_a_short_curve_is_kept_whole():
    assert thin_curve(daily(5), np.array([1.0, 2, 3, 2, 1])) == [0, 1, 2, 3, 4]


def test_a_long_curve_is_thinned_evenly_in_time():
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.choice([1, 1, 1, 500], size=50_000)) * HOUR
    equity = 10_000 * np.exp(np.cumsum(rng.normal(0, 0.01, 50_000)))
    kept = thin_curve(times, equity)
    assert 500 < len(kept) <= 1000
    assert np.diff(times[kept]).max() < (times[-1] - times[0]) / 200
