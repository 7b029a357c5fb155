"""The market at a candle: what happened, and every indicator the agent has, by index."""

from dataclasses import dataclass

from temporalio import activity

from activities.contexts import SessionContexts
from activities.failures import activity_failures
from activities.heartbeats import heartbeating
from trading.candles import Candle


@dataclass(frozen=True, slots=True, kw_only=True)
class IndicatorsInput:
    """Names a candle of a session."""

    session_id: str
    user_id: str
    candle_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleView:
    """A closed candle and the indicators at its close, None where one has no value yet."""

    candle: Candle
    indicators: dict[str, float | None]


class MarketDataActivities:
    """Reads candles and indicators; changes nothing."""

    def __init__(self, contexts: SessionContexts) -> None:
        self._contexts = contexts

    @activity.defn
    async def calculate_indicators(self, input: IndicatorsInput) -> CandleView:
        """Return candle `candle_index` with its indicators.

        The whole series is computed at the first call and kept; later calls read it by index.
        """
        with activity_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            frame = await self._contexts.frame(context, holding=input.candle_index + 1)
            return CandleView(
                candle=frame.candles.candle(input.candle_index),
                indicators=frame.values(input.candle_index),
            )
