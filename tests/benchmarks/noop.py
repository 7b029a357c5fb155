"""A workflow of a backtest's shape that does nothing: what Temporal itself asks for a candle.

Three activities a candle with the options of ours: two on the workflow's queue, the third on a
queue of its own. One variant carries a number, the other as many bytes as ours does.
"""

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from tests.benchmarks.noop_messages import Cargo, Minutes, Parcel
    from trading.schedule import GRACE_MS
    from workflows.policies import DECISION, INDICATORS, MARKET, STEP
    from workflows.queues import decision_queue

MINUTE_S = 60.0


@activity.defn
async def count_first(candle: int) -> int:
    return candle


@activity.defn
async def count_second(candle: int) -> int:
    return candle


@activity.defn
async def count_third(candle: int) -> int:
    return candle


@activity.defn
async def carry_first(parcel: Parcel) -> str:
    return "x" * parcel.answer


@activity.defn
async def carry_second(parcel: Parcel) -> str:
    return "x" * parcel.answer


@activity.defn
async def carry_third(parcel: Parcel) -> str:
    return "x" * parcel.answer


STEP_ACTIVITIES = (count_first, count_second, carry_first, carry_second)
DECISION_ACTIVITIES = (count_third, carry_third)


@workflow.defn(name="noop")
class NoopWorkflow:
    """Counts candles."""

    @workflow.run
    async def run(self, candles: int) -> None:
        queue = decision_queue(workflow.info().task_queue)
        for candle in range(candles):
            await workflow.execute_activity(
                count_first, candle, summary=f"candle {candle}: first", **INDICATORS
            )
            await workflow.execute_activity(
                count_second, candle, summary=f"candle {candle}: second", **STEP
            )
            await workflow.execute_activity(
                count_third,
                candle,
                task_queue=queue,
                summary=f"candle {candle}: third",
                **DECISION,
            )
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(candles - candle - 1)


@workflow.defn(name="minute_noop")
class MinuteNoopWorkflow:
    """Does at each minute what a forward test does: a timer, and three activities."""

    @workflow.run
    async def run(self, minutes: Minutes) -> list[float]:
        """The seconds from each minute's beginning to the end of its last activity."""
        queue = decision_queue(workflow.info().task_queue)
        lags: list[float] = []
        for minute in range(minutes.count):
            now = workflow.time()
            begin = (now // MINUTE_S + 1) * MINUTE_S
            await workflow.sleep(begin + GRACE_MS / 1000 + minutes.delay - now)
            await workflow.execute_activity(
                count_first, minute, summary=f"minute {minute}: first", **MARKET
            )
            await workflow.execute_activity(
                count_second, minute, summary=f"minute {minute}: second", **STEP
            )
            await workflow.execute_activity(
                count_third,
                minute,
                task_queue=queue,
                summary=f"minute {minute}: third",
                **DECISION,
            )
            lags.append(workflow.time() - begin)
        return lags


@workflow.defn(name="carrying_noop")
class CarryingNoopWorkflow:
    """Counts candles, and hands parcels to and fro."""

    @workflow.run
    async def run(self, cargo: Cargo) -> None:
        queue = decision_queue(workflow.info().task_queue)
        for candle in range(cargo.candles):
            await workflow.execute_activity(
                carry_first, cargo.first, summary=f"candle {candle}: first", **INDICATORS
            )
            await workflow.execute_activity(
                carry_second, cargo.second, summary=f"candle {candle}: second", **STEP
            )
            await workflow.execute_activity(
                carry_third,
                cargo.third,
                task_queue=queue,
                summary=f"candle {candle}: third",
                **DECISION,
            )
            if workflow.info().is_continue_as_new_suggested():
                left = cargo.candles - candle - 1
                workflow.continue_as_new(
                    Cargo(candles=left, first=cargo.first, second=cargo.second, third=cargo.third)
                )
