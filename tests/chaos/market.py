"""The candles that the kills happen on: real ones, else those of the simulated market."""

import os
from pathlib import Path

import numpy as np

from local.simulators.exchange import simulated_candles
from tests.chaos.plans import FIRST_CANDLE
from trading.candles import CandleSeries, Timeframe

REAL_FILE = "BTCUSDT_1h.csv"
_SIMULATED = 37_660
_BEFORE_START_MS = 5_000 * Timeframe.HOUR_1.milliseconds


def candle_file(directory: Path) -> Path:
    """The file of real candles where it lies, or a simulated one, written to `directory`."""
    shared = Path(__file__).parents[3] / "shared" / "data"
    real = Path(os.environ.get("ALPHALAB_DATA", shared)) / REAL_FILE
    return real if real.exists() else _simulated_file(directory / "simulated.csv")


def rising_file(directory: Path) -> Path:
    """Candles of which each is a thousandth dearer, with some before the first one tested."""
    first_ms, length = int(FIRST_CANDLE.timestamp() * 1000), Timeframe.HOUR_1.milliseconds
    close = 20_000 * np.cumprod(np.full(600, 1.001))
    series = CandleSeries(
        open_time=first_ms + length * np.arange(-400, 200),
        open=close / 1.001,
        high=close,
        low=close / 1.001,
        close=close,
        volume=np.full(600, 10.0),
    )
    return _written(directory / "rising.csv", series)


def _simulated_file(path: Path) -> Path:
    series = simulated_candles(
        "BTC/USDT",
        Timeframe.HOUR_1,
        start_ms=int(FIRST_CANDLE.timestamp() * 1000) - _BEFORE_START_MS,
        count=_SIMULATED,
        seed=1,
    )
    return _written(path, series)


def _written(path: Path, series: CandleSeries) -> Path:
    lines = [",".join(repr(value) for value in row) for row in series.rows()]
    path.write_text("\n".join(["time,open,high,low,close,volume", *lines]))
    return path
