"""What a backtest's row says of the candles that it runs on, fixed once when it starts."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from db.market_frames import FrameKey, MarketFrames


class NoCandles(LookupError):
    """The range has no candles."""


class NeverReady(LookupError):
    """The indicators never reach the readiness that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWindow:
    """The candles of a test, from the open of the first to the close of the last.

    `warm_up_candles` are those that there are before the first one: a data set that grows at its
    beginning must not change what the test sees.
    """

    start_date: datetime
    end_date: datetime
    warm_up_candles: int
    total_candles: int
    first_decision_candle: int
    data_fingerprint: str


async def session_window(
    frames: MarketFrames, user_id: UUID, key: FrameKey, *, blind: bool, readiness: float
) -> SessionWindow:
    """Look at the candles of `key`; `readiness` is from 0 to 1. Raises NoCandles, NeverReady."""
    frame = await frames.get(user_id, key)
    if not len(frame):
        raise NoCandles
    # What the agent sees decides when it is ready: a formula may know no value of a real price.
    seen = await frames.get(user_id, key.as_blind()) if blind else frame
    first = seen.first_ready(readiness)
    if first is None:
        raise NeverReady
    times = frame.candles.open_time
    return SessionWindow(
        start_date=_moment(int(times[0])),
        end_date=_moment(int(times[-1]) + key.timeframe.milliseconds),
        warm_up_candles=frame.warm_up,
        total_candles=len(frame),
        first_decision_candle=first,
        data_fingerprint=await asyncio.to_thread(frame.candles.fingerprint),
    )


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
