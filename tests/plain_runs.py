"""A session run by calling its activities one after another, without Temporal."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from temporalio.testing import ActivityEnvironment

from activities.ai_summaries import AiSummaryInput
from activities.market_data import CandleView, IndicatorsInput
from activities.questions import DecisionInput
from activities.results import FailInput, FinishInput, FinishResult
from activities.sessions import (
    ChunkInput,
    ClaimInput,
    ClaimResult,
    ControlInput,
    ControlKind,
    ControlResult,
    StepInput,
)
from trading.simulation import SimulationState
from worker import Activities

T = TypeVar("T")
Input = TypeVar("Input")


def environment(*, run_id: str = "run-1", attempt: int = 1) -> ActivityEnvironment:
    """What Temporal tells an attempt about itself."""
    made = ActivityEnvironment()
    made.info = replace(
        made.info,
        workflow_run_id=run_id,
        attempt=attempt,
        start_to_close_timeout=timedelta(seconds=10),
    )
    return made


@dataclass(slots=True, kw_only=True)
class PlainRun:
    """What the workflow does, with nothing in between; `claim` comes first."""

    activities: Activities
    user_id: UUID
    session_id: UUID
    run_id: str = field(default_factory=lambda: uuid4().hex)
    claimed: ClaimResult | None = None
    now: SimulationState | None = None
    is_paused: bool = False

    @property
    def ids(self) -> dict[str, Any]:
        return {"session_id": str(self.session_id), "user_id": str(self.user_id)}

    @property
    def epoch(self) -> int:
        assert self.claimed is not None
        return self.claimed.epoch

    @property
    def state(self) -> SimulationState:
        assert self.now is not None
        return self.now

    async def call(
        self, activity: Callable[[Input], Awaitable[T]], input: Input, attempt: int = 1
    ) -> T:
        """One attempt of one of the activities."""
        surroundings = environment(run_id=self.run_id, attempt=attempt)
        return await surroundings.run(activity, input)

    async def claim(self) -> ClaimResult:
        claimed = await self.call(self.activities.sessions.claim, ClaimInput(**self.ids))
        self.claimed, self.now, self.is_paused = claimed, claimed.state, claimed.paused
        return claimed

    async def view(self, index: int) -> CandleView:
        asked = IndicatorsInput(**self.ids, candle_index=index)
        return await self.call(self.activities.market_data.calculate_indicators, asked)

    async def step_input(self) -> StepInput:
        view = await self.view(self.state.next_candle)
        return StepInput(**self.ids, epoch=self.epoch, state=self.state, candle=view.candle)

    def chunk_input(self, stop: int) -> ChunkInput:
        return ChunkInput(**self.ids, epoch=self.epoch, state=self.state, stop=stop)

    def decision_input(self) -> DecisionInput:
        index = self.state.next_candle - 1
        return DecisionInput(**self.ids, epoch=self.epoch, candle_index=index)

    def control_input(self, kind: ControlKind, control_id: str, **options: Any) -> ControlInput:
        control = ControlInput(**self.ids, control_id=control_id, kind=kind, **options)
        return control.owned_by(self.epoch, self.state.next_candle, was_paused=self.is_paused)

    def finish_input(self) -> FinishInput:
        return FinishInput(**self.ids, epoch=self.epoch, state=self.state)

    def summary_input(self) -> AiSummaryInput:
        return AiSummaryInput(**self.ids, epoch=self.epoch)

    def fail_input(self) -> FailInput:
        return FailInput(
            **self.ids, epoch=self.epoch, error_code="InternalFailure", message="a defect"
        )

    async def step(self) -> None:
        self.now = await self.call(self.activities.sessions.execute_step, await self.step_input())

    async def chunk(self, stop: int) -> None:
        self.now = await self.call(self.activities.sessions.run_candles, self.chunk_input(stop))

    async def decide(self) -> None:
        asked = self.decision_input()
        decided = await self.call(self.activities.decisions.request_decision, asked)
        self.now = replace(self.state, pending=decided.order)

    async def control(self, kind: ControlKind, control_id: str, **options: Any) -> ControlResult:
        control = self.control_input(kind, control_id, **options)
        applied = await self.call(self.activities.sessions.record_control, control)
        self.is_paused = applied.paused
        return applied

    async def finish(self) -> FinishResult:
        return await self.call(self.activities.results.finish, self.finish_input())

    async def sum_up(self) -> bool:
        """Have the finished test summed up; say whether it was."""
        written = await self.call(
            self.activities.ai_summaries.write_ai_summary, self.summary_input()
        )
        return written.is_written

    async def run_to(self, candle: int) -> None:
        """Step every candle before `candle`, each with its decision where one is due."""
        assert self.claimed is not None
        while self.state.next_candle < candle and self.state.ended is None:
            index = self.state.next_candle
            await self.step()
            if self.claimed.cadence.is_due(index) and self.state.ended is None:
                await self.decide()

    async def run(self) -> FinishResult:
        """The whole test."""
        claimed = await self.claim()
        await self.run_to(claimed.total_candles)
        return await self.finish()
