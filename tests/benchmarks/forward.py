"""Many forward tests on one candle of a minute, beside workflows of their shape that do nothing."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import httpx
import numpy as np

from activities.departures import PACE_S
from tests.benchmarks.noop import MinuteNoopWorkflow
from tests.benchmarks.noop_messages import Minutes
from tests.benchmarks.report import Row, Section, Table
from tests.benchmarks.running_stack import (
    NOOP_QUEUE,
    BenchmarkFailed,
    RunningStack,
    running_stack,
)
from tests.laboratory import Plan, default_rules
from trading.candles import Timeframe

TESTS = 1_000
MINUTES = 3
TARGET_RATIO = 1.5
MINUTE_S = 60.0
ASSET = "BTC/USDT"
# So many starts are under way at once.
STARTING = 20
PERCENTILES = (50, 95, 99, 100)

_LAGS = """
    SELECT s.candle_number, extract(epoch FROM max(s.happened_at) - (min(s.open_time)
        FILTER (WHERE s.phase = 'step') + interval '1 minute'))::float8 AS lag
    FROM steps s JOIN trading_sessions t ON t.id = s.session_id
    WHERE t.user_id = :id AND s.phase IN ('step', 'decision')
    GROUP BY s.session_id, s.candle_number
    HAVING min(s.open_time) >= to_timestamp(:since) AND min(s.open_time) < to_timestamp(:until)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Seconds from a candle's close to the end of what it brings about, one for each candle."""

    lags: Sequence[float]
    processor_s: Mapping[str, float]

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.lags, share))

    @property
    def busy_s(self) -> float:
        return sum(self.processor_s.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFigures:
    """What was measured of the tests and of the no-ops, over whole minutes."""

    tests: int
    minutes: int
    ours: Load
    before: Load
    after: Load
    positions: int
    missed: int
    requests: int
    worker_mib: float

    def noops(self, figure: Callable[[Load], float]) -> float:
        """The mean of the no-ops that came before ours and those that came after."""
        return (figure(self.before) + figure(self.after)) / 2


async def run(tests: int = TESTS, minutes: int = MINUTES) -> ForwardFigures:
    """Follow so many minutes of ours between as many of the no-ops, on the same servers.

    What Temporal takes for the same work differs by the hour: neighbours on both sides tell.
    """
    async with running_stack(("worker", "no-op worker")) as stack:
        before = await _noops(stack, tests, minutes)
        ours, positions, missed, requests, worker_mib = await _forward_tests(stack, tests, minutes)
        after = await _noops(stack, tests, minutes)
    return ForwardFigures(
        tests=tests,
        minutes=minutes,
        ours=ours,
        before=before,
        after=after,
        positions=positions,
        missed=missed,
        requests=requests,
        worker_mib=worker_mib,
    )


async def _forward_tests(
    stack: RunningStack, tests: int, minutes: int
) -> tuple[Load, int, int, int, float]:
    await _start(stack, tests)
    await _all_have_stepped(stack, tests)
    begin = await _next_minute()
    spent, asked = stack.processor_seconds(), await _requests(stack)
    await asyncio.sleep(minutes * MINUTE_S)
    busy = _difference(stack.processor_seconds(), spent)
    asked = await _requests(stack) - asked
    worker_mib = stack.resident_bytes("worker") / 2**20
    await asyncio.sleep(MINUTE_S / 2)  # the last candle's stragglers
    lags = await _lags(stack, begin - MINUTE_S, begin + (minutes - 1) * MINUTE_S)
    positions, missed = await _positions_and_missed(stack)
    await _stop(stack)
    return Load(lags=lags, processor_s=busy), positions, missed, asked, worker_mib


async def _start(stack: RunningStack, tests: int) -> None:
    waiting = asyncio.Semaphore(STARTING)
    rules = default_rules(timeframe_ms=Timeframe.MINUTE_1.milliseconds)

    async def start(number: int) -> None:
        model = "simulated/always-long" if number % 2 else "simulated/hold"
        plan = Plan(type="forward", asset=ASSET, timeframe="1m", model=model, rules=rules)
        async with waiting:
            await stack.laboratory.started(plan)

    await asyncio.gather(*(start(number) for number in range(tests)))


async def _all_have_stepped(stack: RunningStack, tests: int) -> None:
    query = "SELECT count(*) AS n FROM trading_sessions WHERE user_id = :id AND cursor >= 2"
    stepped = 0
    for _ in range(600):
        rows = await stack.laboratory.rows(query, stack.laboratory.user_id)
        if (stepped := rows[0]["n"]) == tests:
            return
        await asyncio.sleep(1)
    raise BenchmarkFailed(f"of {tests} tests {stepped} stepped two candles in ten minutes")


async def _next_minute() -> float:
    """Wait for the beginning of the next minute; return it (Unix time)."""
    now = time.time()
    begin = (now // MINUTE_S + 1) * MINUTE_S
    await asyncio.sleep(begin - now)
    return begin


async def _lags(stack: RunningStack, since: float, until: float) -> list[float]:
    laboratory = stack.laboratory
    query = _LAGS.replace(":since", str(since)).replace(":until", str(until))
    return [row["lag"] for row in await laboratory.rows(query, laboratory.user_id)]


async def _positions_and_missed(stack: RunningStack) -> tuple[int, int]:
    query = (
        "SELECT count(*) FILTER (WHERE open_position IS NOT NULL) AS positions,"
        " sum(missed_candles)::int AS missed FROM trading_sessions WHERE user_id = :id"
    )
    row = (await stack.laboratory.rows(query, stack.laboratory.user_id))[0]
    return row["positions"], row["missed"]


async def _requests(stack: RunningStack) -> int:
    """How many requests the simulated exchange has answered, its clock's left out."""
    address = stack.plan.settings["EXCHANGE_BASE_URL"]
    async with httpx.AsyncClient() as http:
        told = (await http.get(f"{address}/debug/requests")).json()
    return sum(count for path, count in told["by_path"].items() if not path.endswith("/clock"))


async def _stop(stack: RunningStack) -> None:
    """End them all, so that the no-ops that follow have the servers for themselves."""
    laboratory = stack.laboratory
    rows = await laboratory.rows(
        "SELECT id FROM trading_sessions WHERE user_id = :id AND status = 'running'",
        laboratory.user_id,
    )
    waiting = asyncio.Semaphore(STARTING)

    async def stop(id: object) -> None:
        async with waiting:
            handle = stack.client.get_workflow_handle(f"forward-{id}")
            await handle.terminate("the benchmark is over")

    await asyncio.gather(*(stop(row["id"]) for row in rows))
    # Reconciliation would start them again.
    await asyncio.to_thread(stack.services["worker"].stop)


async def _noops(stack: RunningStack, tests: int, minutes: int) -> Load:
    """The same timers and activities; the first minute is not counted, as with ours."""
    waiting = asyncio.Semaphore(STARTING)

    async def start(number: int) -> str:
        async with waiting:
            handle = await stack.client.start_workflow(
                MinuteNoopWorkflow.run,
                Minutes(count=minutes + 2, delay=number * PACE_S % (MINUTE_S / 2)),
                id=f"minutes-{uuid4()}",
                task_queue=NOOP_QUEUE,
            )
            return handle.id

    ids = await asyncio.gather(*(start(number) for number in range(tests)))
    await asyncio.sleep(MINUTE_S)
    await _next_minute()
    spent = stack.processor_seconds()
    await asyncio.sleep(minutes * MINUTE_S)
    busy = _difference(stack.processor_seconds(), spent)
    lags: list[float] = []
    for each in ids:
        handle = stack.client.get_workflow_handle_for(MinuteNoopWorkflow.run, each)
        lags += (await handle.result())[2:]
    return Load(lags=lags, processor_s=busy)


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - seconds for name, seconds in before.items()}


def report(figures: ForwardFigures) -> Section:
    compared = {
        "no-op before": figures.before,
        "forward tests": figures.ours,
        "no-op after": figures.after,
    }
    return Section(
        name="forward tests",
        rows=_rows(figures),
        method=(
            f"{figures.tests:,} tests follow {ASSET} by the minute for {figures.minutes} minutes of"
            f" a real clock and decide at every close; {figures.positions} hold a position at the"
            f" end, which is watched, and {figures.missed} candles were missed, those of the start"
            f" included. The worker holds {figures.worker_mib:.0f} MiB. The no-op has the same"
            " timer, places in line and three activities a candle; it runs as long before and"
            " after, on the same servers, and what ours is held to is the mean of the two; the"
            " ratio to each stands in brackets. Before, our worker waits beside it and is counted;"
            " after, Temporal's database has grown by our histories."
        ),
        tables=[_lag_table(compared), _processor_table(compared, figures.minutes)],
    )


def _rows(figures: ForwardFigures) -> list[Row]:
    def row(case: str, figure: Callable[[Load], float], unit: str, target: str) -> Row:
        ours, noops = figure(figures.ours), figures.noops(figure)
        return Row(
            case=case,
            measured=f"{ours:.1f}{unit}",
            beside=f"no-op {noops:.1f}{unit}",
            ratio=f"{ours / noops:.2f} ({_ratios(figures, figure)})",
            target=target,
        )

    last = f"{figures.tests:,} tests of one minute: from a close to the last of its work"
    limit = f"at most {TARGET_RATIO}"
    return [
        row(last, lambda load: load.percentile(100), " s", f"within the minute, {limit}"),
        row("lag p99", lambda load: load.percentile(99), " s", limit),
        row("processor seconds a minute", lambda load: load.busy_s / figures.minutes, "", limit),
        Row(
            case="requests to the exchange a minute",
            measured=f"{figures.requests / figures.minutes:.1f}",
            target="a handful",
        ),
    ]


def _ratios(figures: ForwardFigures, figure: Callable[[Load], float]) -> str:
    """Ours to each neighbour, so that it shows where they do not agree."""
    neighbours = (figures.before, figures.after)
    return ", ".join(f"{figure(figures.ours) / figure(each):.2f}" for each in neighbours)


def _lag_table(compared: Mapping[str, Load]) -> Table:
    return Table(
        title="Lag in seconds",
        header=("", *(f"p{share}" for share in PERCENTILES), "candles"),
        rows=[
            (
                name,
                *(f"{load.percentile(share):.1f}" for share in PERCENTILES),
                f"{len(load.lags):,}",
            )
            for name, load in compared.items()
        ],
    )


def _processor_table(compared: Mapping[str, Load], minutes: int) -> Table:
    names = sorted({name for load in compared.values() for name in load.processor_s})
    return Table(
        title="Processor seconds a minute",
        header=("", *names),
        rows=[
            (label, *(f"{load.processor_s.get(name, 0.0) / minutes:.1f}" for name in names))
            for label, load in compared.items()
        ],
    )
