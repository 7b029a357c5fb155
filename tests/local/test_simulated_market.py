"""The simulated market is the same every time, and looks enough like one."""

import numpy as np
import pytest

from local.simulators.exchange import simulated_candles
from trading.candles import Timeframe

START = 1_577_836_800_000


@pytest.mark.parametrize("timeframe", list(Timeframe))
@pytest.mark.parametrize("asset", ["BTC/USDT", "DOGE/USDT", "SHIB/EUR"])
def test_its_candles_are_valid_and_without_gaps(asset: str, timeframe: Timeframe):
    series = simulated_candles(asset, timeframe, start_ms=START + 1, count=3000, seed=5)
    series.validate(timeframe)
    assert series.gaps(timeframe) == 0
    assert START < series.open_time[0] <= START + timeframe.milliseconds


def test_more_candles_begin_with_the_same_ones():
    longer, shorter = (
        simulated_candles("BTC/USDT", Timeframe.HOUR_1, start_ms=START, count=count, seed=9)
        for count in (5000, 1234)
    )
    assert list(longer.slice(0, 1234).rows()) == list(shorter.rows())


def test_another_seed_asset_timeframe_or_start_is_another_market():
    def moves(asset: str, timeframe: Timeframe, start: int, seed: int) -> bytes:
        series = simulated_candles(asset, timeframe, start_ms=start, count=50, seed=seed)
        return np.sign(np.diff(series.close)).tobytes()

    hour, day = Timeframe.HOUR_1, Timeframe.DAY_1
    different = {
        moves("BTC/USDT", hour, START, 1),
        moves("BTC/USDT", hour, START, 2),
        moves("ETH/USDT", hour, START, 1),
        moves("BTC/USDT", day, START, 1),
        moves("BTC/USDT", hour, START + day.milliseconds, 1),
    }
    assert len(different) == 5


@pytest.mark.parametrize("seed", range(4))
def test_its_returns_have_fat_tails_and_clustered_volatility(seed: int):
    series = simulated_candles(
        "BTC/USDT", Timeframe.HOUR_1, start_ms=START, count=20_000, seed=seed
    )
    returns = np.diff(np.log(series.close))
    size = np.abs(returns)
    kurtosis = np.mean((returns - returns.mean()) ** 4) / returns.var() ** 2
    assert 0.004 < returns.std() < 0.02
    assert kurtosis > 4
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.15
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 0.1
    assert 1_000 < series.close.min() < series.close.max() < 1_000_000


def test_no_candles_can_be_asked_for():
    assert len(simulated_candles("BTC/USDT", Timeframe.DAY_1, start_ms=0, count=0, seed=1)) == 0
