"""Metrics beside libraries that others wrote: empyrical, backtesting.py and SciPy.

`docs/trading-rules.md` says where their definitions differ, and why.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.candle_files import read_candle_file
from tests.trading.scenarios import closed_trade, make_rules
from trading.candles import CandleSeries, Timeframe
from trading.decisions import Action, Decision, OrderTerms
from trading.metrics import Floats, Metrics, Times, compute_metrics, daily_returns
from trading.orders import Trade
from trading.rules import Mode
from trading.simulation import replay


# Slow to import, and collected by every process of the suite.
@cache
def empyrical() -> ModuleType:
    return quietly_imported("empyrical")


@cache
def backtesting_statistics() -> ModuleType:
    return quietly_imported("backtesting._stats")


@cache
def moments() -> ModuleType:
    return quietly_imported("scipy.stats")


def quietly_imported(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


CAPITAL = 10_000.0
DAY_MS = 86_400_000
YEAR = 365
# Real candles differ by far more than rounding; of random ones, sums may cancel down to it.
RELATIVE, ROUNDING = 1e-9, 1e-9

Decisions = dict[int, Decision]


# Agents that ask no model


def holds(series: CandleSeries) -> Decisions:
    return {0: Decision(action=Action.LONG, order=OrderTerms(size=1.0))}


def flips(series: CandleSeries, every: int = 7) -> Decisions:
    turns = (Action.LONG, Action.CLOSE, Action.SHORT, Action.CLOSE)
    orders = [OrderTerms(size=0.5), None] * 2
    return {
        index: Decision(action=turns[index // every % 4], order=orders[index // every % 4])
        for index in range(0, len(series), every)
    }


def shorts(series: CandleSeries) -> Decisions:
    terms = OrderTerms(size=0.4, stop_loss_distance=0.04, take_profit_distance=0.03)
    return dict.fromkeys(range(len(series)), Decision(action=Action.SHORT, order=terms))


def follows(series: CandleSeries, every: int = 3) -> Decisions:
    terms = OrderTerms(stop_loss_distance=0.015, take_profit_distance=0.02)
    rises = np.append(np.zeros(6), series.close[6:] - series.close[:-6]) > 0
    return {
        index: Decision(action=Action.LONG if rises[index] else Action.SHORT, order=terms)
        for index in range(0, len(series), every)
    }


AGENTS: dict[str, tuple[Callable[[CandleSeries], Decisions], Mode]] = {
    "buys and holds": (holds, Mode.OMNI),
    "flips": (flips, Mode.OMNI),
    "is always short": (shorts, Mode.OMNI),
    "follows the trend, omni": (follows, Mode.OMNI),
    "follows the trend, monk": (follows, Mode.MONK),
}

# A year or so of each: the file, its timeframe, the first candle, their number, all at midnight.
MARKETS = {
    "BTC 1h": ("BTCUSDT_1h.csv", Timeframe.HOUR_1, 24 * 40, 24 * 300),
    "ETH 1h": ("ETHUSDT_1h.csv", Timeframe.HOUR_1, 24 * 1_000, 24 * 200),
    "SOL 1h": ("SOLUSDT_1h.csv", Timeframe.HOUR_1, 17 + 24 * 400, 24 * 200),
    "BTC 4h": ("BTCUSDT_4h.csv", Timeframe.HOURS_4, 6 * 500, 6 * 700),
    "BTC 1d": ("BTCUSDT_1d.csv", Timeframe.DAY_1, 0, 1_500),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A test that was replayed: a point of equity per candle, at its close, and its trades."""

    open_times: Times
    equity: Floats
    trades: tuple[Trade, ...]
    timeframe_ms: int

    def metrics(self) -> Metrics:
        return compute_metrics(
            self.open_times,
            self.equity,
            self.trades,
            exposed_candles=0,
            starting_capital=CAPITAL,
            timeframe_ms=self.timeframe_ms,
        )

    def points(self) -> Floats:
        """The capital, and then equity at each close."""
        return np.concatenate(([CAPITAL], self.equity))

    def by_day(self) -> Floats:
        """pandas' way to daily returns: the last value of each day that has one."""
        opens = pd.to_datetime(self.open_times, unit="ms", utc=True)
        closes = pd.Series(self.equity, index=opens).resample("D").last().dropna()
        returns: Floats = empyrical().simple_returns(np.concatenate(([CAPITAL], closes)))
        return returns

    def by_candle(self) -> Floats:
        returns: Floats = empyrical().simple_returns(self.points())
        return returns

    def candles_per_year(self) -> float:
        """What empyrical is told in place of calendar days: it counts returns."""
        span = int(self.open_times[-1] - self.open_times[0]) + self.timeframe_ms
        return YEAR * self.equity.size * DAY_MS / span


@pytest.fixture(scope="module")
def markets(candle_files: Path) -> dict[str, CandleSeries]:
    return {name: market(candle_files, *of) for name, of in MARKETS.items()}


def market(files: Path, name: str, timeframe: Timeframe, first: int, count: int) -> CandleSeries:
    series = read_candle_file(files / name, name, timeframe).slice(first, first + count)
    assert len(series) == count
    assert series.open_time[0] % DAY_MS == 0
    return series


def run(series: CandleSeries, agent: str) -> Replayed:
    decide, mode = AGENTS[agent]
    timeframe_ms = int(series.open_time[1] - series.open_time[0])
    rules = make_rules(
        mode=mode,
        starting_capital=CAPITAL,
        timeframe_ms=timeframe_ms,
        fee_rate=0.0004,
        slippage_rate=0.0002,
        max_loss_per_trade=0.05,
    )
    result = replay(series, decide(series), rules)
    return Replayed(
        open_times=series.open_time,
        equity=result.equity,
        trades=result.trades,
        timeframe_ms=timeframe_ms,
    )


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("name", MARKETS)
def test_real_curves_have_the_metrics_of_the_libraries(
    markets: dict[str, CandleSeries], name: str, agent: str
):
    played = run(markets[name], agent)
    metrics = played.metrics()
    assert metrics.daily_returns > 180
    assert len(played.trades) == 1 if agent == "buys and holds" else len(played.trades) > 25
    theirs = empyricals(played) | probability(played) | backtestings(played)
    assert len(theirs) == 18
    assert values(metrics, theirs) == approx_or_none(theirs, rounding=0)


@pytest.mark.parametrize("name", MARKETS)
def test_over_whole_days_a_year_is_365_daily_returns(markets: dict[str, CandleSeries], name: str):
    played = run(markets[name], "flips")
    assert played.candles_per_year() == YEAR * DAY_MS / played.timeframe_ms
    theirs = empyrical().cagr(played.by_day(), annualization=YEAR)
    assert played.metrics().cagr == pytest.approx(theirs, rel=RELATIVE)


def test_daily_candles_have_the_calmar_ratio_of_daily_returns(markets: dict[str, CandleSeries]):
    played = run(markets["BTC 1d"], "follows the trend, omni")
    theirs = empyrical().calmar_ratio(played.by_day(), annualization=YEAR)
    assert played.metrics().calmar == pytest.approx(theirs, rel=RELATIVE)


def test_within_days_a_drawdown_is_deeper_than_their_closes_show(
    markets: dict[str, CandleSeries],
):
    played = run(markets["BTC 1h"], "buys and holds")
    of_days = -empyrical().max_drawdown(played.by_day())
    deepest = played.metrics().max_drawdown
    assert deepest is not None
    assert deepest > of_days + 0.001


# Curves that no market made


@st.composite
def curves(draw: st.DrawFn) -> Replayed:
    """Steps of whole basis points, at candles of any timeframe, some of which are missing."""
    timeframe_ms = draw(st.sampled_from([15 * 60_000, 3_600_000, 4 * 3_600_000, DAY_MS]))
    steps = draw(st.lists(st.integers(-500, 500), min_size=2, max_size=150))
    missing = draw(st.lists(st.sampled_from([1, 1, 1, 2, 40]), min_size=len(steps)))
    first = draw(st.integers(0, 95)) * timeframe_ms
    times = first + (np.cumsum(missing[: len(steps)]) - missing[0]) * timeframe_ms
    return Replayed(
        open_times=times.astype(np.int64),
        equity=np.array(CAPITAL * np.cumprod(1 + np.array(steps) / 10_000), dtype=np.float64),
        trades=(),
        timeframe_ms=timeframe_ms,
    )


@given(curve=curves())
def test_random_curves_have_the_metrics_of_the_libraries(curve: Replayed):
    metrics, days = curve.metrics(), curve.by_day()
    ours = daily_returns(curve.open_times, curve.equity, CAPITAL)
    np.testing.assert_allclose(ours, days, rtol=RELATIVE, atol=1e-15)
    theirs = empyricals(curve) | probability(curve)
    if days.size == 1:  # defined, but they want two
        theirs["sortino"] = None if days[0] >= 0 else -math.sqrt(YEAR)
    elif np.ptp(days) < 1e-12:  # equal but for rounding, of which they make a ratio
        theirs |= {"sharpe": None, "probabilistic_sharpe": None}
    assert values(metrics, theirs) == approx_or_none(theirs)


@st.composite
def outcomes(draw: st.DrawFn) -> Floats:
    """Net results of trades in cents; none is 0, which backtesting.py counts on neither side."""
    cents = st.integers(-1_000_000, 1_000_000).filter(bool)
    return np.array(draw(st.lists(cents, min_size=2, max_size=60)), dtype=np.float64) / 100


@given(pnl=outcomes())
def test_random_trades_have_the_metrics_of_a_library(pnl: Floats):
    times = np.arange(3, dtype=np.int64) * DAY_MS
    trades = tuple(closed_trade(float(each)) for each in pnl)
    curve = Replayed(
        open_times=times, equity=np.full(3, CAPITAL), trades=trades, timeframe_ms=DAY_MS
    )
    theirs = of_trades(curve)
    if np.ptp(pnl) == 0:
        theirs["sqn"] = None
    assert values(curve.metrics(), theirs) == approx_or_none(theirs)


# What the libraries say


def empyricals(played: Replayed) -> dict[str, Any]:
    days, candles = played.by_day(), played.by_candle()
    per_year = played.candles_per_year()
    with np.errstate(all="ignore"):
        return {
            "total_return": empyrical().cum_returns_final(days),
            "cagr": empyrical().cagr(candles, annualization=per_year),
            "max_drawdown": -empyrical().max_drawdown(candles),
            "calmar": empyrical().calmar_ratio(candles, annualization=per_year),
            "sharpe": empyrical().sharpe_ratio(days, annualization=YEAR),
            "sortino": empyrical().sortino_ratio(days, annualization=YEAR),
            "volatility": empyrical().annual_volatility(days, annualization=YEAR),
            "daily_returns": days.size,
        }


def probability(played: Replayed) -> dict[str, Any]:
    """The paper's formula over SciPy's moments and distribution."""
    days = played.by_day()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of moments that mean nothing
        ratio = empyrical().sharpe_ratio(days, annualization=1)
        skewness, kurtosis = moments().skew(days), moments().kurtosis(days, fisher=False)
        error = np.sqrt(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2)
        return {"probabilistic_sharpe": moments().norm.cdf(ratio * np.sqrt(days.size - 1) / error)}


def backtestings(played: Replayed) -> dict[str, Any]:
    """Of the whole test: its statistics go from the first point on, so that is the capital."""
    stats = statistics(played)
    return of_trades(played) | {
        "total_return": stats["Return [%]"] / 100,
        "max_drawdown": -stats["Max. Drawdown [%]"] / 100,
        "longest_drawdown_ms": stats["Max. Drawdown Duration"] / pd.Timedelta(milliseconds=1),
    }


def of_trades(played: Replayed) -> dict[str, Any]:
    stats = statistics(played)
    return {
        "win_rate": stats["Win Rate [%]"] / 100,
        "profit_factor": stats["Profit Factor"],
        "sqn": stats["SQN"],
        "kelly": stats["Kelly Criterion"],
        "expectancy": stats["Expectancy [%]"] / 100,
        "average_trade_pnl": stats["Expectancy [%]"] / 100,
        "best_trade_pnl": stats["Best Trade [%]"] / 100,
        "worst_trade_pnl": stats["Worst Trade [%]"] / 100,
    }


def statistics(played: Replayed) -> Any:
    """Trades are told by what they earned, where the library would take shares of their price."""
    closes = played.open_times + played.timeframe_ms
    index = pd.to_datetime(np.concatenate((played.open_times[:1], closes)), unit="ms")
    pnl = [trade.pnl_amount for trade in played.trades]
    frame = pd.DataFrame({"PnL": pnl, "ReturnPct": pnl})
    frame["Duration"] = pd.Timedelta(hours=1)
    frame[["EntryBar", "ExitBar"]] = 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        prices = pd.DataFrame({"Close": np.ones(len(index))}, index=index)
        return backtesting_statistics().compute_stats(frame, played.points(), prices, None)


def values(metrics: Metrics, names: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(metrics, name) for name in names}


def approx_or_none(theirs: dict[str, Any], rounding: float = ROUNDING) -> dict[str, Any]:
    """What is no number to them is None to us."""
    return {
        name: pytest.approx(value, rel=RELATIVE, abs=rounding)
        if value is not None and math.isfinite(value)
        else None
        for name, value in theirs.items()
    }
