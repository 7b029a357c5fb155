"""The candles of a backtest whose range no data set covers: fetched from the source, then fixed."""

from dataclasses import dataclass
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.candle_history import CandleHistory, Past
from activities.failures import activity_failures, market_failures
from activities.heartbeats import heartbeating
from db.engine import Database
from db.market_frames import FrameKey, MarketFrames, stored_formulas
from db.repositories.backtest_sessions import BacktestSessionRepository, UnpreparedBacktest
from db.repositories.history_sets import Stretch
from db.session_windows import NeverReady, NoCandles, SessionWindow, session_window
from trading.candles import Timeframe

_PERCENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestInput:
    """Names a backtest."""

    session_id: str
    user_id: str


class BacktestCandleActivities:
    """Gives backtests their candles."""

    def __init__(self, database: Database, frames: MarketFrames, history: CandleHistory) -> None:
        self._database = database
        self._frames = frames
        self._history = history

    @activity.defn
    async def load_candles(self, input: BacktestInput) -> None:
        """Fetch what is missing of the test's range and warm-up, and fix what it runs on; once."""
        with activity_failures(), market_failures(at_start=True), heartbeating():
            session_id, user_id = UUID(input.session_id), UUID(input.user_id)
            async with self._database.for_user(user_id) as session:
                waiting = await BacktestSessionRepository(session).unprepared(session_id)
            if waiting is None:
                return
            past = await self._history.load(
                waiting.asset,
                Timeframe.parse(waiting.timeframe),
                _wanted(waiting),
                warm_up=waiting.warm_up_candles,
                is_moving=waiting.is_moving,
            )
            window = await self._window(user_id, waiting, past)
            async with self._database.for_user(user_id) as session:
                await BacktestSessionRepository(session).prepare(
                    session_id,
                    data_set_id=past.data_set_id,
                    source=self._history.source,
                    window=window,
                )

    async def _window(
        self, user_id: UUID, waiting: UnpreparedBacktest, past: Past
    ) -> SessionWindow:
        try:
            return await session_window(
                self._frames,
                user_id,
                _frame_key(waiting, past),
                blind=waiting.blind,
                readiness=waiting.readiness_pct / _PERCENT,
            )
        except NoCandles:
            raise _unfit("NO_CANDLES", "The source has no candles for this range.") from None
        except NeverReady:
            raise _unfit(
                "INDICATORS_NOT_READY",
                "The indicators never reach this readiness in the chosen range.",
            ) from None


def _wanted(waiting: UnpreparedBacktest) -> Stretch:
    return Stretch(
        start_ms=int(waiting.start_date.timestamp() * 1000),
        end_ms=int(waiting.end_date.timestamp() * 1000),
    )


def _frame_key(waiting: UnpreparedBacktest, past: Past) -> FrameKey:
    return FrameKey(
        data_set_id=past.data_set_id,
        start_ms=past.stretch.start_ms,
        end_ms=past.stretch.end_ms,
        timeframe=Timeframe.parse(waiting.timeframe),
        warm_up=past.warm_up,
        identifiers=tuple(waiting.indicators),
        custom=stored_formulas(waiting.custom_indicators),
    )


def _unfit(type: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=type, non_retryable=True)
