"""The candles that the kills happen on: real ones, else those of the simulated market."""

import os
from pathlib import Path

from local.simulators.exchange import simulated_candles
from tests.chaos.plans import FIRST_CANDLE
from trading.candles import Timeframe

REAL_FILE = "BTCUSDT_1h.csv"
_SIMULATED = 37_660
_BEFORE_START_MS = 5_000 * Timeframe.HOUR_1.milliseconds


def candle_file(directory: Path) -> Path:
    """The file of real candles where it lies, or a simulated one, written to `directory`."""
    shared = Path(__file__).parents[3] / "shared" / "data"
    real = Path(os.environ.get("ALPHALAB_DATA", shared)) / REAL_FILE
    return real if real.exists() else _simulated_file(directory / "simulated.csv")


def _simulated_file(path: Path) -> Path:
    series = simulated_candles(
        "BTC/USDT",
        Timeframe.HOUR_1,
        start_ms=int(FIRST_CANDLE.timestamp() * 1000) - _BEFORE_START_MS,
        count=_SIMULATED,
        seed=1,
    )
    lines = [",".join(repr(value) for value in row) for row in series.rows()]
    path.write_text("\n".join(["time,open,high,low,close,volume", *lines]))
    return path
