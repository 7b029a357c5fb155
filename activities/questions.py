"""What a decision is asked with, and what its answer leaves behind: a row and its events."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid5

import orjson
from temporalio import activity

from activities.contexts import SessionContext
from activities.key_slots import Turn
from activities.step_rows import STATE, clamped_percent
from agents.prompts import (
    CANDLES_SHOWN,
    INDICATOR_VALUES_SHOWN,
    MarketView,
    Message,
    PastDecision,
)
from agents.replies import storable
from db.market_frames import MarketFrame
from db.repositories.stepping import (
    BookedReply,
    DecisionOutcome,
    ModelCallRow,
    NewDecision,
    PastDecisionRow,
)
from events.payloads import (
    candle_payload,
    decision_payload,
    override_payload,
    rejection_payload,
    thinking_payload,
)
from events.shapes import DecisionFacts
from integrations.errors import ReplyTooLarge
from integrations.openrouter.schemas import ChatReply, Usage
from trading.decisions import Decision
from trading.simulation import SimulationState, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInput:
    """The candle that just closed; the state after it is the session's latest.

    On the live market a decision that is not there by `late_from`, when the next candle closes (in
    the exchange's epoch ms), fills nothing. `turn` is the place in the line of its key; a workflow
    that gives none is of before there were any, and takes none back.
    """

    session_id: str
    user_id: str
    epoch: int
    candle_index: int
    late_from: int | None = None
    turn: Turn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A booked call, whether this attempt or an earlier one made it."""

    text: str
    model: str | None
    tokens_prompt: int
    tokens_completion: int
    cost_usd: float
    latency_ms: int
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
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
class Answer:
    """A decision and the calls it took; `invalid` when the agent holds for want of a valid one."""

    decision: Decision
    replies: Sequence[Reply]
    invalid: bool
    late: bool = False


def market_view(
    context: SessionContext,
    state: SimulationState,
    frame: MarketFrame,
    past: Sequence[PastDecisionRow],
) -> MarketView:
    index, settings = state.next_candle - 1, context.settings
    return MarketView(
        asset=None if settings.blind else settings.asset,
        timeframe=context.frame_key.timeframe,
        rules=context.rules,
        strategy_prompt=settings.strategy_prompt,
        candle_index=index,
        candles=frame.window(index + 1, CANDLES_SHOWN),
        indicators=frame.values(index),
        indicator_history=frame.values_before(index, INDICATOR_VALUES_SHOWN - 1),
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


def stored_reply(call: ModelCallRow) -> Reply:
    usage = call.usage or {}
    return Reply(
        text=call.raw_reply or "",
        model=call.model_used,
        tokens_prompt=int(usage.get("prompt_tokens", 0)),
        tokens_completion=int(usage.get("completion_tokens", 0)),
        cost_usd=float(call.cost_usd or 0),
        latency_ms=call.latency_ms or 0,
        attempts=call.attempts,
    )


def bought_reply(booked: BookedReply, attempts: int) -> Reply:
    return Reply(
        text=booked.raw_reply,
        model=booked.model_used,
        tokens_prompt=int(booked.usage["prompt_tokens"]),
        tokens_completion=int(booked.usage["completion_tokens"]),
        cost_usd=booked.cost_usd,
        latency_ms=booked.latency_ms,
        attempts=attempts,
    )


def booking(reply: ChatReply, request_hash: str, source: str) -> BookedReply:
    return BookedReply(
        request_hash=request_hash,
        raw_reply=storable(reply.text),
        usage=asdict(reply.usage),
        tokens=reply.usage.prompt_tokens + reply.usage.completion_tokens,
        cost_usd=reply.usage.cost_usd or 0.0,
        generation_id=reply.generation_id,
        model_used=reply.model,
        model_source=source,
        latency_ms=round(reply.latency_ms),
    )


def decision_outcome(question: Question, answer: Answer, verdict: Verdict) -> DecisionOutcome:
    """All that a decision leaves behind, to be stored at once."""
    return DecisionOutcome(
        session_id=question.context.session_id,
        decision=_decision_row(question, answer, verdict),
        events=_happened(question, answer, verdict),
        state=STATE.dump_json(verdict.state),
    )


def _happened(question: Question, answer: Answer, verdict: Verdict) -> list[dict[str, Any]]:
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
        facts=_facts(question, answer),
    )
    found: list[dict[str, Any]] = [
        {"event": "ai_thinking", "data": thinking},
        {"event": "ai_decision", "data": decision},
    ]
    if verdict.rejection:
        payload = rejection_payload(verdict.rejection, candle_index=index)
        found.append({"event": "order_rejected", "data": payload})
    return found


def _facts(question: Question, answer: Answer) -> DecisionFacts:
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
        "late": answer.late,
    }


def _decision_row(question: Question, answer: Answer, verdict: Verdict) -> NewDecision:
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
        late=answer.late,
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


def summary(index: int, decision: Decision, verdict: Verdict) -> str:
    rejected = f" (rejected: {verdict.rejection.reason})" if verdict.rejection else ""
    return f"candle {index}: {decision.action.value}{rejected}"


def cut_off(e: ReplyTooLarge, model: str) -> ChatReply:
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
