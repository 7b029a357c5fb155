"""`alphalab demo --forward`: a forward test on the simulated exchange, earned, watched, stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx

from local.data_directory import DataDirectory
from local.demo_agent import Brain, ensure_agent, find_brain
from local.demo_backtest import STARTING_CAPITAL, Backtest, run_backtest, store_candles
from local.demo_client import DemoFailed, Frame, Json
from local.demo_forward_view import Countdown, LiveStanding, live_drawing
from local.demo_market import Market, market_of
from local.demo_report import alphalab_command
from local.demo_session import (
    DemoSession,
    report_on,
    result_of,
    say_goodbye,
    stop,
    watch_to_end,
)
from local.demo_tour import Tour, run_tour
from local.demo_view import Standing, counted, signed
from trading.candles import CandleSeries, Timeframe

# At the stack's own exchange an hour then takes two seconds.
FAST: Final = {"SIMULATED_EXCHANGE_SPEED": "1800"}
# It needs no candles before the test's own, and soon there is a position to look at.
SIMULATED_MODEL = "simulated/always-long"
# A candle lasts at least so long here: time to look, and for a language model to answer.
SIMULATED_SECONDS, REAL_SECONDS = 2.0, 20.0
LEAST_SECONDS, SLOW_SECONDS = 0.5, 10.0

BACKTEST_CANDLES = 24
BACKTEST_LINES = 2
ATTEMPTS = 8
POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What to follow and for how long; without a timeframe the demo takes one.

    `market` is what the agent proves itself on before.
    """

    market: Market
    timeframe: Timeframe | None
    candles: int

    @classmethod
    def of(cls, asset: str | None, timeframe: str | None, candles: int) -> "Wishes":
        """What somebody wrote. Raises `TradingError`."""
        return cls(
            market=market_of(None, asset=asset, timeframe=None),
            timeframe=None if timeframe is None else Timeframe.parse(timeframe),
            candles=candles,
        )


def run_forward_demo(
    directory: DataDirectory, wishes: Wishes, *, sign_in: Callable[[], str]
) -> None:
    """Run a forward test and show it for some candles.

    A stack that has to be started gets an exchange with a fast clock. Raises `DemoFailed`, and
    `ServerNotStarted` when there is no stack and none can be started.
    """

    async def visit(tour: Tour) -> None:
        await _ForwardDemo(tour, wishes).run()

    run_tour(directory, visit, sign_in=sign_in, settings=FAST)


class _ForwardDemo:
    """One run on a ready stack."""

    def __init__(self, tour: Tour, wishes: Wishes) -> None:
        self._tour = tour
        self._market = wishes.market
        self._wishes = wishes
        self._countdown = Countdown()

    async def run(self) -> None:
        speed = await exchange_speed(self._tour)
        brain = await find_brain(self._tour, SIMULATED_MODEL)
        agent = await ensure_agent(self._tour, brain, "Forward demo")
        running = await self._running(agent, speed)
        if running is None:
            await self._earn(agent, brain)
            running = await self._start(agent, brain, speed)
        session = DemoSession(id=running["id"], type="forward")
        standing = await self._watch(session, running)
        ended = (await self._tour.client.get(session.path))["session"]
        await report_on(
            self._tour,
            session,
            result_of(self._tour, session, standing),
            is_simulated_model=brain.is_simulated,
            seconds=ended["elapsed_seconds"],
        )

    async def _running(self, agent: Json, speed: float) -> Json | None:
        """The agent's test that an earlier demo has left running, if it can be watched.

        One that was started on a slower clock would run after its candles for ever: it is stopped.
        """
        active = (await self._tour.client.get("/api/arena/forward/active"))["sessions"]
        for own in (each for each in active if each["agent_id"] == agent["id"]):
            session = DemoSession(id=own["id"], type="forward")
            told = f"{own['asset']} {own['timeframe']}"
            if candle_seconds(Timeframe(own["timeframe"]), speed) < LEAST_SECONDS:
                await stop(self._tour, session)
                self._tour.view.step("Forward", f"{told} stopped: too fast with this clock")
                continue
            running: Json = (await self._tour.client.get(session.path))["session"]
            so_far = counted(running["current_candle"], "candle")
            self._tour.view.step("Forward", f"goes on where it was left: {told}, {so_far} so far")
            return running
        return None

    async def _earn(self, agent: Json, brain: Brain) -> None:
        """A forward test needs a profitable backtest of its agent: run them until one is."""
        view = self._tour.view
        view.step("Gate", "a forward test needs a profitable backtest of its agent: here it comes,")
        view.step("", "on candles of the simulated market that went the agent's way")
        await store_candles(self._tour, self._market)
        for traded in stretches(self._market.series)[:ATTEMPTS]:
            backtest = Backtest(
                market=self._market, traded=traded, agent=agent, brain=brain, lines=BACKTEST_LINES
            )
            _, result_id = await run_backtest(self._tour, backtest)
            result = (await self._tour.client.get(f"/api/results/{result_id}"))["result"]
            trades = counted(result["total_trades"], "trade")
            told = f"{signed(result['total_pnl_pct'], ' %')} in {trades}: "
            if result["is_profitable"] and result["total_trades"]:
                view.step("", f"{told}the gate is open")
                return
            view.step("", f"{told}the gate stays shut, so the demo takes other candles")
        raise DemoFailed(
            f"None of {ATTEMPTS} backtests of {self._market.asset} came out ahead with a trade, "
            "and a forward test needs one: try another --asset."
        )

    async def _start(self, agent: Json, brain: Brain, speed: float) -> Json:
        least = SIMULATED_SECONDS if brain.is_simulated else REAL_SECONDS
        timeframe = self._wishes.timeframe or timeframe_for(speed, least)
        answer = await self._tour.client.post(
            "/api/arena/forward/start",
            {
                "agent_id": agent["id"],
                "asset": self._market.asset,
                "timeframe": timeframe.value,
                "starting_capital": STARTING_CAPITAL,
                **brain.forward_terms,
            },
        )
        session: Json = answer["session"]
        lasts = candle_seconds(timeframe, speed)
        self._tour.view.step(
            "Forward",
            f"{session['asset']} {timeframe} of the SIMULATED exchange, a decision every candle; "
            f"{counted(self._wishes.candles, 'candle')} take about "
            f"{duration(self._wishes.candles * lasts)}",
        )
        if lasts > SLOW_SECONDS and brain.is_simulated:
            self._say_slow(speed)
        return session

    def _say_slow(self, speed: float) -> None:
        view, directory = self._tour.view, self._tour.directory
        how = "as ours does" if speed == 1 else f"only {speed:g} times as fast as ours"
        view.step("", f"the clock of this stack's exchange runs {how}. For a fast one:")
        view.step("", alphalab_command(directory, "down"))
        view.step("", alphalab_command(directory, "demo", "--forward"))

    async def _watch(self, session: DemoSession, running: Json) -> Standing:
        """Show some candles more, then stop the test, unless it has ended before."""
        first = running.get("current_candle", 0)
        last = first + self._wishes.candles
        stopping = False

        async def react(frame: Frame, standing: LiveStanding) -> None:
            nonlocal stopping
            self._countdown.note(frame)
            if standing.candles >= last and not stopping:
                stopping = True
                await stop(self._tour, session)

        start = LiveStanding(candles=first, total_candles=last, equity=STARTING_CAPITAL)
        drawing = live_drawing(start, self._countdown, lines=last)
        try:
            async with self._told(session):
                return await watch_to_end(self._tour, session, drawing, react)
        except asyncio.CancelledError:
            self._say_goodbye(session)
            raise

    @asynccontextmanager
    async def _told(self, session: DemoSession) -> AsyncIterator[None]:
        """Ask the test for its next candle whenever no event has told of it."""

        async def ask() -> None:
            while True:
                if self._countdown.is_over:
                    with suppress(DemoFailed):  # who watches is told by the socket
                        told = (await self._tour.client.get(session.path))["session"]
                        self._countdown.end_at(told["next_candle_at"])
                await asyncio.sleep(POLL_SECONDS)

        if not self._tour.view.is_drawn_over:
            yield
            return
        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _say_goodbye(self, session: DemoSession) -> None:
        view, directory = self._tour.view, self._tour.directory
        say_goodbye(self._tour, session, "You left; the forward test goes on without you.")
        view.step("Come back", alphalab_command(directory, "demo", "--forward"))
        view.step("", "it watches this test again, and stops it after some candles")


async def exchange_speed(tour: Tour) -> float:
    """How fast the exchange's clock runs. Raises `DemoFailed` where the exchange is a real one."""
    address = tour.record.settings.get("EXCHANGE_BASE_URL")
    if address is None:
        raise DemoFailed(
            f"This stack follows {tour.record.settings.get('MARKET_DATA_SOURCE')}, and the demo "
            "shows the simulated exchange: name another directory with --data-dir, and unset "
            "MARKET_DATA_SOURCE."
        )
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            answer = await http.get(f"{address}/clock")
            return float(answer.raise_for_status().json()["speed"])
        except httpx.HTTPError as error:
            raise DemoFailed(f"The simulated exchange at {address} does not answer.") from error


def timeframe_for(speed: float, least_seconds: float) -> Timeframe:
    """The shortest timeframe whose candle lasts so long by our clock."""
    lasting = (each for each in Timeframe if candle_seconds(each, speed) >= least_seconds)
    return next(lasting, Timeframe.DAY_1)


def candle_seconds(timeframe: Timeframe, speed: float) -> float:
    """How long a candle lasts by our clock."""
    return timeframe.milliseconds / 1000 / speed


def stretches(series: CandleSeries) -> list[CandleSeries]:
    """Parts of the series that are as long as a short backtest, the one that rose most first."""
    starts = range(0, len(series) - BACKTEST_CANDLES + 1, BACKTEST_CANDLES)
    parts = (series.slice(start, start + BACKTEST_CANDLES) for start in starts)
    return sorted(parts, key=lambda part: float(part.open[0] / part.close[-1]))


def duration(seconds: float) -> str:
    """`40 s`, `20 min`, `20 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
