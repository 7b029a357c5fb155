"""The simulated market: candles of a seeded random walk, labelled so wherever a person sees them.

A walk of the price's logarithm with regimes that come and go, volatility that clusters, a jump now
and then, and a slow pull home that keeps long series in range. More candles from the same start
begin with the same candles.

`simulated_candles` makes one series of any length of candle. `market_week` makes the minutes of a
market that goes on for ever: any week of it alone, since the weeks meet at prices drawn beforehand.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.candles import Candle, CandleSeries, Timeframe

SIMULATED_SOURCE = "simulated"
WEEK_MINUTES = 7 * Timeframe.DAY_1.minutes
WEEK_MS = 7 * Timeframe.DAY_1.milliseconds

_HOME_PRICES = {"BTC/USDT": 30_000.0, "ETH/USDT": 2_000.0, "SOL/USDT": 60.0, "BNB/USDT": 300.0}
_MINUTE_VOLATILITY = 0.0009
_PULL_HOME = 0.0004
_SWITCHES = 0.012
_JUMPS = 0.0015
_CLUSTER_SHOCK, _CLUSTER_MEMORY = 0.08, 0.90
_WEEKS_VOLATILITY = 0.06
_SIGNIFICANT_DIGITS = 7
_DRAWS = 6
_SWITCH, _REGIME, _JUMP = range(3)
_MOVE, _UPPER, _LOWER, _GAP, _VOLUME, _JUMP_SIZE = range(_DRAWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regime:
    """Drift per candle and volatility, both against the usual volatility."""

    drift: float
    volatility: float


_REGIMES = (
    _Regime(drift=0.0, volatility=0.6),
    _Regime(drift=0.07, volatility=0.9),
    _Regime(drift=-0.07, volatility=1.0),
    _Regime(drift=-0.16, volatility=2.0),
    _Regime(drift=0.14, volatility=1.6),
)


def simulated_candles(
    asset: str, timeframe: Timeframe, *, start_ms: int, count: int, seed: int
) -> CandleSeries:
    """`count` candles of no real market from the first opening at or after `start_ms`."""
    chances, shocks = _draws(f"{seed}:{asset}:{timeframe}:{start_ms}", count)
    home = _home(asset)
    usual = _MINUTE_VOLATILITY * math.sqrt(timeframe.minutes)
    moves, volatility = _walk(chances, shocks, usual)
    close = home * np.exp(moves)
    open_ = np.concatenate(([home], close[:-1])) * np.exp(0.02 * volatility * shocks[:, _GAP])
    body = np.stack((open_, close))
    reach = 0.6 * volatility * np.abs(shocks[:, (_UPPER, _LOWER)].T)
    activity = np.abs(np.log(close / open_)) / usual + reach.sum(axis=0) / usual
    step = timeframe.milliseconds
    first = -(-start_ms // step) * step
    decimals = _decimals(home)
    return CandleSeries(
        open_time=first + step * np.arange(count, dtype=np.int64),
        open=_priced(open_, decimals),
        high=_priced(body.max(axis=0) * np.exp(reach[0]), decimals),
        low=_priced(body.min(axis=0) * np.exp(-reach[1]), decimals),
        close=_priced(close, decimals),
        volume=np.round(
            timeframe.minutes * 1e6 / home * (0.4 + activity) * np.exp(0.4 * shocks[:, _VOLUME]), 3
        ),
    )


def market_week(asset: str, week: int, *, seed: int) -> CandleSeries:
    """The 10,080 minutes of a week of the endless market; weeks are counted from the UTC epoch."""
    walk = simulated_candles(
        asset, Timeframe.MINUTE_1, start_ms=week * WEEK_MS, count=WEEK_MINUTES, seed=seed
    )
    home = _home(asset)
    before, after = (_meeting_point(asset, number, seed) for number in (week, week + 1))
    missed = after - before - math.log(walk.close[-1] / home)
    bend = np.exp(before + missed * np.linspace(0.0, 1.0, WEEK_MINUTES + 1))
    decimals = _decimals(home)
    open_ = _priced(walk.open * bend[:-1], decimals)
    close = _priced(walk.close * bend[1:], decimals)
    high = _priced(walk.high * np.maximum(bend[:-1], bend[1:]), decimals)
    low = _priced(walk.low * np.minimum(bend[:-1], bend[1:]), decimals)
    return CandleSeries(
        open_time=walk.open_time,
        open=open_,
        high=np.maximum(high, np.maximum(open_, close)),
        low=np.minimum(low, np.minimum(open_, close)),
        close=close,
        volume=walk.volume,
    )


def aggregated(minutes: CandleSeries, timeframe: Timeframe) -> CandleSeries:
    """Longer candles of the minutes that there are; one without any minute does not exist."""
    if not len(minutes):
        return minutes
    opened = minutes.open_time // timeframe.milliseconds * timeframe.milliseconds
    starts = np.flatnonzero(np.diff(opened, prepend=-1))
    ends = np.append(starts[1:], len(minutes)) - 1
    return CandleSeries(
        open_time=opened[starts],
        open=minutes.open[starts],
        high=np.maximum.reduceat(minutes.high, starts),
        low=np.minimum.reduceat(minutes.low, starts),
        close=minutes.close[ends],
        volume=np.asarray(np.round(np.add.reduceat(minutes.volume, starts), 3), dtype=np.float64),
    )


def begun(candle: Candle, elapsed: float, *, asset: str) -> Candle:
    """A candle after a part of its time, 0 to 1; a rising one is low first, then high."""
    rises = candle.close >= candle.open
    extremes = (candle.low, candle.high) if rises else (candle.high, candle.low)
    path = (candle.open, *extremes, candle.close)
    leg = min(int(elapsed * 3), 2)
    price = path[leg] + (path[leg + 1] - path[leg]) * (elapsed * 3 - leg)
    seen = (*path[: leg + 1], round(price, _decimals(_home(asset))))
    return Candle(
        open_time=candle.open_time,
        open=candle.open,
        high=max(seen),
        low=min(seen),
        close=seen[-1],
        volume=round(candle.volume * elapsed, 3),
    )


def _meeting_point(asset: str, week: int, seed: int) -> float:
    """The logarithm of the price against home, where a week begins."""
    digest = hashlib.sha256(f"{seed}:{asset}:week:{week}".encode()).digest()
    source = np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
    return _WEEKS_VOLATILITY * float(source.standard_normal())


def _draws(key: str, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Uniform and normal numbers, a row for each candle."""
    digest = hashlib.sha256(key.encode()).digest()
    uniform, normal = np.random.SeedSequence(int.from_bytes(digest)).spawn(2)
    return (
        np.random.Generator(np.random.PCG64(uniform)).random((count, 3)),
        np.random.Generator(np.random.PCG64(normal)).standard_normal((count, _DRAWS)),
    )


def _walk(
    chances: NDArray[np.float64], shocks: NDArray[np.float64], usual: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logarithm of each close against home, and each candle's volatility."""
    moves, volatilities = [], []
    regime, place, cluster = _REGIMES[0], 0.0, 1.0
    for chance, shock in zip(chances.tolist(), shocks.tolist(), strict=True):
        if chance[_SWITCH] < _SWITCHES:
            regime = _REGIMES[int(chance[_REGIME] * len(_REGIMES))]
        scale = regime.volatility * math.sqrt(cluster)
        jump = 4 * shock[_JUMP_SIZE] if chance[_JUMP] < _JUMPS else 0.0
        place += usual * (regime.drift + scale * (shock[_MOVE] + jump)) - _PULL_HOME * place
        cluster = (
            1 - _CLUSTER_SHOCK - _CLUSTER_MEMORY
            + _CLUSTER_SHOCK * shock[_MOVE] ** 2 * cluster
            + _CLUSTER_MEMORY * cluster
        )  # fmt: skip
        moves.append(place)
        volatilities.append(usual * scale)
    return np.array(moves), np.array(volatilities)


def _home(asset: str) -> float:
    """The price an asset is pulled to; from 0.1 to 1000, by its name, unless it has its own."""
    if asset in _HOME_PRICES:
        return _HOME_PRICES[asset]
    digest = hashlib.sha256(asset.encode()).digest()
    return float(10.0 ** (digest[0] / 64 - 1))


def _decimals(price: float) -> int:
    return max(0, min(8, _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(price))))


def _priced(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    """On the grid of prices, and at least one step above zero."""
    return np.maximum(np.round(values, decimals), 10.0**-decimals)
