"""The backtest of a demo: its candles stored, the test started, and watched to its end."""

import asyncio
from dataclasses import dataclass

from db.engine import Database
from local.demo_agent import Brain
from local.demo_client import Json
from local.demo_market import Market, Span, check_served, store_simulated, upload
from local.demo_session import DemoSession, result_of, say_goodbye, watch_to_end
from local.demo_tour import Tour
from local.demo_view import LINES_OF_PROGRESS, Standing, backtest_drawing, counted
from local.stack import command_settings
from trading.candles import CandleSeries

STARTING_CAPITAL = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What is tested on which of a market's candles; its progress takes so many lines."""

    market: Market
    traded: CandleSeries
    agent: Json
    brain: Brain
    lines: int = LINES_OF_PROGRESS

    @property
    def request(self) -> Json:
        span = Span.of(self.traded, self.market.timeframe)
        return {
            "agent_id": self.agent["id"],
            "asset": self.market.asset,
            "timeframe": self.market.timeframe.value,
            "data_source": self.market.source,
            "start_date": span.start.isoformat(),
            "end_date": span.end.isoformat(),
            "starting_capital": STARTING_CAPITAL,
            "playback_speed": "instant",
            **self.brain.terms,
        }


async def store_candles(tour: Tour, market: Market) -> None:
    with tour.view.waiting(lambda: f"Storing {counted(len(market.series), 'candle')}"):
        if market.file is None:
            await _store_simulated(tour, market)
        else:
            await upload(market, tour.client)
    tour.view.step("Candles", market.description)


async def run_backtest(tour: Tour, backtest: Backtest) -> tuple[DemoSession, str]:
    """Run it and show it; the test, and the id of its result. Raises `DemoFailed`."""
    await check_served(backtest.market, backtest.traded, tour.client)
    started = (await tour.client.post("/api/arena/backtest/start", backtest.request))["session"]
    tour.view.step("Backtest", _terms(backtest, started))
    session = DemoSession(id=started["id"], type="backtest")
    start = Standing(total_candles=started["total_candles"], equity=STARTING_CAPITAL)
    try:
        standing = await watch_to_end(tour, session, backtest_drawing(start, backtest.lines))
    except asyncio.CancelledError:
        say_goodbye(tour, session, "You left; the backtest goes on to its end without you.")
        raise
    return session, result_of(tour, session, standing)


def _terms(backtest: Backtest, started: Json) -> str:
    span = Span.of(backtest.traded, backtest.market.timeframe)
    every = started["decision_interval_candles"]
    return (
        f"{counted(started['total_candles'], 'candle')}, {span.start:%Y-%m-%d %H:%M} to "
        f"{span.end:%Y-%m-%d %H:%M} UTC, a decision every "
        f"{'candle' if every == 1 else f'{every} candles'}"
    )


async def _store_simulated(tour: Tour, market: Market) -> None:
    settings = command_settings(tour.directory)
    database = Database.connect(
        settings["DATABASE_URL"], system_url=settings.get("DATABASE_SYSTEM_URL")
    )
    try:
        await store_simulated(market, database)
    finally:
        await database.dispose()
