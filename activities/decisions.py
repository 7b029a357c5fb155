"""The agent's decision at a candle's close: the only code that calls a model.

A decision is bought once. Each call has a row that says `started` before the request and `done`
with the raw reply before anyone reads it; an attempt that comes later goes on from there.
"""

import asyncio
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid5

import orjson
from temporalio import activity

from activities.contexts import SessionContext, SessionContexts
from activities.failures import (
    activity_failures,
    budget_reached,
    model_failures,
    no_api_key,
    passes_by_itself,
    superseded,
)
from activities.heartbeats import heartbeating
from activities.step_rows import STATE, clamped_percent, plain_events
from agents.prompts import (
    MAX_REASONING_SHOWN,
    MarketView,
    Message,
    PastDecision,
    build_messages,
    prompt_hash,
)
from agents.replies import (
    DECISION_SCHEMA,
    InvalidReply,
    parse_reply,
    partial_reasoning,
    repair_messages,
    storable,
)
from db.engine import Database
from db.market_frames import MarketFrame
from db.repositories.stepping import (
    BookedReply,
    CallKey,
    DecisionBasis,
    ModelCallRow,
    NewDecision,
    PastDecisionRow,
    SteppingRepository,
)
from db.repositories.steps import NewStep, StepRepository
from events.payloads import (
    candle_payload,
    decision_payload,
    override_payload,
    rejection_payload,
    thinking_payload,
)
from events.publisher import EventPublisher
from events.types import Event, iso_timestamp
from integrations.errors import IntegrationError, ReplyTooLarge
from integrations.openrouter.client import OpenRouterClient
from integrations.openrouter.schemas import ChatReply, ChatRequest, Usage
from trading.decisions import Action, Decision
from trading.orders import PendingOrder
from trading.simulation import SimulationState, Verdict, decide

CANDLES_SHOWN = 30
INDICATOR_VALUES_SHOWN = 5
DECISIONS_SHOWN = 5
# A second call after a reply that cannot be used, and no third: then the agent holds.
CALLS_PER_DECISION = 2
TEMPERATURE = 0.3
MAX_TOKENS = 1_000
HTTP_TIMEOUT_S = 30.0
# A call that is cut short by a stop may still end and be booked; it was paid for anyway.
CANCELLATION_GRACE_S = 5.0
# A restart of PostgreSQL, or a failover, while a reply waits to be booked.
BOOKING_PATIENCE_S = 60.0
BOOKING_PAUSE_S = 0.2
# Watchers see the text grow ten times a second; every fragment repeats it whole.
FRAGMENT_INTERVAL_S = 0.1


class KeyRing(Protocol):
    """Opens what `api_keys` stores."""

    def decrypt(self, token: str) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInput:
    """The candle that just closed; the state after it is the session's latest."""

    session_id: str
    user_id: str
    epoch: int
    candle_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionResult:
    """The order that came of the decision, if one did, and a line for operators.

    An order is all that a decision changes of the simulation's state.
    """

    order: PendingOrder | None
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """A booked call, whether this attempt or an earlier one made it."""

    text: str
    model: str | None
    tokens_prompt: int
    tokens_completion: int
    cost_usd: float
    latency_ms: int
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What a decision is asked with: the prompt, and the calls that were already made."""

    context: SessionContext
    input: DecisionInput
    state: SimulationState
    frame: MarketFrame
    messages: list[Message]
    digest: str
    api_key: str | None
    calls: Mapping[int, ModelCallRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A decision and the calls it took; `invalid` when the agent holds for want of a valid one."""

    decision: Decision
    replies: Sequence[_Reply]
    invalid: bool


class DecisionActivities:
    """Asks models for decisions."""

    def __init__(
        self,
        database: Database,
        contexts: SessionContexts,
        publisher: EventPublisher,
        openrouter: OpenRouterClient,
        keys: KeyRing,
    ) -> None:
        self._database = database
        self._contexts = contexts
        self._publisher = publisher
        self._openrouter = openrouter
        self._keys = keys

    @activity.defn
    async def request_decision(self, input: DecisionInput) -> DecisionResult:
        """Return the recorded decision of a candle, buying it first if there is none."""
        with activity_failures(), model_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            question = await self._prepare(context, input)
            if question is None:
                return await self._recorded(context, input)
            answer = await self._ask(question)
            return await self._record(question, answer)

    async def _prepare(self, context: SessionContext, input: DecisionInput) -> _Question | None:
        """Open the first call and compose the prompt; None when the decision is recorded."""
        index = input.candle_index
        frame = await self._contexts.seen_frame(context)
        key = _key(context, input, 1)
        async with self._database.statements_for_user(context.user_id) as connection:
            stepping = SteppingRepository(connection)
            basis = await stepping.begin_decision(
                key,
                id=_call_id(key),
                max_cost_usd=context.settings.max_cost_usd,
                decisions=DECISIONS_SHOWN,
                reasoning_length=MAX_REASONING_SHOWN,
            )
            if basis is None or basis.epoch != input.epoch or basis.cursor != index + 1:
                raise superseded(input.session_id)
            if basis.is_decided:
                return None
            api_key, calls = self._usable_key(basis), dict(basis.calls)
            if basis.is_opened:
                await _use_key(stepping, key, basis, api_key)
            elif not _is_done(calls.get(1)):
                calls[1] = await _why_not_opened(stepping, key, context, basis)
        state = STATE.validate_json(basis.state)
        messages = build_messages(_view(context, state, frame, basis.past))
        return _Question(
            context=context,
            input=input,
            state=state,
            frame=frame,
            messages=messages,
            digest=prompt_hash(messages),
            api_key=api_key,
            calls=calls,
        )

    def _usable_key(self, basis: DecisionBasis) -> str | None:
        if basis.encrypted_key is None:
            return None
        try:
            return self._keys.decrypt(basis.encrypted_key)
        except ValueError:
            return None

    async def _ask(self, question: _Question) -> _Answer:
        """Call the model, and once more when its reply holds no valid decision."""
        replies: list[_Reply] = []
        messages: list[Message] = question.messages
        problem = ""
        for call_no in range(1, CALLS_PER_DECISION + 1):
            reply = await self._reply(question, call_no, messages)
            replies.append(reply)
            try:
                decision = parse_reply(reply.text, price_factor=question.frame.price_factor)
            except InvalidReply as e:
                problem = str(e)
                messages = repair_messages(question.messages, reply.text, e)
            else:
                return _Answer(decision=decision, replies=replies, invalid=False)
        hold = Decision(action=Action.HOLD, reasoning=f"No valid reply: {problem}.")
        return _Answer(decision=hold, replies=replies, invalid=True)

    async def _reply(
        self, question: _Question, call_no: int, messages: Sequence[Message]
    ) -> _Reply:
        made = question.calls.get(call_no)
        if call_no > 1 and not _is_done(made):
            key = _key(question.context, question.input, call_no)
            async with self._database.statements_for_user(question.context.user_id) as connection:
                made = await _open(SteppingRepository(connection), key)
        if made is not None and _is_done(made):
            return _stored_reply(made)
        call = asyncio.create_task(self._call(question, call_no, messages))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await _let_it_end(call)
            raise

    async def _call(self, question: _Question, call_no: int, messages: Sequence[Message]) -> _Reply:
        """Send the request and book the reply; an error for which nothing was paid is noted."""
        try:
            reply = await self._send(question, messages)
        except IntegrationError as e:
            if e.was_free:
                await self._note_refusal(question, call_no)
            raise
        asked = question.digest if call_no == 1 else prompt_hash(messages)
        return await self._book(question, call_no, _booked(reply, asked))

    async def _book(self, question: _Question, call_no: int, booked: BookedReply) -> _Reply:
        """Store the reply; where another attempt was first, its reply is the one that counts."""
        context = question.context
        key = _key(context, question.input, call_no)
        attempts = await self._booked_attempts(context.user_id, key, booked)
        if attempts is not None:
            return _booked_reply(booked, attempts)
        async with self._database.statements_for_user(context.user_id) as connection:
            stored = await SteppingRepository(connection).call(key)
        if stored is None or not _is_done(stored):
            raise superseded(question.input.session_id)
        return _stored_reply(stored)

    async def _booked_attempts(
        self, user_id: UUID, key: CallKey, booked: BookedReply
    ) -> int | None:
        """Book with patience: the reply is paid for and is nowhere else yet.

        Temporal's next attempt would have to buy it again, so PostgreSQL is waited for here.
        """
        deadline = time.monotonic() + BOOKING_PATIENCE_S
        while True:
            try:
                async with self._database.statements_for_user(user_id) as connection:
                    return await SteppingRepository(connection).book_call(key, booked)
            except Exception as e:
                if not passes_by_itself(e) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(BOOKING_PAUSE_S)

    async def _send(self, question: _Question, messages: Sequence[Message]) -> ChatReply:
        settings, api_key = question.context.settings, question.api_key
        if api_key is None:
            raise no_api_key()
        request = ChatRequest(
            model=settings.model,
            messages=messages,
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            schema=DECISION_SCHEMA,
            user=str(question.context.user_id),
        )
        fragments = _Fragments(self._publisher, question)
        try:
            return await self._openrouter.stream_chat(
                request,
                api_key=api_key,
                on_text=fragments.add,
                timeout=HTTP_TIMEOUT_S,
            )
        except ReplyTooLarge as e:
            return _cut_off(e, settings.model)

    async def _note_refusal(self, question: _Question, call_no: int) -> None:
        key = _key(question.context, question.input, call_no)
        async with self._database.statements_for_user(question.context.user_id) as connection:
            await SteppingRepository(connection).refuse_call(key)

    async def _record(self, question: _Question, answer: _Answer) -> DecisionResult:
        """Store the decision, what the engine makes of it and its events, in one transaction."""
        context, asked = question.context, question.input
        index = asked.candle_index
        candle = (await self._contexts.frame(context)).candles.candle(index)
        verdict = decide(
            question.state,
            answer.decision,
            candle,
            context.rules,
            is_last=index == context.total_candles - 1,
        )
        happened = _happened(question, answer, verdict)
        state = STATE.dump_json(verdict.state)
        async with self._database.statements_for_user(context.user_id) as connection:
            numbering = await SteppingRepository(connection).store_decision(
                context.session_id,
                _decision_row(question, answer, verdict),
                epoch=asked.epoch,
                events=happened,
                state=state,
            )
        if numbering is None:
            raise superseded(asked.session_id)
        row = NewStep(
            candle_number=index,
            first_seq=numbering.first_seq,
            last_seq=numbering.first_seq + len(happened) - 1,
            happened_at=numbering.first_at,
            events=happened,
            state=state,
        )
        await self._publisher.publish(context.session_id, plain_events(row, "decision"))
        return DecisionResult(
            order=verdict.order, summary=_summary(index, answer.decision, verdict)
        )

    async def _recorded(self, context: SessionContext, input: DecisionInput) -> DecisionResult:
        """What an earlier attempt stored: tell it again, change nothing."""
        async with self._database.for_user(context.user_id) as session:
            steps = StepRepository(session)
            rows = await steps.rows_from(
                context.session_id, phase="decision", candle_number=input.candle_index
            )
            stored = await steps.latest_state(context.session_id)
        if stored is None:
            raise superseded(input.session_id)
        for row in rows:
            await self._publisher.publish(context.session_id, plain_events(row, "decision"))
        return DecisionResult(
            order=STATE.validate_json(stored).pending,
            summary=f"candle {input.candle_index}: recorded",
        )


class _Fragments:
    """Shows the reasoning while it is written, a few times a second."""

    def __init__(self, publisher: EventPublisher, question: _Question) -> None:
        self._publisher = publisher
        self._question = question
        self._text = ""
        self._shown = ""
        self._next_at = time.monotonic() + FRAGMENT_INTERVAL_S

    async def add(self, piece: str) -> None:
        self._text += piece
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + FRAGMENT_INTERVAL_S
        await self._show(partial_reasoning(self._text))

    async def _show(self, text: str) -> None:
        if text == self._shown:
            return
        payload = thinking_payload(
            candle_index=self._question.input.candle_index,
            text=text,
            delta=text[len(self._shown) :],
            is_complete=False,
            attempt=activity.info().attempt,
        )
        self._shown = text
        event = Event(
            seq=None,
            event="ai_thinking",
            data=payload,
            timestamp=iso_timestamp(datetime.now(UTC)),
        )
        await self._publisher.publish(self._question.context.session_id, [event])


def _view(
    context: SessionContext,
    state: SimulationState,
    frame: MarketFrame,
    past: Sequence[PastDecisionRow],
) -> MarketView:
    index, settings = state.next_candle - 1, context.settings
    earlier = range(max(0, index - INDICATOR_VALUES_SHOWN + 1), index)
    values = [frame.values(each) for each in earlier]
    return MarketView(
        asset=None if settings.blind else settings.asset,
        timeframe=context.frame_key.timeframe,
        rules=context.rules,
        strategy_prompt=settings.strategy_prompt,
        candle_index=index,
        candles=frame.window(index + 1, CANDLES_SHOWN),
        indicators=frame.values(index),
        indicator_history={name: [each[name] for each in values] for name in frame.indicators},
        position=state.position,
        equity=state.equity,
        drawdown=state.drawdown,
        last_decisions=[_past(row) for row in past],
        blind=settings.blind,
        price_factor=frame.price_factor,
    )


def _past(row: PastDecisionRow) -> PastDecision:
    rejection = (row.order_data or {}).get("rejection")
    return PastDecision(
        candle_index=row.candle_number,
        action=row.decision,
        confidence=None if row.confidence is None else row.confidence / 100,
        reasoning=row.reasoning,
        outcome=f"rejected: {rejection['reason']}" if rejection else "",
    )


def _check_budget(context: SessionContext, basis: DecisionBasis) -> None:
    limit = context.settings.max_cost_usd
    if limit is not None and basis.cost_usd >= float(limit):
        raise budget_reached(basis.cost_usd, float(limit))


def _key(context: SessionContext, input: DecisionInput, call_no: int) -> CallKey:
    return CallKey(
        session_id=context.session_id,
        epoch=input.epoch,
        candle_number=input.candle_index,
        call_no=call_no,
    )


async def _use_key(
    stepping: SteppingRepository, key: CallKey, basis: DecisionBasis, api_key: str | None
) -> None:
    if api_key is None:
        await stepping.refuse_call(key)
        raise no_api_key()
    if basis.key_id is not None and basis.key_is_idle:
        await stepping.touch_key(basis.key_id)


async def _why_not_opened(
    stepping: SteppingRepository, key: CallKey, context: SessionContext, basis: DecisionBasis
) -> ModelCallRow:
    """There is no key or no budget, or else a twin attempt was quicker: return its call."""
    if basis.encrypted_key is None:
        raise no_api_key()
    _check_budget(context, basis)
    return await _done_by_twin(stepping, key)


async def _open(stepping: SteppingRepository, key: CallKey) -> ModelCallRow | None:
    """Note that a call is about to be made; return it where a twin attempt was quicker."""
    if await stepping.open_call(key, id=_call_id(key)):
        return None
    return await _done_by_twin(stepping, key)


async def _done_by_twin(stepping: SteppingRepository, key: CallKey) -> ModelCallRow:
    made = await stepping.call(key)
    if made is None or made.status != "done":
        raise superseded(str(key.session_id))
    return made


def _call_id(key: CallKey) -> UUID:
    return uuid5(key.session_id, f"call-{key.candle_number}-{key.call_no}")


async def _let_it_end(call: asyncio.Task[_Reply]) -> None:
    done, _ = await asyncio.wait([call], timeout=CANCELLATION_GRACE_S)
    if not done:
        call.cancel()
        await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # retrieved: the cancellation is what counts now


def _is_done(call: ModelCallRow | None) -> bool:
    return call is not None and call.status == "done"


def _stored_reply(call: ModelCallRow) -> _Reply:
    usage = call.usage or {}
    return _Reply(
        text=call.raw_reply or "",
        model=call.model_used,
        tokens_prompt=int(usage.get("prompt_tokens", 0)),
        tokens_completion=int(usage.get("completion_tokens", 0)),
        cost_usd=float(call.cost_usd or 0),
        latency_ms=call.latency_ms or 0,
        attempts=call.attempts,
    )


def _booked_reply(booked: BookedReply, attempts: int) -> _Reply:
    return _Reply(
        text=booked.raw_reply,
        model=booked.model_used,
        tokens_prompt=int(booked.usage["prompt_tokens"]),
        tokens_completion=int(booked.usage["completion_tokens"]),
        cost_usd=booked.cost_usd,
        latency_ms=booked.latency_ms,
        attempts=attempts,
    )


def _booked(reply: ChatReply, request_hash: str) -> BookedReply:
    return BookedReply(
        request_hash=request_hash,
        raw_reply=storable(reply.text),
        usage=asdict(reply.usage),
        tokens=reply.usage.prompt_tokens + reply.usage.completion_tokens,
        cost_usd=reply.usage.cost_usd or 0.0,
        generation_id=reply.generation_id,
        model_used=reply.model,
        latency_ms=round(reply.latency_ms),
    )


def _cut_off(e: ReplyTooLarge, model: str) -> ChatReply:
    """A reply beyond all limits is an invalid one, not an outage."""
    return ChatReply(
        text=str(e),
        reasoning="",
        model=model,
        usage=Usage(),
        generation_id=None,
        finish_reason="length",
        latency_ms=0,
        response_format=None,
    )


def _happened(question: _Question, answer: _Answer, verdict: Verdict) -> list[dict[str, Any]]:
    index = question.input.candle_index
    thinking = thinking_payload(
        candle_index=index,
        text=answer.decision.reasoning,
        delta="",
        is_complete=True,
        attempt=activity.info().attempt,
    )
    decision = decision_payload(
        answer.decision,
        candle_index=index,
        estimate=verdict.estimate,
        overrides=verdict.overrides,
        context=_decision_context(question, answer),
    )
    found: list[dict[str, Any]] = [
        {"event": "ai_thinking", "data": thinking},
        {"event": "ai_decision", "data": decision},
    ]
    if verdict.rejection:
        payload = rejection_payload(verdict.rejection, candle_index=index)
        found.append({"event": "order_rejected", "data": payload})
    return found


def _decision_context(question: _Question, answer: _Answer) -> dict[str, Any]:
    settings = question.context.settings
    return {
        "decision_context": {
            "mode": settings.decision_mode,
            "interval": question.context.cadence.interval,
        },
        "model": answer.replies[-1].model or settings.model,
        "tokens": sum(r.tokens_prompt + r.tokens_completion for r in answer.replies),
        "cost_usd": sum(reply.cost_usd for reply in answer.replies),
        "latency_ms": sum(reply.latency_ms for reply in answer.replies),
        "invalid_reply": answer.invalid,
    }


def _decision_row(question: _Question, answer: _Answer, verdict: Verdict) -> NewDecision:
    context, index = question.context, question.input.candle_index
    candle = question.frame.candles.candle(index)
    decision, replies = answer.decision, answer.replies
    seen = question.frame.values(index)
    return NewDecision(
        id=uuid5(context.session_id, f"decision-{index}"),
        candle_number=index,
        close_time=candle.open_time + context.frame_key.timeframe.milliseconds,
        candle_data=candle_payload(candle, {}, index=index, total=context.total_candles),
        indicator_values=seen,
        reasoning=decision.reasoning,
        decision=decision.action.value,
        confidence=(None if decision.confidence is None else clamped_percent(decision.confidence)),
        order_data=_order_data(decision, verdict),
        overrides=[override_payload(each) for each in verdict.overrides],
        prompt_hash=question.digest,
        prompt_text=zlib.compress(orjson.dumps(question.messages)),
        model_requested=context.settings.model,
        model_used=replies[-1].model,
        tokens_prompt=sum(reply.tokens_prompt for reply in replies),
        tokens_completion=sum(reply.tokens_completion for reply in replies),
        cost_usd=sum(reply.cost_usd for reply in replies),
        latency_ms=sum(reply.latency_ms for reply in replies),
        attempts=sum(reply.attempts for reply in replies),
        invalid_reply=answer.invalid,
    )


def _order_data(decision: Decision, verdict: Verdict) -> dict[str, Any] | None:
    """The order in the words of the contract, and the agent's own terms, from which it replays."""
    if decision.order is None and verdict.rejection is None:
        return None
    estimate, rejection = verdict.estimate, verdict.rejection
    return {
        "type": decision.action.value,
        "entry_price": estimate.entry_price if estimate else None,
        "size": estimate.size if estimate else None,
        "leverage": estimate.leverage if estimate else None,
        "stop_loss": estimate.stop_price if estimate else None,
        "take_profit": estimate.target_price if estimate else None,
        "terms": None if decision.order is None else asdict(decision.order),
        "rejection": (
            {"reason": rejection.reason.value, "detail": rejection.detail} if rejection else None
        ),
    }


def _summary(index: int, decision: Decision, verdict: Verdict) -> str:
    rejected = f" (rejected: {verdict.rejection.reason})" if verdict.rejection else ""
    return f"candle {index}: {decision.action.value}{rejected}"
