"""What the model calls of a backtest are likely to cost.

candles to decide * (prompt tokens * their price + reply tokens * theirs), at the prices of the
catalogue. The tokens of a decision are the mean of the agent version's last decisions in an earlier
test. A version that has not decided yet gets the prompt of the candle in the middle, at three
characters a token, and a reply of 200 tokens.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from agents.prompts import (
    CANDLES_SHOWN,
    CHARACTERS_PER_TOKEN,
    DECISIONS_SHOWN,
    INDICATOR_VALUES_SHOWN,
    MAX_REASONING_SHOWN,
    MarketView,
    PastDecision,
    build_messages,
)
from api.session_starts import read_rules
from db.engine import Database
from db.market_frames import MarketFrame
from db.repositories.decisions import DecisionRepository, DecisionTokens
from db.repositories.running_sessions import SessionSettings
from integrations.openrouter.client import OpenRouterClient
from integrations.openrouter.schemas import ModelInfo
from trading.candles import Timeframe
from trading.decisions import Cadence

REPLY_TOKENS = 200
# A test that is started already does not wait for OpenRouter's list.
PRICE_PATIENCE_S = 1.0
_DECIMALS = 6


class CostEstimates:
    """Estimates costs in US dollars."""

    def __init__(self, database: Database, openrouter: OpenRouterClient) -> None:
        self._database = database
        self._openrouter = openrouter

    async def of_backtest(
        self, session_id: UUID, settings: SessionSettings, frame: MarketFrame
    ) -> float | None:
        """None where the model's price is not known, 0 where it costs nothing."""
        model = await self._model(settings.model)
        if model is None or model.prompt_price is None or model.completion_price is None:
            return None
        if model.is_free:
            return 0.0
        tokens = await self._measured(session_id, settings) or expected_tokens(settings, frame)
        cost = tokens.prompt * model.prompt_price + tokens.completion * model.completion_price
        return round(_cadence(settings).count(settings.total_candles) * cost, _DECIMALS)

    async def _model(self, model_id: str) -> ModelInfo | None:
        try:
            async with asyncio.timeout(PRICE_PATIENCE_S):
                return await self._openrouter.find_model(model_id)
        except TimeoutError:
            return None

    async def _measured(self, session_id: UUID, settings: SessionSettings) -> DecisionTokens | None:
        async with self._database.for_user(settings.user_id) as session:
            return await DecisionRepository(session).mean_tokens(
                settings.agent_version_id, before=session_id
            )


def expected_tokens(settings: SessionSettings, frame: MarketFrame) -> DecisionTokens:
    """The tokens of a decision by the prompt of the candle in the middle of the test."""
    messages = build_messages(_view(settings, frame, len(frame) // 2))
    characters = sum(len(message["content"]) for message in messages)
    return DecisionTokens(prompt=characters / CHARACTERS_PER_TOKEN, completion=REPLY_TOKENS)


def _view(settings: SessionSettings, frame: MarketFrame, index: int) -> MarketView:
    rules = read_rules(settings.rules)
    return MarketView(
        asset=None if settings.blind else settings.asset,
        timeframe=Timeframe.parse(settings.timeframe),
        rules=rules,
        strategy_prompt=settings.strategy_prompt,
        candle_index=index,
        candles=frame.window(index + 1, CANDLES_SHOWN),
        indicators=frame.values(index),
        indicator_history=frame.values_before(index, INDICATOR_VALUES_SHOWN - 1),
        equity=rules.starting_capital,
        last_decisions=_earlier_decisions(index, _cadence(settings).interval),
        blind=settings.blind,
    )


def _earlier_decisions(index: int, interval: int) -> Sequence[PastDecision]:
    count = min(DECISIONS_SHOWN, index // interval)
    return [
        PastDecision(
            candle_index=index - ago * interval,
            action="hold",
            confidence=0.5,
            reasoning="x" * MAX_REASONING_SHOWN,
        )
        for ago in range(count, 0, -1)
    ]


def _cadence(settings: SessionSettings) -> Cadence:
    return Cadence(
        first=settings.first_decision_candle, interval=settings.decision_interval_candles
    )
