"""One subscription per asset for all who want its price, and one watch over all its positions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.failures import activity_failures, market_failures
from activities.heartbeats import heartbeating
from activities.live_candles import LiveCandles
from activities.prices import PositionSignals, Touch
from db.engine import Database
from db.repositories.watched_positions import (
    OpenPosition,
    WatchCandleRepository,
    WatchedPositionRepository,
)
from events.prices import PriceBoard, PriceTick
from events.types import iso_timestamp
from integrations.errors import IntegrationError, SymbolUnavailable
from integrations.exchanges.market import Ticker
from trading.candles import Candle, Timeframe
from trading.levels import Levels
from trading.orders import Side

# Seconds of the exchange's time between two looks at its minutes; never less than a fifth of ours.
_LOOK_EVERY_S, _SHORTEST_LOOK_S = 2.0, 0.2
# A socket that reconnects finds its feed still there.
LINGER_S = 30.0
# A feed begins anew once an hour, so that no attempt of an activity is endless.
LONGEST_S = 3_600.0
# A source that was silent for so long is said to be down.
SILENCE_S = 60.0
# How long a price that is just being posted holds up the end.
_LAST_POST_S = 2.0
# A test that was told and has not moved is told again.
_TELL_AGAIN_S = 5.0

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedInput:
    """The asset whose price is wanted, such as `BTC/USDT`."""

    asset: str


class PriceFeedActivities:
    """Follows prices for as long as anybody watches or holds the asset."""

    def __init__(
        self,
        database: Database,
        live: LiveCandles,
        board: PriceBoard,
        signals: PositionSignals,
    ) -> None:
        self._database = database
        self._live = live
        self._board = board
        self._signals = signals

    @activity.defn
    async def follow_prices(self, input: FeedInput) -> bool:
        """Post prices and wake the tests that they touch; False when nobody was left to do it for.

        True after an hour, so that another attempt goes on.
        """
        with activity_failures(), market_failures(), heartbeating():
            posting = asyncio.create_task(self._post_prices(input.asset))
            try:
                return await self._watch(input.asset, posting)
            finally:
                # Before Python 3.12 what sends to Redis may swallow a cancellation.
                while not posting.done():
                    posting.cancel()
                    await asyncio.wait([posting], timeout=_LAST_POST_S)

    async def _watch(self, asset: str, posting: "asyncio.Task[None]") -> bool:
        watch = PositionWatch(self._database, self._live, self._signals, asset)
        clock = asyncio.get_running_loop().time
        ends, wanted_at = clock() + LONGEST_S, clock()
        while clock() < ends:
            holds = await watch.look()
            if holds or await self._is_listened_to(asset):
                wanted_at = clock()
            is_for_nothing = posting.done() and not holds  # the exchange does not list it
            if is_for_nothing or clock() - wanted_at > LINGER_S:
                return False
            speed = max(await self._live.speed(), 1e-9)
            await _pause(max(_LOOK_EVERY_S / speed, _SHORTEST_LOOK_S))
        return True

    async def _post_prices(self, asset: str) -> None:
        """Post every price; while there is none, say every minute that the source is down.

        Ends where the exchange does not list the asset.
        """
        is_listed = True
        while is_listed:
            try:
                await self._post_each(asset)
            except IntegrationError as e:
                _logger.warning("no_prices", asset=asset, error=type(e).__name__)
                is_listed = not isinstance(e, SymbolUnavailable)
            await self._post(_down(asset))
            await asyncio.sleep(SILENCE_S / 2 if is_listed else 0)

    async def _post_each(self, asset: str) -> None:
        tickers = self._live.market.tickers(asset)
        waiting = asyncio.ensure_future(anext(tickers))
        try:
            while True:
                await asyncio.wait([waiting], timeout=SILENCE_S)
                if not waiting.done():
                    await self._post(_down(asset))
                    continue
                tick, waiting = waiting.result(), asyncio.ensure_future(anext(tickers))
                await self._post(await self._tick(asset, tick))
        finally:
            waiting.cancel()

    async def _post(self, tick: PriceTick) -> None:
        """A price that nobody can be told is no reason to stop watching positions."""
        try:
            await self._board.post(tick)
        except (RedisError, OSError) as e:
            _logger.warning("price_not_posted", asset=tick.asset, error=type(e).__name__)

    async def _is_listened_to(self, asset: str) -> bool:
        try:
            return await self._board.listeners(asset) > 0
        except (RedisError, OSError):
            return True  # whoever listens cannot be counted now

    async def _tick(self, asset: str, ticker: Ticker) -> PriceTick:
        return PriceTick(
            asset=asset,
            status="live",
            timestamp=_now(),
            price=ticker.price,
            bid=ticker.bid,
            ask=ticker.ask,
            change_24h=ticker.change_24h,
            high_24h=ticker.high_24h,
            low_24h=ticker.low_24h,
            volume_24h=ticker.volume_24h,
            exchange_ms=await self._live.now_ms(),
            speed=await self._live.speed(),
        )


class PositionWatch:
    """Looks at an asset's minutes for all its open positions at once."""

    def __init__(
        self, database: Database, live: LiveCandles, signals: PositionSignals, asset: str
    ) -> None:
        self._database = database
        self._live = live
        self._signals = signals
        self._asset = asset
        self._minutes: list[Candle] = []
        self._told: dict[tuple[UUID, int], float] = {}

    async def look(self) -> bool:
        """Wake each test whose level was reached; return whether there are any positions."""
        async with self._database.as_system() as session:
            repository = WatchedPositionRepository(session)
            positions = await repository.open_positions(self._live.source, self._asset)
        if not positions:
            self._minutes, self._told = [], {}
            return False
        try:
            await self._read_minutes(min(_forming_since(each) for each in positions))
            await self._wake(positions)
        except (IntegrationError, ConnectionError) as e:
            # The candle's own step protects what nobody watched.
            _logger.warning("positions_not_watched", asset=self._asset, error=type(e).__name__)
        return True

    async def _read_minutes(self, since: int) -> None:
        """Bring the minutes from `since` on up to date; only the newest ones are asked for."""
        kept = [minute for minute in self._minutes if minute.open_time >= since]
        begins_early = bool(self._minutes) and self._minutes[0].open_time <= since
        asked_since = kept[-1].open_time if kept and begins_early else since
        found = await self._live.market.minutes(self._asset, since_ms=asked_since)
        self._minutes = [each for each in kept if each.open_time < asked_since] + found
        if found:
            async with self._database.as_system() as session:
                await WatchCandleRepository(session).put(self._live.source, self._asset, found)

    async def _wake(self, positions: Sequence[OpenPosition]) -> None:
        now = asyncio.get_running_loop().time()
        again = _TELL_AGAIN_S / max(1.0, await self._live.speed())
        for position in positions:
            touch = self._touch(position)
            key = (position.session_id, position.trade_number)
            if touch is not None and now - self._told.get(key, float("-inf")) > again:
                await self._signals.touched(position.session_id, touch)
                self._told[key] = now

    def _touch(self, position: OpenPosition) -> Touch | None:
        since = _forming_since(position)
        until = since + Timeframe.parse(position.timeframe).milliseconds
        minute = _levels(position).first_touch(self._minutes, since=since, until=until)
        if minute is None:
            return None
        return Touch(
            trade_number=position.trade_number,
            candle_index=position.cursor,
            opened_at=since,
            minute=minute,
        )


async def _pause(seconds: float) -> None:
    """Wait; a worker that shuts down leaves the feed to another one at once."""
    leaving = asyncio.ensure_future(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait([leaving], timeout=seconds)
        if leaving.done():
            raise ApplicationError("this worker shuts down", type="WorkerShutsDown")
    finally:
        leaving.cancel()


def _levels(position: OpenPosition) -> Levels:
    return Levels.of(
        Side(position.side),
        stop=position.stop_price,
        target=position.target_price,
        liquidation=position.liquidation_price,
    )


def _forming_since(position: OpenPosition) -> int:
    """Where the candle after the last one stepped begins."""
    length = Timeframe.parse(position.timeframe).milliseconds
    return position.stepped_open + length


def _down(asset: str) -> PriceTick:
    return PriceTick(asset=asset, status="down", timestamp=_now())


def _now() -> str:
    return iso_timestamp(datetime.now(UTC))
