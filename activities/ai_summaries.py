"""The summary that a finished test's own model writes, where its user asked for one.

It is bought like a decision, at most once but for a kill within the request. The result is there
before, and stays as it is without a summary.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from temporalio import activity

from activities.contexts import SessionContext, SessionContexts
from activities.decisions import (
    HTTP_TIMEOUT_S,
    TEMPERATURE,
    TURN_PATIENCE_S,
    TURN_PAUSE_S,
    KeyRing,
)
from activities.failures import (
    SUMMARY_ATTEMPTS,
    activity_failures,
    budget_reached,
    model_failures,
    no_api_key,
    superseded,
)
from activities.heartbeats import heartbeating
from activities.key_slots import KeySlots, StillWaiting, Turn
from activities.model_calls import ModelCalls, carried_out, is_done
from activities.questions import Reply, booking, cut_off, stored_reply
from agents.ai_summaries import FinishedTest, TradeShown, build_summary_messages, clean_summary
from agents.prompts import Message, prompt_hash
from db.engine import Database
from db.models import ResultRecord
from db.repositories.ai_summaries import AiSummaryRepository, NotableTrade, SummaryBasis
from db.repositories.results import ResultRepository
from db.repositories.stepping import Bill, CallKey
from integrations.errors import IntegrationError, ReplyTooLarge
from integrations.openrouter.client import OpenRouterClient
from integrations.openrouter.schemas import ChatReply, ChatRequest, ModelInfo

# Under which number its call is booked: no candle has it.
AFTER_ALL_CANDLES = -1
# 600 characters are 200 tokens or less; some models think aloud before.
MAX_TOKENS = 400
# What a model's template puts around a message: its role, where it begins and ends.
WRAPPING_TOKENS = 20
TRADES_OF_EACH_KIND = 2
PRICE_PATIENCE_S = 5.0

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AiSummaryInput:
    """A session that has its result; `turn` is the place in the line of its key.

    A workflow that gives none is of before there were any: its summary is not waited for twice.
    """

    session_id: str
    user_id: str
    epoch: int
    turn: Turn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AiSummaryResult:
    """Whether the result has a summary now: a model may have nothing to say.

    With a `turn` the key was busy, and nothing was bought: the summary is to be asked for again
    with it, `pause_s` seconds later.
    """

    is_written: bool
    turn: Turn | None = None
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked, and what is known of who pays."""

    context: SessionContext
    basis: SummaryBasis
    key: CallKey
    messages: Sequence[Message]

    @property
    def user_id(self) -> UUID:
        return self.context.user_id


class AiSummaryActivities:
    """Has models sum up their tests."""

    def __init__(
        self,
        database: Database,
        contexts: SessionContexts,
        openrouter: OpenRouterClient,
        keys: KeyRing,
        *,
        slots: KeySlots,
    ) -> None:
        self._database = database
        self._calls = ModelCalls(database)
        self._contexts = contexts
        self._openrouter = openrouter
        self._keys = keys
        self._slots = slots

    @activity.defn
    async def write_ai_summary(self, input: AiSummaryInput) -> AiSummaryResult:
        """Store the summary of a finished test once, buying it first if it is not bought yet.

        None is bought without a candle, without a usable key, or beyond the test's `max_cost_usd`.
        """
        failures = model_failures(is_last=_failed_before(input) + 1 >= SUMMARY_ATTEMPTS)
        with activity_failures(), failures, heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            request = await self._prepare(context, input)
            if request.basis.ai_summary is not None:
                return AiSummaryResult(is_written=True)
            if request.basis.candles == 0:
                return AiSummaryResult(is_written=False)
            try:
                reply = await self._reply(request, input)
            except StillWaiting:
                return _handed_back(input)
            return AiSummaryResult(is_written=await self._keep(request, reply))

    async def _keep(self, request: _Request, reply: Reply) -> bool:
        """Store what the model said; say whether that was anything."""
        session_id, summary = request.context.session_id, clean_summary(reply.text)
        if not summary:
            _logger.warning("ai_summary_empty", session_id=str(session_id))
            return False
        async with self._database.for_user(request.user_id) as session:
            await AiSummaryRepository(session).keep(session_id, summary)
        return True

    async def _prepare(self, context: SessionContext, input: AiSummaryInput) -> _Request:
        async with self._database.for_user(context.user_id) as session:
            summaries = AiSummaryRepository(session)
            basis = await summaries.basis(context.session_id)
            if basis is None or basis.epoch != input.epoch:
                raise superseded(input.session_id)
            result = await ResultRepository(session).get(basis.result_id)
            trades = await summaries.notable_trades(context.session_id, each=TRADES_OF_EACH_KIND)
        if result is None:
            raise superseded(input.session_id)
        return _Request(
            context=context,
            basis=basis,
            key=_key(input),
            messages=build_summary_messages(finished_test(context, result, trades)),
        )

    async def _reply(self, request: _Request, input: AiSummaryInput) -> Reply:
        """The reply that is booked already, or one that is bought when it is the key's turn.

        Raises `StillWaiting`, with nothing bought, where the turn does not come.
        """
        made = await self._calls.find(request.user_id, request.key)
        if made is not None and is_done(made):
            return stored_reply(made)
        line = self._slots.of(self._usable_key(request))
        if line.is_free:
            async with line.turn():
                return await self._bought(request)
        since = None if input.turn is None else input.turn.since
        async with line.turn(since=since, patience=TURN_PATIENCE_S):
            # What was read before a wait is old after it.
            return await self._bought(await self._prepare(request.context, input))

    async def _bought(self, request: _Request) -> Reply:
        api_key = self._usable_key(request)
        await self._check_budget(request)
        made = await self._calls.open(request.user_id, request.key)
        if made is not None:
            return stored_reply(made)
        return await carried_out(self._buy(request, api_key))

    def _usable_key(self, request: _Request) -> str:
        if request.basis.encrypted_key is None:
            raise no_api_key()
        try:
            return self._keys.decrypt(request.basis.encrypted_key)
        except ValueError:
            raise no_api_key() from None

    async def _check_budget(self, request: _Request) -> None:
        settings, basis = request.context.settings, request.basis
        if settings.max_cost_usd is None:
            return
        model, limit = await self._model(settings.model), float(settings.max_cost_usd)
        if basis.cost_usd + most_expected(model, request.messages, basis.dearest_call_usd) > limit:
            raise budget_reached(basis.cost_usd, limit)

    async def _model(self, model_id: str) -> ModelInfo | None:
        try:
            async with asyncio.timeout(PRICE_PATIENCE_S):
                return await self._openrouter.find_model(model_id)
        except TimeoutError:
            return None

    async def _buy(self, request: _Request, api_key: str) -> Reply:
        """Send the request and store the reply; an error for which nothing was paid is noted."""
        try:
            received = await self._send(request, api_key)
        except IntegrationError as e:
            if e.was_free:
                await self._calls.refuse(request.user_id, request.key)
            raise
        asked = prompt_hash(request.messages)
        bill = Bill(key=request.key, reply=booking(received, asked, self._openrouter.source))
        return await self._calls.book(request.user_id, bill)

    async def _send(self, request: _Request, api_key: str) -> ChatReply:
        model = request.context.settings.model
        chat = ChatRequest(
            model=model,
            messages=request.messages,
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            response_format=None,
            user=str(request.user_id),
        )
        try:
            return await self._openrouter.stream_chat(chat, api_key=api_key, timeout=HTTP_TIMEOUT_S)
        except ReplyTooLarge as e:
            return replace(cut_off(e, model), text="")


def _failed_before(input: AiSummaryInput) -> int:
    """Attempts at this summary that failed, those before it waited included."""
    earlier = 0 if input.turn is None else input.turn.failed
    return earlier + activity.info().attempt - 1


def _handed_back(input: AiSummaryInput) -> AiSummaryResult:
    """The turn as it is to be taken up again; without one to take up there is no summary."""
    if input.turn is None:
        return AiSummaryResult(is_written=False)
    turn = replace(input.turn, failed=_failed_before(input))
    return AiSummaryResult(is_written=False, turn=turn, pause_s=TURN_PAUSE_S)


def _key(input: AiSummaryInput) -> CallKey:
    return CallKey(
        session_id=UUID(input.session_id),
        epoch=input.epoch,
        candle_number=AFTER_ALL_CANDLES,
        call_no=1,
    )


def finished_test(
    context: SessionContext, result: ResultRecord, trades: Sequence[NotableTrade]
) -> FinishedTest:
    """A test as its model is shown it."""
    settings = context.settings
    return FinishedTest(
        kind="forward test" if context.is_live else "backtest",
        asset=None if settings.blind else settings.asset,
        timeframe=settings.timeframe,
        rules=context.rules,
        strategy_prompt=settings.strategy_prompt,
        end_reason=result.end_reason or "unknown",
        figures=_figures(result),
        trades=[_shown(trade) for trade in trades],
    )


def most_expected(
    model: ModelInfo | None, messages: Sequence[Message], dearest_call_usd: float | None
) -> float:
    """What the call costs at most by the model's price; unknown, as much as its dearest before.

    No token is shorter than a byte of UTF-8, whatever the script and the model.
    """
    if model is None or model.prompt_price is None or model.completion_price is None:
        return dearest_call_usd or 0.0
    prompt_tokens = sum(len(message["content"].encode()) + WRAPPING_TOKENS for message in messages)
    return prompt_tokens * model.prompt_price + MAX_TOKENS * model.completion_price


def _figures(result: ResultRecord) -> dict[str, float | None]:
    metrics = result.metrics
    return {
        "return_pct": result.total_pnl_pct,
        "buy_and_hold_return_pct": metrics.get("buy_and_hold_return_pct"),
        "max_drawdown_pct": result.max_drawdown_pct,
        "sharpe_ratio": result.sharpe_ratio,
        "candles": result.total_candles,
        "exposure_pct": metrics.get("exposure_pct"),
        "trades": result.total_trades,
        "winning_trades": result.winning_trades,
        "profit_factor": result.profit_factor,
        "best_trade_pnl": result.best_trade_pnl,
        "worst_trade_pnl": result.worst_trade_pnl,
        "pnl_before_costs": result.gross_pnl,
        "fees": result.fees,
        "slippage": result.slippage_cost,
        "decisions": result.config.get("decisions"),
        "decisions_changed_by_rules": result.config.get("overridden_decisions"),
        "invalid_replies": result.invalid_replies,
        "missed_candles": result.missed_candles,
    }


def _shown(trade: NotableTrade) -> TradeShown:
    return TradeShown(
        number=trade.trade_number,
        side=trade.type,
        exit=trade.exit_type,
        held=trade.held,
        pnl=trade.pnl_amount,
        pnl_pct=trade.pnl_pct,
    )
