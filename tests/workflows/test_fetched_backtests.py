"""Backtests of ranges that no data set covers: fetched once from an exchange, over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from typing_extensions import override

from activities import candle_history
from activities.candle_history import CandleHistory, Past
from activities.live_candles import LiveCandles, Market, NoMarket
from activities.reconciliation import Reconciler
from db.market_frames import FrameKey, MarketFrames
from db.repositories.candles import CandleRepository
from db.repositories.history_sets import Stretch
from db.repositories.running_sessions import RunningSessionRepository
from integrations.exchanges.exchange_market import open_market
from integrations.exchanges.market import MarketClock
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from tests.laboratory import WARM_UP, Laboratory, Plan
from tests.loopback import serve_app
from trading.candles import CandleSeries, Timeframe

HOUR = Timeframe.HOUR_1.milliseconds
NOW = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)
START = datetime(2024, 2, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
LISTED = datetime(2020, 1, 1, tzinfo=UTC)
ASSET = "LINK/USDT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A simulated exchange whose clock stands still, and its market as a worker has it."""

    url: str
    clock: ExchangeClock
    laboratory: Laboratory

    async def breaks(self, *faults: dict[str, Any]) -> None:
        answer = await self.laboratory.http.post(f"{self.url}/debug/faults", json=list(faults))
        assert answer.is_success, answer.text

    async def is_healed(self) -> None:
        await self.laboratory.http.delete(f"{self.url}/debug/faults")

    async def asked(self) -> int:
        """How often it was asked for candles since it was last asked this."""
        counted = (await self.laboratory.http.get(f"{self.url}/debug/requests")).json()["by_path"]
        await self.laboratory.http.delete(f"{self.url}/debug/requests")
        return int(counted.get("/api/v3/klines", 0))


@pytest.fixture
def exchange_url() -> Iterator[tuple[str, ExchangeClock]]:
    clock = ExchangeClock(speed=0)
    clock.set(now_ms=int(NOW.timestamp() * 1000))
    with serve_app(exchange_server.create_app(clock)) as url:
        yield url, clock


@pytest.fixture
async def exchange(
    laboratory: Laboratory, exchange_url: tuple[str, ExchangeClock]
) -> AsyncIterator[Exchange]:
    url, clock = exchange_url
    laboratory.market = market = open_market("simulated", base_url=url)
    await market.open()
    yield Exchange(url=url, clock=clock, laboratory=laboratory)
    await market.close()


class Disturbed(NoMarket):
    """A market with which something happens between the first question and the second."""

    def __init__(self, market: Market, happens: Callable[[], Awaitable[None]]) -> None:
        self.market = market
        self.happens = happens
        self.reached = asyncio.Event()
        self.questions = 0

    @override
    async def clock(self) -> MarketClock:
        return await self.market.clock()

    @override
    async def closed_candles(
        self, asset: str, timeframe: Timeframe, *, since_ms: int, until_ms: int
    ) -> CandleSeries:
        self.questions += 1
        if self.questions == 2:
            self.reached.set()
            await self.happens()
        return await self.market.closed_candles(
            asset, timeframe, since_ms=since_ms, until_ms=until_ms
        )


def a_plan(hours: int = 40, *, start: datetime = START) -> Plan:
    """Asks the model once, so that what takes time is the fetching."""
    return Plan(
        asset=ASSET,
        model="simulated/hold",
        interval=hours,
        fetched=(start, start + timedelta(hours=hours)),
    )


def history(laboratory: Laboratory, market: Market | None = None) -> CandleHistory:
    """As another worker process has it."""
    source = f"exchange:{laboratory.task_queue}"
    live = LiveCandles(laboratory.database, market or laboratory.market, source)
    return CandleHistory(laboratory.database, live.market, source, clock=live.now_ms)


async def load(history: CandleHistory, start: int, end: int, *, is_moving: bool = False) -> Past:
    """Load from an hour to another, both counted from `START`."""
    wanted = Stretch(start_ms=START_MS + start * HOUR, end_ms=START_MS + end * HOUR)
    return await history.load(ASSET, Timeframe.HOUR_1, wanted, warm_up=0, is_moving=is_moving)


async def stored(laboratory: Laboratory, past: Past) -> CandleSeries:
    async with laboratory.database.for_user(laboratory.user_id) as session:
        return await CandleRepository(session).load(past.data_set_id)


async def served(laboratory: Laboratory, start: int, end: int) -> CandleSeries:
    """What the exchange itself gives."""
    return await laboratory.market.closed_candles(
        ASSET,
        Timeframe.HOUR_1,
        since_ms=START_MS + start * HOUR,
        until_ms=START_MS + end * HOUR,
    )


async def fingerprint_now(laboratory: Laboratory, session_id: UUID) -> str:
    """What a process that has nothing in memory reads as the session's candles."""
    async with laboratory.database.for_user(laboratory.user_id) as session:
        settings = await RunningSessionRepository(session).settings(session_id)
    assert settings is not None
    frames = MarketFrames(laboratory.database)
    frame = await frames.get(laboratory.user_id, FrameKey.of_session(settings))
    assert frame.warm_up == settings.warm_up_candles
    return frame.candles.fingerprint()


async def test_a_range_is_fetched_once_for_all_the_tests_that_run_on_it(exchange: Exchange):
    laboratory = exchange.laboratory
    expected = (await served(laboratory, 0, 40)).fingerprint()
    await exchange.asked()
    async with laboratory.worker():
        first = await laboratory.run(a_plan(40))
        assert await exchange.asked() == 1
        again = [await laboratory.started(a_plan(40)) for _ in range(2)]
        for session_id in again:
            await laboratory.ended(session_id)
        assert await exchange.asked() == 0
        await laboratory.run(a_plan(50, start=START - timedelta(hours=70)))
        assert await exchange.asked() == 1

    for session_id in (first, *again):
        row = await laboratory.session_row(session_id)
        assert (row["status"], row["total_candles"], row["cursor"]) == ("completed", 40, 40)
        assert (row["start_date"], row["end_date"]) == (START, START + timedelta(hours=40))
        assert (row["data_source"], row["warm_up_candles"]) == (
            f"exchange:{laboratory.task_queue}",
            WARM_UP,
        )
        assert row["data_fingerprint"] == expected
        assert await fingerprint_now(laboratory, session_id) == expected


async def test_processes_that_ask_at_the_same_time_fetch_each_part_once(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(candle_history, "CHUNK_CANDLES", 20)
    laboratory = exchange.laboratory
    processes = [history(laboratory) for _ in range(3)]

    loaded = await asyncio.gather(
        *(load(each, first, last) for each in processes for first, last in ((0, 100), (40, 120)))
    )

    assert await exchange.asked() == 6
    assert len({each.data_set_id for each in loaded}) == 1
    found = await stored(laboratory, loaded[0])
    assert found.fingerprint() == (await served(laboratory, 0, 120)).fingerprint()


async def test_a_hole_is_asked_for_once_more_and_is_a_gap_from_then_on(exchange: Exchange):
    laboratory = exchange.laboratory
    halt = {"start_ms": START_MS + 10 * HOUR, "end_ms": START_MS + 13 * HOUR}
    await exchange.breaks({"kind": "halt", "asset": ASSET, **halt})
    async with laboratory.worker():
        session_id = await laboratory.run(a_plan(40))
        assert await exchange.asked() == 2
        await exchange.is_healed()
        later = await laboratory.run(a_plan(40))
        assert await exchange.asked() == 0

    rows = [await laboratory.session_row(each) for each in (session_id, later)]
    assert [row["total_candles"] for row in rows] == [37, 37]
    assert rows[0]["data_fingerprint"] == rows[1]["data_fingerprint"]
    assert await fingerprint_now(laboratory, session_id) == rows[0]["data_fingerprint"]


async def test_what_the_second_question_finds_fills_the_hole_and_corrects_nothing(
    exchange: Exchange,
):
    laboratory = exchange.laboratory
    expected = await served(laboratory, 0, 40)
    halts = [
        {"kind": "halt", "asset": ASSET, "start_ms": at, "end_ms": at + HOUR}
        for at in (START_MS + 10 * HOUR, START_MS + 13 * HOUR)
    ]
    corrected = {"asset": ASSET, "timeframe": "1h", "open_time": START_MS + 11 * HOUR}
    await exchange.breaks(*halts)

    async def corrects() -> None:
        await exchange.is_healed()
        await exchange.breaks({"kind": "revised", **corrected})
        await served(laboratory, 11, 12)  # from now on this candle closes elsewhere

    market = Disturbed(laboratory.market, corrects)
    past = await load(history(laboratory, market), 0, 40)

    assert (await served(laboratory, 0, 40)).fingerprint() != expected.fingerprint()
    assert (await stored(laboratory, past)).fingerprint() == expected.fingerprint()


async def test_a_candle_that_is_published_late_is_no_gap(exchange: Exchange):
    laboratory, hours = exchange.laboratory, 29 * 24 + 12
    late = {"kind": "late", "asset": ASSET, "timeframe": "1h", "by_ms": HOUR // 2}
    await exchange.breaks(late | {"open_time": START_MS + (hours - 1) * HOUR})
    exchange.clock.set(now_ms=START_MS + hours * HOUR + HOUR // 4)
    before = await stored(laboratory, await load(history(laboratory), 0, hours))

    exchange.clock.set(advance_ms=HOUR // 4)
    past = await load(history(laboratory), 0, hours, is_moving=True)

    after = await stored(laboratory, past)
    assert (len(before), len(after)) == (hours - 1, hours)
    assert past.stretch.end_ms == START_MS + hours * HOUR
    assert after.slice(0, hours - 1).fingerprint() == before.fingerprint()


async def test_only_closed_candles_are_taken(exchange: Exchange):
    laboratory, hours = exchange.laboratory, 29 * 24 + 12
    async with laboratory.worker():
        session_id = await laboratory.run(a_plan(40, start=NOW - timedelta(hours=20, minutes=30)))

    row = await laboratory.session_row(session_id)
    assert (row["total_candles"], row["end_date"]) == (20, START + timedelta(hours=hours))
    assert await exchange.asked() == 1


async def test_what_is_fetched_before_a_test_leaves_its_warm_up_as_it_was(exchange: Exchange):
    laboratory = exchange.laboratory
    halt = {"start_ms": START_MS - 20 * HOUR, "end_ms": START_MS - 15 * HOUR}
    await exchange.breaks({"kind": "halt", "asset": ASSET, **halt})
    async with laboratory.worker():
        session_id = await laboratory.run(a_plan(40))
    await load(history(laboratory), -200, -WARM_UP)

    row = await laboratory.session_row(session_id)
    assert row["warm_up_candles"] == WARM_UP - 5
    assert await fingerprint_now(laboratory, session_id) == row["data_fingerprint"]


async def test_a_worker_that_dies_in_the_middle_leaves_what_it_had_to_the_next(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(candle_history, "CHUNK_CANDLES", 30)
    laboratory, market = exchange.laboratory, exchange.laboratory.market
    expected = (await served(laboratory, 0, 40)).fingerprint()
    await exchange.asked()
    laboratory.market = dying = Disturbed(market, lambda: asyncio.sleep(3600))
    async with laboratory.worker(grace=0.1):
        session_id = await laboratory.started(a_plan(40))
        await asyncio.wait_for(dying.reached.wait(), 20)
    assert (await laboratory.session_row(session_id))["data_set_id"] is None
    laboratory.market = market
    async with laboratory.worker():
        await laboratory.ended(session_id)

    # 90 candles with the warm-up: one part before it died, and two after.
    assert await exchange.asked() == 3
    row = await laboratory.session_row(session_id)
    assert (row["status"], row["data_fingerprint"]) == ("completed", expected)


async def test_a_test_whose_start_was_cut_short_is_fetched_when_it_is_found(
    apart: Laboratory, exchange: Exchange
):
    apart.market = exchange.laboratory.market
    session_id = await apart.add_session(a_plan(40))
    async with apart.worker():
        await Reconciler(apart.database, apart.temporal).run_once(unchanged_for=timedelta(0))
        await apart.ended(session_id)

    row = await apart.session_row(session_id)
    assert (row["status"], row["total_candles"]) == ("completed", 40)


async def test_an_exchange_that_does_not_answer_is_asked_again(exchange: Exchange):
    laboratory = exchange.laboratory
    await exchange.breaks({"kind": "answer", "status": 503, "path": "/klines"})
    async with laboratory.worker():
        session_id = await laboratory.run(a_plan(40))

    assert await exchange.asked() == 2
    assert (await laboratory.session_row(session_id))["total_candles"] == 40


@pytest.mark.parametrize(
    ("start", "fault", "error"),
    [
        (START, [{"kind": "gone", "asset": ASSET}], "AssetUnavailable"),
        (LISTED - timedelta(days=30), [], "NO_CANDLES"),
        (NOW + timedelta(days=30), [], "NO_CANDLES"),
        (LISTED, [], "INDICATORS_NOT_READY"),
    ],
    ids=["unknown", "before-listing", "to-come", "too-short"],
)
async def test_a_test_that_can_have_no_candles_fails_at_once_and_says_why(
    exchange: Exchange, start: datetime, fault: list[dict[str, Any]], error: str
):
    laboratory = exchange.laboratory
    await exchange.breaks(*fault)
    session_id = await laboratory.add_session(a_plan(5, start=start))
    async with laboratory.database.for_user(laboratory.user_id) as session:
        await session.execute(
            text("UPDATE trading_sessions SET indicator_readiness_threshold = 100 WHERE id = :id"),
            {"id": session_id},
        )
    async with laboratory.worker():
        await laboratory.start(session_id, load_candles=True)
        row = await laboratory.reached(session_id, lambda row: row["status"] == "failed")

    assert row["error"]["error_code"] == error


async def test_a_test_that_waits_for_its_candles_can_be_stopped(laboratory: Laboratory):
    async with laboratory.worker():
        session_id = await laboratory.started(a_plan(40))
        await laboratory.temporal.signal_stop(session_id, "a-stop", True)
        row = await laboratory.reached(session_id, lambda row: row["status"] == "failed")

    assert row["error"]["error_code"] == "STOPPED_BEFORE_START"


async def test_a_session_that_lost_its_candles_gets_no_others(exchange: Exchange):
    laboratory = exchange.laboratory
    async with laboratory.worker():
        session_id = await laboratory.add_session(a_plan(40))
        async with laboratory.database.for_user(laboratory.user_id) as session:
            await session.execute(
                text("UPDATE trading_sessions SET data_fingerprint = 'other' WHERE id = :id"),
                {"id": session_id},
            )
        await laboratory.start(session_id, load_candles=True)
        row = await laboratory.reached(session_id, lambda row: row["status"] == "failed")

    assert (row["error"]["error_code"], row["data_set_id"]) == ("SESSION_UNREADABLE", None)
    assert await exchange.asked() == 0
