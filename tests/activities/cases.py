"""Every activity at a moment that matters, from the session before it to its input."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from activities.market_data import IndicatorsInput
from activities.positions import FillInput, LeaveInput
from activities.prices import Touch
from activities.sessions import ClaimInput, ControlKind
from tests.laboratory import FIRST_CANDLE, WARM_UP, Plan, default_rules
from tests.plain_runs import PlainRun
from trading.candles import Candle
from worker import Activities

Choose = Callable[[Activities], Callable[[Any], Awaitable[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An activity, and what has happened to its session before.

    `run_id` is the workflow run whose attempts are tried; a cold case has nothing in its caches.
    """

    name: str
    activity: Choose
    prepare: Callable[[PlainRun], Awaitable[Any]]
    plan: Plan
    run_id: str = "run-1"
    is_warm: bool = True


FLIP = Plan(candles=4, model="simulated/flip")
LONG = Plan(candles=4, model="simulated/always-long")


async def before_the_first_claim(run: PlainRun) -> Any:
    return ClaimInput(**run.ids)


async def before_a_claim_under_way(run: PlainRun) -> Any:
    """Another run has stepped a candle and was about to decide."""
    await before_a_decision(run)
    return ClaimInput(**run.ids)


async def before_indicators(run: PlainRun) -> Any:
    await run.claim()
    return IndicatorsInput(**run.ids, candle_index=1)


async def before_an_entry(run: PlainRun) -> Any:
    await run.claim()
    await run.run_to(1)
    return await run.step_input()


async def before_an_exit(run: PlainRun) -> Any:
    await run.claim()
    await run.run_to(2)
    return await run.step_input()


async def before_a_fill(run: PlainRun) -> Any:
    """The first candle has closed, an order was decided, and the next candle forms."""
    await run.claim()
    await run.run_to(1)
    return FillInput(**run.ids, epoch=run.epoch, state=run.state)


async def before_a_touch(run: PlainRun) -> Any:
    """The order was filled, and a minute has fallen through the stop."""
    asked = await before_a_fill(run)
    filled = await run.call(run.activities.positions.fill_order, asked)
    run.now, position = filled.state, filled.state.position
    assert position is not None
    price, opened = position.entry_price, int(first_close().timestamp() * 1000)
    minute = Candle(
        open_time=opened + 60_000,
        open=price,
        high=price,
        low=price * 0.9,
        close=price * 0.95,
        volume=1.0,
    )
    touch = Touch(trade_number=1, candle_index=1, opened_at=opened, minute=minute)
    return LeaveInput(**run.ids, epoch=run.epoch, state=run.state, touch=touch)


def first_close() -> datetime:
    """When the first candle of a test closes."""
    return FIRST_CANDLE + timedelta(hours=WARM_UP + 1)


async def before_a_stretch(run: PlainRun) -> Any:
    await run.claim()
    await run.run_to(1)
    return run.chunk_input(stop=9)


async def before_a_decision(run: PlainRun) -> Any:
    await run.claim()
    await run.step()
    return run.decision_input()


def before_a_control(
    kind: ControlKind, *, is_paused: bool = False, **options: Any
) -> Callable[[PlainRun], Awaitable[Any]]:
    async def prepare(run: PlainRun) -> Any:
        await run.claim()
        await run.run_to(1)
        if is_paused:
            await run.control("pause", "an-earlier-one")
        return run.control_input(kind, f"a-{kind}", **options)

    return prepare


def before_the_end(
    candle: int, *, stop: bool | None = None
) -> Callable[[PlainRun], Awaitable[Any]]:
    """With a stop, it says whether to close the position."""

    async def prepare(run: PlainRun) -> Any:
        await run.claim()
        await run.run_to(candle)
        if stop is not None:
            await run.control("stop", "a-stop", close_position=stop)
        return run.finish_input()

    return prepare


async def before_a_summary(run: PlainRun) -> Any:
    await run.run()
    return run.summary_input()


async def before_a_failure(run: PlainRun) -> Any:
    await run.claim()
    await run.run_to(1)
    return run.fail_input()


def _claim(activities: Activities) -> Any:
    return activities.sessions.claim


def _indicators(activities: Activities) -> Any:
    return activities.market_data.calculate_indicators


def _step(activities: Activities) -> Any:
    return activities.sessions.execute_step


def _chunk(activities: Activities) -> Any:
    return activities.sessions.run_candles


def _fill(activities: Activities) -> Any:
    return activities.positions.fill_order


def _leave(activities: Activities) -> Any:
    return activities.positions.leave_position


def _decision(activities: Activities) -> Any:
    return activities.decisions.request_decision


def _control(activities: Activities) -> Any:
    return activities.sessions.record_control


def _summary(activities: Activities) -> Any:
    return activities.ai_summaries.write_ai_summary


def _finish(activities: Activities) -> Any:
    return activities.results.finish


def _fail(activities: Activities) -> Any:
    return activities.results.fail


TROUBLE: dict[str, Any] = {
    "reason": "insufficient_credits",
    "message": "OpenRouter 402: no credits",
}
# The first fall of half a percent ends the test.
GUARDED = Plan(
    candles=8, model="simulated/always-long", rules=default_rules(max_total_drawdown=0.0005)
)

CASES = (
    Case(name="claim", activity=_claim, prepare=before_the_first_claim, plan=FLIP, is_warm=False),
    Case(
        name="claim-by-a-later-run",
        activity=_claim,
        prepare=before_a_claim_under_way,
        plan=FLIP,
        run_id="run-2",
    ),
    Case(
        name="calculate_indicators",
        activity=_indicators,
        prepare=before_indicators,
        plan=FLIP,
        is_warm=False,
    ),
    Case(name="execute_step-entry", activity=_step, prepare=before_an_entry, plan=FLIP),
    Case(name="execute_step-exit", activity=_step, prepare=before_an_exit, plan=FLIP),
    Case(name="fill_order-entry", activity=_fill, prepare=before_a_fill, plan=LONG),
    Case(name="leave_position", activity=_leave, prepare=before_a_touch, plan=LONG),
    Case(
        name="run_candles",
        activity=_chunk,
        prepare=before_a_stretch,
        plan=Plan(candles=10, model="simulated/always-long", interval=9),
    ),
    Case(name="request_decision", activity=_decision, prepare=before_a_decision, plan=FLIP),
    Case(
        name="request_decision-two-calls",
        activity=_decision,
        prepare=before_a_decision,
        plan=Plan(candles=4, model="simulated/flip:garbage"),
    ),
    Case(
        name="request_decision-invalid",
        activity=_decision,
        prepare=before_a_decision,
        plan=Plan(candles=4, model="simulated/flip:nan-always"),
    ),
    Case(name="pause", activity=_control, prepare=before_a_control("pause"), plan=LONG),
    Case(
        name="pause-for-trouble",
        activity=_control,
        prepare=before_a_control("pause", **TROUBLE),
        plan=LONG,
    ),
    Case(
        name="pause-of-a-paused-one",
        activity=_control,
        prepare=before_a_control("pause", is_paused=True),
        plan=LONG,
    ),
    Case(
        name="resume",
        activity=_control,
        prepare=before_a_control("resume", is_paused=True),
        plan=LONG,
    ),
    Case(
        name="speed", activity=_control, prepare=before_a_control("speed", speed="slow"), plan=LONG
    ),
    Case(
        name="stop",
        activity=_control,
        prepare=before_a_control("stop", close_position=False),
        plan=LONG,
    ),
    Case(name="finish-end-of-data", activity=_finish, prepare=before_the_end(4), plan=LONG),
    Case(
        name="finish-stopped-and-closed",
        activity=_finish,
        prepare=before_the_end(2, stop=True),
        plan=LONG,
    ),
    Case(
        name="finish-stopped-and-open",
        activity=_finish,
        prepare=before_the_end(2, stop=False),
        plan=LONG,
    ),
    Case(name="finish-guarded", activity=_finish, prepare=before_the_end(8), plan=GUARDED),
    Case(
        name="finish-before-candle-0",
        activity=_finish,
        prepare=before_the_end(0, stop=True),
        plan=LONG,
    ),
    Case(name="write_ai_summary", activity=_summary, prepare=before_a_summary, plan=FLIP),
    Case(name="fail", activity=_fail, prepare=before_a_failure, plan=LONG),
)

DECISIONS = tuple(case for case in CASES if case.name.startswith("request_decision"))
