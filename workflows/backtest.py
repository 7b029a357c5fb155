"""A backtest: an agent trades recorded candles, one durable step after another."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.decisions import DecisionActivities
    from activities.failures import PAUSE_REASONS, SUPERSEDED
    from activities.market_data import IndicatorsInput, MarketDataActivities
    from activities.questions import DecisionInput
    from activities.results import FailInput, FinishInput, ResultActivities
    from activities.sessions import (
        ChunkInput,
        ClaimInput,
        ClaimResult,
        ControlInput,
        ControlKind,
        ControlResult,
        SessionActivities,
        StepInput,
    )
    from trading.simulation import SimulationState
    from workflows.policies import (
        CHUNK,
        DECISION,
        FINISH,
        INDICATORS,
        PLAYBACK_DELAY,
        STEP,
    )

STATUS = SearchAttributeKey.for_keyword("AlphaStatus")
PNL_PCT = SearchAttributeKey.for_float("AlphaPnlPct")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestParams:
    """What a run needs to know; everything else is the session's row."""

    session_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestResult:
    """How a test ended; `result_id` is None when it failed or another run owns it."""

    session_id: str
    status: str
    result_id: str | None = None
    final_pnl_pct: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A wish of the user's; sent twice with one `signal_id`, it counts once."""

    signal_id: str = ""
    speed: str | None = None
    close_position: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a running test stands, for queries."""

    status: str
    pause_reason: str | None
    current_candle: int
    total_candles: int
    equity: float | None
    pnl_pct: float | None
    speed: str
    last_decision: str | None


@workflow.defn(name="backtest", failure_exception_types=[])
class BacktestWorkflow:
    """Holds ids, the cursor and the simulation state; the database owns everything else."""

    @workflow.init
    def __init__(self, params: BacktestParams) -> None:
        self._params = params
        self._inbox: list[ControlInput] = []
        self._claim: ClaimResult | None = None
        self._state: SimulationState | None = None
        self._decision_due = False
        self._paused = False
        self._pause_reason: str | None = None
        self._speed = "normal"
        self._stopping = False
        self._last_decision: str | None = None

    @workflow.run
    async def run(self, params: BacktestParams) -> BacktestResult:
        try:
            return await self._test()
        except ActivityError as e:
            if _failure_type(e) == SUPERSEDED:
                return BacktestResult(session_id=params.session_id, status="superseded")
            if is_cancelled_exception(e):  # by an operator: reconciliation takes it up again
                raise
            return await self._fail(e)

    @workflow.signal
    def pause(self, control: Control | None = None) -> None:
        self._receive("pause", control)

    @workflow.signal
    def resume(self, control: Control | None = None) -> None:
        self._receive("resume", control)

    @workflow.signal
    def set_speed(self, control: Control) -> None:
        if control.speed in PLAYBACK_DELAY:
            self._receive("speed", control)
        else:
            workflow.logger.warning("ignored an unknown speed")

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
        )

    @workflow.query
    def state(self) -> SimulationState | None:
        return self._state

    async def _test(self) -> BacktestResult:
        claim = await self._take_ownership()
        if claim.finished_result_id is not None:
            return BacktestResult(
                session_id=self._params.session_id,
                status="completed",
                result_id=claim.finished_result_id,
            )
        while not self._is_over(claim):
            await self._settle_controls(claim)
            if self._stopping:
                break
            await self._advance(claim)
            self._continue_as_new_when_suggested()
        return await self._finish(claim)

    async def _take_ownership(self) -> ClaimResult:
        """Raise the session's epoch and take up what the database says."""
        claim = await workflow.execute_activity_method(
            SessionActivities.claim,
            ClaimInput(session_id=self._params.session_id, user_id=self._params.user_id),
            summary="claim the session",
            **STEP,
        )
        self._claim, self._state = claim, claim.state
        self._decision_due = claim.decision_due
        self._paused, self._pause_reason = claim.paused, claim.pause_reason
        self._speed, self._stopping = claim.speed, claim.stopping
        self._show()
        return claim

    def _is_over(self, claim: ClaimResult) -> bool:
        state = self._require_state()
        at_end = state.next_candle >= claim.total_candles and not self._decision_due
        return self._stopping or at_end or state.ended is not None

    async def _advance(self, claim: ClaimResult) -> None:
        """Take the next decision, or the next candle, or the next stretch without a decision."""
        index = self._require_state().next_candle
        if self._decision_due:
            await self._decide(claim, index - 1)
        elif self._speed == "instant" and not claim.cadence.is_due(index):
            await self._run_chunk(claim, index)
        else:
            await self._step(claim, index)
        self._show()
        if not self._decision_due:
            await self._wait_for_playback()

    async def _step(self, claim: ClaimResult, index: int) -> None:
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
        self._state = await workflow.execute_activity_method(
            SessionActivities.execute_step,
            StepInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=self._require_state(),
                candle=view.candle,
            ),
            summary=f"candle {index}: step",
            **STEP,
        )
        self._decision_due = claim.cadence.is_due(index) and self._state.ended is None

    async def _run_chunk(self, claim: ClaimResult, index: int) -> None:
        self._state = await workflow.execute_activity_method(
            SessionActivities.run_candles,
            ChunkInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=self._require_state(),
                stop=min(claim.cadence.next_due(index), claim.total_candles),
            ),
            summary=f"candles from {index}",
            **CHUNK,
        )

    async def _decide(self, claim: ClaimResult, index: int) -> None:
        """Ask the agent at the close of candle `index`; trouble with the model pauses the test."""
        request = workflow.start_activity_method(
            DecisionActivities.request_decision,
            DecisionInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                candle_index=index,
            ),
            task_queue=decision_queue(workflow.info().task_queue),
            summary=f"candle {index}: decision",
            **DECISION,
        )
        try:
            outcome = await self._unless_stopped(request)
        except ActivityError as e:
            self._take_trouble(e)
            return
        self._state = replace(self._require_state(), pending=outcome.order)
        self._last_decision = outcome.summary
        self._decision_due = False

    async def _unless_stopped(self, request: workflow.ActivityHandle[T]) -> T:
        """Await the activity; a stop cancels it and lets it book what was paid."""
        stop = asyncio.create_task(workflow.wait_condition(self._stop_is_waiting))
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
        trouble = _application_error(e)
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

    async def _settle_controls(self, claim: ClaimResult) -> None:
        """Apply what the user asked for, in order, and stay here while the test is paused."""
        while True:
            while self._inbox:
                self._apply(await self._record(claim, self._inbox[0]))
                self._inbox.pop(0)
            if self._stopping or not self._paused:
                return
            self._continue_as_new_when_suggested()
            await workflow.wait_condition(lambda: bool(self._inbox))

    async def _record(self, claim: ClaimResult, control: ControlInput) -> ControlResult:
        return await workflow.execute_activity_method(
            SessionActivities.record_control,
            control.owned_by(
                claim.epoch, self._require_state().next_candle, was_paused=self._paused
            ),
            summary=control.kind,
            **STEP,
        )

    def _apply(self, outcome: ControlResult) -> None:
        was_paused = self._paused
        self._paused, self._pause_reason = outcome.paused, outcome.pause_reason
        self._speed, self._stopping = outcome.speed, outcome.stopping
        if was_paused != self._paused:
            self._publish_status("paused" if self._paused else "running")
        self._show()

    async def _wait_for_playback(self) -> None:
        """The pause between two candles, cut short by any signal."""
        delay = PLAYBACK_DELAY[self._speed]
        if delay and not self._inbox:
            await _until(lambda: bool(self._inbox), delay)

    def _continue_as_new_when_suggested(self) -> None:
        # Handlers only append to the inbox, so an empty inbox is all that has to be waited for.
        if workflow.info().is_continue_as_new_suggested() and not self._inbox:
            workflow.continue_as_new(self._params)

    async def _finish(self, claim: ClaimResult) -> BacktestResult:
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
        return BacktestResult(
            session_id=self._params.session_id,
            status="completed",
            result_id=finished.result_id,
            final_pnl_pct=finished.final_pnl_pct,
        )

    async def _fail(self, e: ActivityError) -> BacktestResult:
        """A defect of ours ended the test: say so where its owner and operators see it."""
        await workflow.execute_activity_method(
            ResultActivities.fail,
            FailInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=self._claim.epoch if self._claim else None,
                error_code=_failure_type(e) or "ActivityFailed",
                message=_failure_message(e),
            ),
            summary="failure",
            **STEP,
        )
        workflow.upsert_search_attributes([STATUS.value_set("failed")])
        raise ApplicationError(_failure_message(e), type=_failure_type(e)) from e

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


def decision_queue(task_queue: str) -> str:
    """Model calls have their own queue, with its own concurrency."""
    return f"{task_queue}-decisions"


async def _until(condition: Any, timeout: timedelta) -> None:
    waiting: Awaitable[None] = workflow.wait_condition(
        condition, timeout=timeout, timeout_summary="playback"
    )
    try:
        await waiting
    except TimeoutError:
        return


def _application_error(e: BaseException) -> ApplicationError | None:
    """What an activity itself said, however deep under timeouts and retries it lies."""
    cause: BaseException | None = e
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    return cause


def _failure_type(e: ActivityError) -> str | None:
    error = _application_error(e)
    return None if error is None else error.type


def _failure_message(e: ActivityError) -> str:
    error = _application_error(e)
    return str(e) if error is None else error.message
