"""A backtest: an agent trades recorded candles, one durable step after another."""

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from typing_extensions import override

with workflow.unsafe.imports_passed_through():
    from activities.backtest_candles import BacktestCandleActivities, BacktestInput
    from activities.sessions import (
        ChunkInput,
        ClaimResult,
        SessionActivities,
    )
    from workflows.messages import Control, SessionParams, SessionResult
    from workflows.policies import CHUNK, MARKET, PLAYBACK_DELAY

from workflows.session_run import SessionRun


@workflow.defn(name="backtest", failure_exception_types=[])
class BacktestWorkflow(SessionRun):
    """Holds ids, the cursor and the simulation state; the database owns everything else."""

    @workflow.init
    def __init__(self, params: SessionParams) -> None:
        super().__init__(params)

    @workflow.run
    async def run(self, params: SessionParams) -> SessionResult:  # noqa: ARG002 - `init` has them
        return await self._to_its_end()

    @workflow.signal
    def set_speed(self, control: Control) -> None:
        if control.speed in PLAYBACK_DELAY:
            self._receive("speed", control)
        else:
            workflow.logger.warning("ignored an unknown speed")

    @override
    async def _take_ownership(self) -> ClaimResult:
        if self._params.load_candles:
            await self._load_candles()
            self._params = replace(self._params, load_candles=False)
        return await super()._take_ownership()

    async def _load_candles(self) -> None:
        """Wait for the candles of the range, or for a stop, which leaves nothing to show."""
        loading = workflow.start_activity_method(
            BacktestCandleActivities.load_candles,
            BacktestInput(session_id=self._params.session_id, user_id=self._params.user_id),
            summary="candles of the range",
            **MARKET,
        )
        try:
            await self._unless_stopped(loading)
        except ActivityError as e:
            if not (is_cancelled_exception(e) and self._stop_is_waiting()):
                raise
            raise e from ApplicationError(
                "The test was stopped before its candles were there.", type="STOPPED_BEFORE_START"
            )

    @override
    async def _test(self, claim: ClaimResult) -> SessionResult:
        while not self._is_over(claim):
            await self._settle_controls(claim)
            if self._stopping:
                break
            await self._advance(claim)
            self._continue_as_new_when_suggested()
        result = await self._finish(claim)
        await self._sum_up(claim)
        return result

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
        candle = await self._look_at_candle(index)
        state = await self._step_candle(claim, index, candle)
        self._decision_due = claim.cadence.is_due(index) and state.ended is None

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

    async def _settle_controls(self, claim: ClaimResult) -> None:
        """Apply what the user asked for, in order, and stay here while the test is paused."""
        while True:
            await self._apply_inbox(claim)
            if self._stopping or not self._paused:
                return
            self._continue_as_new_when_suggested()
            await workflow.wait_condition(lambda: bool(self._inbox))

    async def _wait_for_playback(self) -> None:
        """The pause between two candles, cut short by any signal."""
        delay = PLAYBACK_DELAY[self._speed]
        if delay and not self._inbox:
            await self._wait(delay, "playback")
