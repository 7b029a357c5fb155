"""The agent's decision at a candle's close: the only code that calls a model.

A decision is bought once. Each call has a row that says `started` before the request and `done`
with the raw reply, whatever the reply is worth; an attempt that comes later goes on from there.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity

from activities.contexts import SessionContext, SessionContexts
from activities.failures import (
    DECISION_ATTEMPTS,
    activity_failures,
    budget_reached,
    model_failures,
    no_api_key,
    superseded,
)
from activities.heartbeats import heartbeating
from activities.key_slots import KeySlots, StillWaiting, Turn
from activities.model_calls import ModelCalls, call_id, carried_out, done_by_twin, is_done
from activities.questions import (
    Answer,
    DecisionInput,
    Question,
    Reply,
    booking,
    bought_reply,
    cut_off,
    decision_outcome,
    market_view,
    stored_reply,
    summary,
)
from activities.step_rows import STATE, plain_events
from agents.prompts import (
    DECISIONS_SHOWN,
    MAX_REASONING_SHOWN,
    Message,
    build_messages,
    prompt_hash,
)
from agents.replies import (
    DECISION_SCHEMA,
    InvalidReply,
    parse_reply,
    partial_reasoning,
    repair_messages,
)
from db.engine import Database
from db.repositories.stepping import (
    Bill,
    CallKey,
    DecisionBasis,
    DecisionOutcome,
    ModelCallRow,
    SteppingRepository,
)
from db.repositories.steps import NewStep, Numbering, StepRepository
from events.payloads import thinking_payload
from events.publisher import EventPublisher
from events.types import Event, iso_timestamp
from integrations.errors import IntegrationError, ReplyTooLarge
from integrations.openrouter.client import OpenRouterClient
from integrations.openrouter.schemas import ChatReply, ChatRequest
from trading.candles import Candle
from trading.decisions import Action, Decision
from trading.orders import PendingOrder
from trading.simulation import decide, overtaken

# A second call after a reply that cannot be used, and no third: then the agent holds.
CALLS_PER_DECISION = 2
TEMPERATURE = 0.3
MAX_TOKENS = 1_000
HTTP_TIMEOUT_S = 30.0
# So long an attempt waits for its key's turn.
TURN_PATIENCE_S = 30.0
# So long a test whose turn did not come stays away from the worker before it asks again.
TURN_PAUSE_S = 2.0
# Watchers see the text grow ten times a second; every fragment repeats it whole.
FRAGMENT_INTERVAL_S = 0.1

# Epoch milliseconds, as the exchange counts them.
ExchangeTime = Callable[[], Awaitable[int]]


class KeyRing(Protocol):
    """Opens what `api_keys` stores."""

    def decrypt(self, token: str) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionResult:
    """The order that came of the decision, if one did, and a line for operators.

    An order is all that a decision changes of the simulation's state. With a `turn` nothing was
    decided yet: the key was busy, and the decision is to be asked for again with it, `pause_s`
    seconds later.
    """

    order: PendingOrder | None
    summary: str
    turn: Turn | None = None
    pause_s: float = 0.0


class DecisionActivities:
    """Asks models for decisions."""

    def __init__(
        self,
        database: Database,
        contexts: SessionContexts,
        publisher: EventPublisher,
        openrouter: OpenRouterClient,
        keys: KeyRing,
        *,
        slots: KeySlots,
        exchange_time: ExchangeTime,
    ) -> None:
        self._database = database
        self._calls = ModelCalls(database)
        self._contexts = contexts
        self._publisher = publisher
        self._openrouter = openrouter
        self._keys = keys
        self._slots = slots
        self._exchange_time = exchange_time

    @activity.defn
    async def request_decision(self, input: DecisionInput) -> DecisionResult:
        """Return the recorded decision of a candle, buying it first if there is none."""
        failures = model_failures(is_last=_failed_before(input) + 1 >= DECISION_ATTEMPTS)
        with activity_failures(), failures, heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            decided = await self._decide_in_turn(context, input)
            return decided or await self._recorded(context, input)

    async def _decide_in_turn(
        self, context: SessionContext, input: DecisionInput
    ) -> DecisionResult | None:
        """Decide when it is the key's turn; None when the decision is recorded.

        What is bought already needs neither a key nor a turn. A turn that does not come is handed
        back, so that neither this attempt's time nor the worker's places are spent on waiting.
        """
        question = await self._prepare(context, input)
        if question is None:
            return None
        if question.api_key is None or not _is_to_be_bought(question):
            return await self._decide(question)
        line = self._slots.of(question.api_key)
        if line.is_free:
            async with line.turn():
                return await self._decide(question)
        # The call that was opened is withdrawn: a worker that dies meanwhile leaves none that looks
        # paid for.
        await self._note_refusal(question, 1)
        turn = input.turn
        if turn is None:  # of a workflow that takes none back
            async with line.turn():
                return await self._decide_after_wait(context, input)
        try:
            async with line.turn(since=turn.since, patience=TURN_PATIENCE_S):
                return await self._decide_after_wait(context, input)
        except StillWaiting:
            return _handed_back(input, turn)

    async def _decide_after_wait(
        self, context: SessionContext, input: DecisionInput
    ) -> DecisionResult | None:
        """Read anew what is old after a wait, the key, the owner, the calls, and decide."""
        question = await self._prepare(context, input)
        return None if question is None else await self._decide(question)

    async def _prepare(self, context: SessionContext, input: DecisionInput) -> Question | None:
        """Open the first call and compose the prompt; None when the decision is recorded."""
        index = input.candle_index
        frame = await self._contexts.seen_frame(context, holding=index + 1)
        key = _key(context, input, 1)
        async with self._database.statements_for_user(context.user_id) as connection:
            stepping = SteppingRepository(connection)
            basis = await stepping.begin_decision(
                key,
                id=call_id(key),
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
            elif not is_done(calls.get(1)):
                calls[1] = await _why_not_opened(stepping, key, context, basis)
        state = STATE.validate_json(basis.state)
        messages = build_messages(market_view(context, state, frame, basis.past))
        return Question(
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

    async def _decide(self, question: Question) -> DecisionResult | None:
        """Call the model, and once more when its reply holds no valid decision; None: superseded.

        A valid reply is stored together with its decision where it was just bought.
        """
        replies: list[Reply] = []
        messages: list[Message] = question.messages
        problem = ""
        for call_no in range(1, CALLS_PER_DECISION + 1):
            reply = await self._reply(question, call_no, messages, replies)
            if isinstance(reply, DecisionResult):
                return reply
            replies.append(reply)
            try:
                decision = _parsed(question, reply)
            except InvalidReply as e:
                problem = str(e)
                messages = repair_messages(question.messages, reply.text, e)
            else:
                answer = Answer(decision=decision, replies=replies, invalid=False)
                return await self._record(question, answer)
        hold = Decision(action=Action.HOLD, reasoning=f"No valid reply: {problem}.")
        return await self._record(question, Answer(decision=hold, replies=replies, invalid=True))

    async def _reply(
        self,
        question: Question,
        call_no: int,
        messages: Sequence[Message],
        earlier: Sequence[Reply],
    ) -> Reply | DecisionResult:
        made = question.calls.get(call_no)
        if call_no > 1 and not is_done(made):
            made = await self._open(question, call_no)
        if made is not None and is_done(made):
            return stored_reply(made)
        return await carried_out(self._buy(question, call_no, messages, earlier))

    async def _open(self, question: Question, call_no: int) -> ModelCallRow | None:
        """Note that a call is about to be made; return it where a twin attempt was quicker."""
        if question.api_key is None:
            raise no_api_key()
        key = _key(question.context, question.input, call_no)
        return await self._calls.open(question.context.user_id, key)

    async def _buy(
        self,
        question: Question,
        call_no: int,
        messages: Sequence[Message],
        earlier: Sequence[Reply],
    ) -> Reply | DecisionResult:
        """Send the request, and store the reply: with its decision, or alone if it holds none.

        An error for which nothing was paid is noted.
        """
        try:
            received = await self._send(question, messages)
        except IntegrationError as e:
            if e.was_free:
                await self._note_refusal(question, call_no)
            raise
        asked = question.digest if call_no == 1 else prompt_hash(messages)
        bill = Bill(
            key=_key(question.context, question.input, call_no),
            reply=booking(received, asked, self._openrouter.source),
        )
        try:
            recorded = await self._record(question, _answered(question, bill, earlier), bill)
        except InvalidReply:
            recorded = None
        except Exception:
            # Whatever is wrong with what it says, the reply is paid for.
            await self._calls.book(question.context.user_id, bill)
            raise
        return recorded or await self._calls.book(question.context.user_id, bill)

    async def _send(self, question: Question, messages: Sequence[Message]) -> ChatReply:
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
            return cut_off(e, settings.model)

    async def _note_refusal(self, question: Question, call_no: int) -> None:
        key = _key(question.context, question.input, call_no)
        await self._calls.refuse(question.context.user_id, key)

    async def _record(
        self, question: Question, answer: Answer, bill: Bill | None = None
    ) -> DecisionResult | None:
        """Store the decision, what the engine makes of it and its events, in one statement.

        With a `bill` its reply is stored in the same one. None when nothing was stored.
        """
        context, index = question.context, question.input.candle_index
        answer = replace(answer, late=await self._is_late(question.input))
        verdict = decide(
            question.state,
            answer.decision,
            await self._candle(question),
            context.rules,
            is_last=index == context.total_candles - 1,
        )
        if answer.late:
            verdict = overtaken(verdict)
        outcome = decision_outcome(question, answer, verdict)
        numbering = await self._stored(question, outcome, bill)
        if numbering is None:
            return None
        row = NewStep(
            candle_number=index,
            first_seq=numbering.first_seq,
            last_seq=numbering.first_seq + len(outcome.events) - 1,
            happened_at=numbering.first_at,
            events=outcome.events,
            state=outcome.state,
        )
        await self._publisher.publish(context.session_id, plain_events(row, "decision"))
        return DecisionResult(order=verdict.order, summary=summary(index, answer.decision, verdict))

    async def _candle(self, question: Question) -> Candle:
        """The candle in real prices, which a blind agent does not see."""
        index = question.input.candle_index
        frame = await self._contexts.frame(question.context, holding=index + 1)
        return frame.candles.candle(index)

    async def _is_late(self, input: DecisionInput) -> bool:
        if input.late_from is None:
            return False
        return await self._exchange_time() >= input.late_from

    async def _stored(
        self, question: Question, outcome: DecisionOutcome, bill: Bill | None
    ) -> Numbering | None:
        user_id, epoch = question.context.user_id, question.input.epoch
        if bill is not None:
            return await self._calls.patiently(user_id, lambda s: s.book_decision(bill, outcome))
        async with self._database.statements_for_user(user_id) as connection:
            return await SteppingRepository(connection).store_decision(outcome, epoch=epoch)

    async def _recorded(self, context: SessionContext, input: DecisionInput) -> DecisionResult:
        """What an earlier attempt stored: tell it again, change nothing."""
        async with self._database.for_user(context.user_id) as session:
            steps = StepRepository(session)
            rows = await steps.rows_from(
                context.session_id, phase="decision", candle_number=input.candle_index
            )
            stored = await steps.latest_state(context.session_id)
        if stored is None or not rows:
            raise superseded(input.session_id)
        for row in rows:
            await self._publisher.publish(context.session_id, plain_events(row, "decision"))
        return DecisionResult(
            order=STATE.validate_json(stored).pending,
            summary=f"candle {input.candle_index}: recorded",
        )


class _Fragments:
    """Shows the reasoning while it is written, a few times a second."""

    def __init__(self, publisher: EventPublisher, question: Question) -> None:
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


def _failed_before(input: DecisionInput) -> int:
    """Attempts at this decision that failed, those before it waited included."""
    earlier = 0 if input.turn is None else input.turn.failed
    return earlier + activity.info().attempt - 1


def _handed_back(input: DecisionInput, turn: Turn) -> DecisionResult:
    return DecisionResult(
        order=None,
        summary=f"candle {input.candle_index}: waits for its key",
        turn=replace(turn, failed=_failed_before(input)),
        pause_s=TURN_PAUSE_S,
    )


def _is_to_be_bought(question: Question) -> bool:
    """Whether a call has to be made: no reply is usable yet, and another may be asked for."""
    for call_no in range(1, CALLS_PER_DECISION + 1):
        made = question.calls.get(call_no)
        if made is None or not is_done(made):
            return True
        try:
            _parsed(question, stored_reply(made))
        except InvalidReply:
            continue
        return False
    return False


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
    return await done_by_twin(stepping, key)


def _parsed(question: Question, reply: Reply) -> Decision:
    return parse_reply(reply.text, price_factor=question.frame.price_factor)


def _answered(question: Question, bill: Bill, earlier: Sequence[Reply]) -> Answer:
    """The decision that a reply holds which is not stored yet. Raises InvalidReply."""
    reply = bought_reply(bill.reply, attempts=0)  # the statement that stores it adds its own
    return Answer(decision=_parsed(question, reply), replies=[*earlier, reply], invalid=False)
