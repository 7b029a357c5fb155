"""A forward test: an agent trades the live market, for months, candle by closed candle."""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception
from typing_extensions import override

with workflow.unsafe.imports_passed_through():
    from activities.live_markets import ForwardInput, LiveMarketActivities, Observation
    from activities.notices import NoticeFacts
    from activities.positions import FillInput, LeaveInput, PositionActivities
    from activities.prices import Touch
    from activities.sessions import ClaimResult, ControlInput, ControlResult
    from activities.step_rows import LiveCandle
    from activities.summaries import SummaryActivities, SummaryInput
    from trading.candles import Candle
    from trading.simulation import SimulationState
    from workflows.messages import SessionParams, SessionResult
    from workflows.policies import FILL, MARKET, STEP

from workflows.notices import Notices
from workflows.session_run import SessionRun

# Runs of before this mark fill an order when its candle is stepped, and tell nobody of it.
CLOSELY = "follow-closely"


@workflow.defn(name="forward_test", failure_exception_types=[])
class ForwardTestWorkflow(SessionRun):
    """Its only clock is a durable timer; what it missed it steps through without deciding."""

    @workflow.init
    def __init__(self, params: SessionParams) -> None:
        super().__init__(params)
        self._touch: Touch | None = None
        self._notices = Notices(params.session_id, params.user_id)
        self._summary_at: float | None = None
        self._delay = 0.0

    @workflow.signal
    def touched(self, touch: Touch) -> None:
        """A minute has reached a level of the position; what came of it, `leave_position` says."""
        self._touch = touch

    @workflow.run
    async def run(self, params: SessionParams) -> SessionResult:  # noqa: ARG002 - `init` has them
        return await self._to_its_end()

    @override
    async def _take_ownership(self) -> ClaimResult:
        await workflow.execute_activity_method(
            LiveMarketActivities.prepare_market,
            self._forward_input(),
            summary="candles before the start",
            **MARKET,
        )
        return await super()._take_ownership()

    @override
    async def _test(self, claim: ClaimResult) -> SessionResult:
        while True:
            await self._apply_inbox(claim)
            await self._leave(claim)
            if not self._is_over() and (market := await self._observe()) is not None:
                await self._follow(claim, market)
            if self._is_over():
                return await self._end(claim)
            await self._summarise()
            self._continue_as_new_when_suggested()
            await self._wait_for_close()

    async def _end(self, claim: ClaimResult) -> SessionResult:
        before = self._require_state()
        result = await self._finish(claim)
        if workflow.patched(CLOSELY):
            facts = NoticeFacts(
                result_id=result.result_id,
                pnl_pct=result.final_pnl_pct,
                reason=None if before.ended is None else before.ended.value,
            )
            self._notices.tell_closed(before, result.trades_total)
            if before.ended is not None:
                self._notices.tell("auto_stopped", "finish", facts=facts)
            self._notices.tell("test_completed", "finish", facts=facts)
        await self._sum_up(claim)
        await self._notices.told()
        return result

    async def _follow(self, claim: ClaimResult, market: Observation) -> None:
        """Step what has closed, then decide on the newest candle if that is due."""
        candle = market.candle if workflow.patched(CLOSELY) else None
        while self._require_state().next_candle < market.closed and not self._is_over():
            await self._step(claim, market, self._require_state().next_candle, candle)
            candle = None
            await self._apply_inbox(claim)
        index = self._require_state().next_candle - 1
        if self._decision_due and not self._paused and not self._is_over() and index >= 0:
            await self._decide(claim, index, market)
        await self._fill(claim)
        self._show()

    async def _fill(self, claim: ClaimResult) -> None:
        """Fill the order at the open of the candle that forms, or look again for that open."""
        state = self._require_state()
        if state.pending is None or self._is_over() or not workflow.patched(CLOSELY):
            return
        request = workflow.start_activity_method(
            PositionActivities.fill_order,
            FillInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=state,
            ),
            summary=f"candle {state.next_candle}: fill",
            **FILL,
        )
        try:
            filled = await self._unless_stopped(request)
        except ActivityError as e:
            if self._stop_is_waiting() and is_cancelled_exception(e):
                return  # whether it was filled, the end reads from the row
            raise
        self._move_to(filled.state)
        if filled.retry_after is not None and self._look_at is not None:
            self._look_at = min(self._look_at, workflow.time() + filled.retry_after)
            self._delay = 0.0

    async def _leave(self, claim: ClaimResult) -> None:
        """End the position whose level was reached; a touch that comes too late is dropped."""
        touch, self._touch = self._touch, None
        if touch is None or self._is_over() or not self._concerns(touch):
            return
        left = await workflow.execute_activity_method(
            PositionActivities.leave_position,
            LeaveInput(
                session_id=self._params.session_id,
                user_id=self._params.user_id,
                epoch=claim.epoch,
                state=self._require_state(),
                touch=touch,
            ),
            summary=f"candle {touch.candle_index}: position",
            **STEP,
        )
        self._move_to(left)
        self._show()

    def _move_to(self, state: SimulationState) -> None:
        """Go on from a state, and tell of the trades that led to it."""
        before, self._state = self._require_state(), state
        self._notices.tell_trades(before, state)

    def _concerns(self, touch: Touch) -> bool:
        """Whether it is about the position and the candle that are open now, and nothing pends."""
        state = self._require_state()
        position = state.position
        return (
            position is not None
            and position.trade_number == touch.trade_number
            and state.next_candle == touch.candle_index
            and state.pending is None
        )

    @override
    def _is_woken(self) -> bool:
        return super()._is_woken() or self._touch is not None

    async def _step(
        self, claim: ClaimResult, market: Observation, index: int, candle: Candle | None
    ) -> None:
        is_newest = index == market.closed - 1
        due = claim.cadence.is_due(index) or self._decision_due
        live = LiveCandle(
            missed=not is_newest and not self._paused,
            paused=self._paused,
            ai_evaluating=is_newest and due and not self._paused,
        )
        before = self._require_state()
        candle = candle or await self._look_at_candle(index)
        state = await self._step_candle(claim, index, candle, live)
        if workflow.patched(CLOSELY):
            self._notices.tell_trades(before, state)
        # A decision that was missed moves to the newest candle; a paused test takes none.
        self._decision_due = due and not self._paused and state.ended is None

    async def _observe(self) -> Observation | None:
        """What has closed; None where a signal came first, while the exchange was away."""
        request = workflow.start_activity_method(
            LiveMarketActivities.observe_market,
            self._forward_input(next_candle=self._require_state().next_candle),
            summary="look at the market",
            **MARKET,
        )
        try:
            market = await self._unless(lambda: bool(self._inbox), request)
        except ActivityError as e:
            if self._inbox and is_cancelled_exception(e):
                return None
            raise
        self._look_at, self._delay = workflow.time() + market.seconds, market.delay
        return market

    @override
    def _apply(self, control: ControlInput, outcome: ControlResult) -> None:
        was_paused = self._paused
        super()._apply(control, outcome)
        is_trouble = control.kind == "pause" and control.message is not None
        if is_trouble and self._paused and not was_paused and workflow.patched(CLOSELY):
            facts = NoticeFacts(reason=control.reason)
            self._notices.tell("paused", f"pause-{control.control_id}", facts=facts)

    async def _summarise(self) -> None:
        """Send the summary of each local day that is over; find out when the next one ends."""
        if not workflow.patched(CLOSELY):
            return
        if self._summary_at is not None and workflow.time() < self._summary_at:
            return
        day = await workflow.execute_activity_method(
            SummaryActivities.look_at_day,
            SummaryInput(session_id=self._params.session_id, user_id=self._params.user_id),
            summary="daily summary",
            **STEP,
        )
        self._summary_at = day.ends_at
        if day.finished is not None:
            self._notices.tell("daily_summary", day.finished, facts=day.facts)

    @override
    def _continue_as_new_when_suggested(self) -> None:
        if self._notices.are_told:
            super()._continue_as_new_when_suggested()

    async def _wait_for_close(self) -> None:
        """Until the next candle should be there, or a signal; at once where a decision is due."""
        if self._decision_due and not self._paused:
            return
        until = min((self._look_at or 0.0) + self._delay, self._summary_at or float("inf"))
        seconds = until - workflow.time()
        if seconds > 0 and not self._is_woken():
            await self._wait(timedelta(seconds=seconds), "next candle")

    def _is_over(self) -> bool:
        return self._stopping or self._require_state().ended is not None

    def _forward_input(self, *, next_candle: int = 0) -> ForwardInput:
        return ForwardInput(
            session_id=self._params.session_id,
            user_id=self._params.user_id,
            next_candle=next_candle,
        )
