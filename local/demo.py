"""`alphalab demo`: a backtest from nothing to its result, done as a user of the API does it."""

import time
from collections.abc import Callable

from local.data_directory import DataDirectory
from local.demo_agent import ensure_agent, find_brain
from local.demo_backtest import Backtest, run_backtest, store_candles
from local.demo_market import Market
from local.demo_report import alphalab_command
from local.demo_session import report_on
from local.demo_tour import Tour, run_tour

CANDLES_TRADED = 500
SIMULATED_MODEL = "simulated/momentum"


def run_demo(
    directory: DataDirectory,
    market: Market,
    *,
    sign_in: Callable[[], str],
    candles: int = CANDLES_TRADED,
) -> None:
    """Run a backtest of the market's newest candles and show it; `sign_in` as for a tour.

    Raises `DemoFailed`, and `ServerNotStarted` when there is no stack and none can be started.
    """
    run_tour(directory, lambda tour: _demo(tour, market, candles), sign_in=sign_in)


async def _demo(tour: Tour, market: Market, candles: int) -> None:
    brain = await find_brain(tour, SIMULATED_MODEL)
    agent = await ensure_agent(tour, brain, "Demo")
    await store_candles(tour, market)
    began = time.monotonic()
    session, result_id = await run_backtest(
        tour, Backtest(market=market, traded=market.newest(candles), agent=agent, brain=brain)
    )
    await report_on(
        tour,
        session,
        result_id,
        is_simulated_model=brain.is_simulated,
        seconds=time.monotonic() - began,
        file=market.file,
    )
    if market.file is None:
        real = ("--candles", "FILE", "--asset", "BTC/USDT", "--timeframe", "1h")
        tour.view.step("Real data", alphalab_command(tour.directory, "demo", *real))
