"""What the run of any test shares: its controls, its queries, its end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.ai_summaries import AiSummaryActivities, AiSummaryInput
    from activities.decisions import DecisionActivities
    from activities.failures import PAUSE_REASONS, SUPERSEDED
    from activities.key_slots import Turn
    from activities.live_markets import Observation
    from activities.market_data import IndicatorsInput, MarketDataActivities
    from activities.questions import DecisionInput
    from activities.results import FailInput, FinishInput, ResultActivities
    from activities.sessions import (
        ClaimInput,
        ClaimResult,
        ControlInput,
        ControlKind,
        ControlResult,
        SessionActivities,
        StepInput,
    )
    from activities.step_rows import LiveCandle
    from trading.candles import Candle
    from trading.simulation import SimulationState
    from workflows.failures import application_error, failure_message, failure_type
    from workflows.messages import Control, Progress, SessionParams, SessionResult
    from workflows.policies import (
        AI_SUMMARY,
        AI_SUMMARY_PATIENCE,
        DECISION,
        FINISH,
        INDICATORS,
        STEP,
    )
    from workflows.queues import decision_queue

STATUS = SearchAttributeKey.for_keyword("AlphaStatus")
PNL_PCT = SearchAttributeKey.for_float("AlphaPnlPct")

T = TypeVar("T")


class SessionRun:
    """The part of a test's workflow that does not depend on where its candles come from."""

    def __init__(self, params: SessionParams) -> None:
        self._params = params
        self._inbox: list[ControlInput] = []
        self._claim: ClaimResult | None = None
        self._state: SimulationState | None = None
        self._decision_due = False
        # Of the decision that is due; it ends with the candle, and with a pause.
        self._turn = params.turn
        self._paused = False
        self._pause_reason: str | None = None
        self._speed = "normal"
        self._stopping = False
        self._last_decision: str | None = None
        self._look_at: float | None = None

    @workflow.signal
    def pause(self, control: Control | None = None) -> None:
        self._receive("pause", control)

    @workflow.signal
    def resume(self, control: Control | None = None) -> None:
        self._receive("resume", control)

    @workflow.signal
    def stop(self, control: Control | None = None) -> None:
        self._receive("stop", control)

    @workflow.query
    def progress(self) -> Progress:
        state, claim = self._state, self._claim
        return Progress(
            status="paused" if self._paused else "running",
            pause_reason=self._pause_reason,
            current_candle=state.next_candle if state else 0,
            total_candles=claim.total_candles if claim else 0,
            equity=state.equity if state else None,
            pnl_pct=self._pnl_pct() if state else None,
            speed=self._speed,
            last_decision=self._last_decision,
            next_candle_at=self._look_at,
        )

    @workflow.query
    def state(self) -> SimulationState | None:
        return self._state

    async def _to_its_end(self) -> SessionResult:
        """Own the session and run its test, unless it has ended or belongs to another run."""
        try:
            claim = await self._take_ownership()
            if claim.finished_result_id is None:
                return await self._test(claim)
            return SessionResult(
                session_id=self._params.session_id,
                status="completed",
                result_id=claim.finished_result_id,
            )
        except ActivityError as e:
            if failure_type(e) == SUPERSEDED:
                return SessionResult(session_id=self._params.session_id, status="superseded")
            if is_cancelled_exception(e):  # by an operator: reconciliation takes it up again
                raise
            return await self._fail(e)

    async def _test(self, claim: ClaimResult) -> SessionResult:
        raise NotImplementedError

    async def _take_ownership(self) -> ClaimResult:
        """Raise the session's epoch and take up what the database says."""
        claim = await workflow.execute_activity_method(
            SessionActivities.claim,
            ClaimInput(session_id=self._params.session_id, user_id=self._params.user_id),
            summary="claim the session",
            **STEP,
        )
        self._claim, self._state = claim, claim.state
        self._decision_due = claim.decision_due or self._params.decision_due
        self._paused, self._pause_reason = claim.paused, claim.pause_reason
        self._speed, self._stopping = claim.speed, claim.stopping
        self._show()
        return claim

    async def _look_at_candle(self, index: int) -> Candle:
        """Candle `index`, with its indicators computed for whoever decides on it."""
        view = await workflow.execute_activity_method(
            MarketDataActivities.calculate_indicators,
            IndicatorsInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                candle_index=index,
            ),
            summary=f"candle {index}: indicators",
            **INDICATORS,
        )
        return view.candle

    async def _step_candle(
        self, claim: ClaimResult, index: int, candle: Candle, live: LiveCandle | None = None
    ) -> SimulationState:
        """Step candle `index`; return the state after it."""
        self._turn = None
        self._state = await workflow.execute_activity_method(
            SessionActivities.execute_step,
            StepInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=self._require_state(),
                candle=candle,
                live=live,
            ),
            summary=f"candle {index}: step",
            **STEP,
        )
        return self._state

    async def _decide(
        self, claim: ClaimResult, index: int, market: Observation | None = None
    ) -> None:
        """Ask the agent at the close of candle `index`; trouble with the model pauses the test."""
        request = workflow.start_activity_method(
            DecisionActivities.request_decision,
            DecisionInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                candle_index=index,
                late_from=market.next_close if market else None,
                turn=self._turn or Turn(since=workflow.time()),
            ),
            task_queue=decision_queue(workflow.info().task_queue),
            summary=f"candle {index}: decision",
            **DECISION,
        )
        try:
            outcome = await self._unless_stopped(request)
        except ActivityError as e:
            self._turn = None
            self._take_trouble(e)
            return
        self._turn = outcome.turn
        if outcome.turn is not None:  # its key is busy: the loop asks again
            if outcome.pause_s:
                await self._wait(timedelta(seconds=outcome.pause_s), "its key's turn")
            return
        self._state = replace(self._require_state(), pending=outcome.order)
        self._last_decision = outcome.summary
        self._decision_due = False

    async def _unless_stopped(self, request: workflow.ActivityHandle[T]) -> T:
        """Await the activity; a stop cancels it and lets it book what was paid."""
        return await self._unless(self._stop_is_waiting, request)

    async def _unless(
        self, condition: Callable[[], bool], request: workflow.ActivityHandle[T]
    ) -> T:
        """Await the activity, which is cancelled as soon as the condition holds."""
        stop = asyncio.create_task(workflow.wait_condition(condition))
        try:
            await workflow.wait([request, stop], return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                request.cancel()
            return await request
        finally:
            stop.cancel()

    def _take_trouble(self, e: ActivityError) -> None:
        """Pause for what the model's provider said; anything else leaves the decision due.

        A stop that cancelled the call, a worker that was away for long, a database that was:
        none of them is the model's doing, and the loop asks again.
        """
        trouble = application_error(e)
        if is_cancelled_exception(e) or trouble is None:
            return
        reason = PAUSE_REASONS.get(trouble.type or "")
        if reason is not None:
            pause = Control(signal_id=f"trouble-{workflow.uuid4()}")
            self._inbox.insert(
                0, self._control("pause", pause, reason=reason, message=trouble.message)
            )
        elif trouble.non_retryable:
            raise e

    async def _apply_inbox(self, claim: ClaimResult) -> None:
        """Record what was asked for, in order."""
        while self._inbox:
            control = self._inbox[0]
            self._apply(control, await self._record(claim, control))
            self._inbox.pop(0)

    async def _wait(self, limit: timedelta, summary: str) -> None:
        """A durable timer that any signal cuts short."""
        waiting: Awaitable[None] = workflow.wait_condition(
            self._is_woken, timeout=limit, timeout_summary=summary
        )
        try:
            await waiting
        except TimeoutError:
            return

    async def _record(self, claim: ClaimResult, control: ControlInput) -> ControlResult:
        return await workflow.execute_activity_method(
            SessionActivities.record_control,
            control.owned_by(
                claim.epoch, self._require_state().next_candle, was_paused=self._paused
            ),
            summary=control.kind,
            **STEP,
        )

    def _apply(self, control: ControlInput, outcome: ControlResult) -> None:  # noqa: ARG002
        was_paused = self._paused
        self._paused, self._pause_reason = outcome.paused, outcome.pause_reason
        self._speed, self._stopping = outcome.speed, outcome.stopping
        if self._paused:
            self._turn = None
        if was_paused != self._paused:
            self._publish_status("paused" if self._paused else "running")
        self._show()

    def _continue_as_new_when_suggested(self) -> None:
        # Handlers only append to the inbox, so an empty inbox is all that has to be waited for.
        if workflow.info().is_continue_as_new_suggested() and not self._inbox:
            workflow.continue_as_new(
                replace(self._params, decision_due=self._decision_due, turn=self._turn)
            )

    async def _finish(self, claim: ClaimResult) -> SessionResult:
        finished = await workflow.execute_activity_method(
            ResultActivities.finish,
            FinishInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=self._require_state(),
            ),
            summary="result",
            **FINISH,
        )
        workflow.upsert_search_attributes(
            [STATUS.value_set("completed"), PNL_PCT.value_set(finished.final_pnl_pct)]
        )
        return SessionResult(
            session_id=self._params.session_id,
            status="completed",
            result_id=finished.result_id,
            final_pnl_pct=finished.final_pnl_pct,
            trades_total=finished.trades_total,
        )

    async def _sum_up(self, claim: ClaimResult) -> None:
        """Have the model sum the test up, if that was asked for; its result is stored already.

        Whatever goes wrong, the test has ended well.
        """
        if not claim.ai_summary:
            return
        turn: Turn | None = Turn(since=workflow.time())
        until = workflow.time() + AI_SUMMARY_PATIENCE.total_seconds()
        try:
            while turn is not None and workflow.time() < until:
                turn = await self._write_summary(claim, turn)
        except ActivityError as e:
            if is_cancelled_exception(e):
                raise
            workflow.logger.warning("no AI summary: %s", failure_type(e) or "none in time")

    async def _write_summary(self, claim: ClaimResult, turn: Turn) -> Turn | None:
        """Ask for the summary; return the turn where its key is busy, and some time has passed."""
        written = await workflow.execute_activity_method(
            AiSummaryActivities.write_ai_summary,
            AiSummaryInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                turn=turn,
            ),
            task_queue=decision_queue(workflow.info().task_queue),
            summary="AI summary",
            **AI_SUMMARY,
        )
        if written.turn is not None:
            await workflow.sleep(written.pause_s)
        return written.turn

    async def _fail(self, e: ActivityError) -> SessionResult:
        """A defect of ours ended the test: say so where its owner and operators see it."""
        await workflow.execute_activity_method(
            ResultActivities.fail,
            FailInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=self._claim.epoch if self._claim else None,
                error_code=failure_type(e) or "ActivityFailed",
                message=failure_message(e),
            ),
            summary="failure",
            **STEP,
        )
        workflow.upsert_search_attributes([STATUS.value_set("failed")])
        raise ApplicationError(failure_message(e), type=failure_type(e)) from e

    def _receive(self, kind: ControlKind, control: Control | None) -> None:
        control = control or Control()
        if not control.signal_id:
            control = Control(
                signal_id=str(workflow.uuid4()),
                speed=control.speed,
                close_position=control.close_position,
            )
        self._inbox.append(self._control(kind, control))

    def _control(
        self,
        kind: ControlKind,
        control: Control,
        *,
        reason: str = "user",
        message: str | None = None,
    ) -> ControlInput:
        return ControlInput(
            session_id=self._params.session_id,
            user_id=self._params.user_id,
            control_id=control.signal_id,
            kind=kind,
            reason=reason,
            message=message,
            speed=control.speed,
            close_position=control.close_position,
        )

    def _is_woken(self) -> bool:
        """Whether something has come that is not to wait for a timer."""
        return bool(self._inbox)

    def _stop_is_waiting(self) -> bool:
        return any(control.kind == "stop" for control in self._inbox)

    def _require_state(self) -> SimulationState:
        if self._state is None:
            raise RuntimeError("the session was not claimed")
        return self._state

    def _pnl_pct(self) -> float:
        capital = self._claim.starting_capital if self._claim else 0.0
        return (self._require_state().equity / capital - 1) * 100 if capital else 0.0

    def _publish_status(self, status: str) -> None:
        workflow.upsert_search_attributes(
            [STATUS.value_set(status), PNL_PCT.value_set(self._pnl_pct())]
        )

    def _show(self) -> None:
        """What operators see in the Web UI; costs no history event."""
        progress = self.progress()
        workflow.set_current_details(
            f"**candle {progress.current_candle} of {progress.total_candles}** "
            f"({progress.status}{f', {self._pause_reason}' if self._pause_reason else ''})\n\n"
            f"equity {progress.equity or 0:,.2f} ({progress.pnl_pct or 0:+.2f} %)\n\n"
            f"last decision: {self._last_decision or 'none yet'}"
        )
