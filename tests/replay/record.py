"""Records the histories that `test_replay.py` replays: `python -m tests.replay.record`.

Record anew when a new path through a workflow is worth keeping; keep the old files as well, as
long as a workflow that was started by the code of then may still be running.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from redis.asyncio import Redis
from temporalio.client import Client

from activities import decisions, exports, model_calls, price_feeds
from activities.certificates import Issued
from db.engine import Database
from events.payloads import result_id
from integrations.exchanges.exchange_market import open_market
from local.servers import PostgresServer, RedisServer, TemporalServer
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from local.simulators.openrouter import create_app
from migrations.namespace import upgrade_namespace
from migrations.run import upgrade
from tests.activities.accounts import add_export, furnish
from tests.db.accounts import Account
from tests.laboratory import WARM_UP, Laboratory, Plan, rising
from tests.loopback import serve_app
from trading.candles import Timeframe
from workflows.policies import PLAYBACK_DELAY
from workflows.runtime import (
    CertificateRefused,
    certificate_workflow_id,
    data_converter,
    export_workflow_id,
    workflow_id,
)

HISTORIES = Path(__file__).parent / "histories"
NAMESPACE = "alphalab"
# Temporal stores who made each entry; by default that is a process id and the machine's name.
IDENTITY = "recorder"
# Paths of the machine that a failure was raised on.
LEFT_OUT = frozenset({"stackTrace"})
FEW_EVENTS = "40"

Scenario = Callable[[Laboratory], Awaitable[UUID]]


async def plain(laboratory: Laboratory) -> UUID:
    """Decisions at every other candle, stretches between them."""
    return await laboratory.run(Plan(candles=5, model="simulated/flip", interval=2))


async def controlled(laboratory: Laboratory) -> UUID:
    """Slow, then paused within the delay, resumed, at another speed."""
    session_id = await laboratory.started(Plan(candles=3, model="simulated/flip", speed="slow"))
    await laboratory.reached(session_id, lambda row: row["last_seq"] >= 4)
    await asyncio.sleep(0.3)
    await laboratory.temporal.signal_pause(session_id, "a-pause")
    await laboratory.paused(session_id)
    await laboratory.temporal.signal_resume(session_id, "a-resume")
    await laboratory.temporal.signal_speed(session_id, "a-speed", "fast")
    await laboratory.ended(session_id)
    return session_id


async def stopped(laboratory: Laboratory) -> UUID:
    """While the model is asked, which is cancelled."""
    session_id = await laboratory.started(Plan(candles=3, model="simulated/hold:hang"))
    await laboratory.stepped(session_id, 1)
    await asyncio.sleep(0.5)
    await laboratory.temporal.signal_stop(session_id, "a-stop", True)
    await laboratory.ended(session_id)
    return session_id


async def troubled(laboratory: Laboratory) -> UUID:
    """Without credits at first, and then with an answer that must be asked for twice."""
    session_id = await laboratory.started(Plan(candles=2, model="simulated/flip:402-first:429"))
    await laboratory.paused(session_id)
    await laboratory.temporal.signal_resume(session_id, "a-resume")
    await laboratory.ended(session_id)
    return session_id


async def summed(laboratory: Laboratory) -> UUID:
    """Summed up by its model after its end."""
    return await laboratory.run(Plan(candles=2, model="simulated/flip", ai_summary=True))


async def handed_back(laboratory: Laboratory) -> UUID:
    """Its key's only place is taken for longer than a decision waits for it."""
    busy = await laboratory.started(Plan(candles=1, model="simulated/hold:delay-150"))
    while not await laboratory.rows("SELECT 1 FROM model_calls WHERE session_id = :id", busy):
        await asyncio.sleep(0.02)
    session_id = await laboratory.run(Plan(candles=1, model="simulated/flip"))
    await laboratory.ended(busy)
    return session_id


async def failed(laboratory: Laboratory) -> UUID:
    """By a defect of ours."""
    session_id = await laboratory.started(Plan(candles=1, model="simulated/hold", total_candles=2))
    await laboratory.reached(session_id, lambda row: row["status"] == "failed")
    await laboratory.temporal.wait_result(session_id, timedelta(seconds=20))
    return session_id


async def fetched(laboratory: Laboratory) -> UUID:
    """Of a range that has to be fetched first."""
    start = datetime(2023, 11, 1, tzinfo=UTC)
    return await laboratory.run(
        Plan(model="simulated/flip", fetched=(start, start + timedelta(hours=2)))
    )


async def continued(laboratory: Laboratory) -> UUID:
    """Of several runs; the last one is what the test's id means."""
    return await laboratory.run(Plan(candles=5, model="simulated/hold"))


async def followed(laboratory: Laboratory) -> UUID:
    """On the live market: paused, resumed, stopped."""
    plan = Plan(type="forward", model="simulated/flip")
    session_id = await laboratory.started(plan)
    await laboratory.stepped(session_id, 1)
    await laboratory.temporal.signal_pause(session_id, "a-pause", "forward")
    row = await laboratory.paused(session_id)
    await laboratory.stepped(session_id, row["cursor"] + 1)
    await laboratory.temporal.signal_resume(session_id, "a-resume", "forward")
    row = await laboratory.stepped(session_id, row["cursor"] + 2)
    await laboratory.temporal.signal_stop(session_id, "a-stop", True, "forward")
    await laboratory.ended(session_id, type="forward")
    return session_id


async def touched(laboratory: Laboratory) -> UUID:
    """On the live market: a position is opened at once and ended by a minute."""
    session_id = await laboratory.started(Plan(type="forward", model="simulated/scalp"))
    early = "SELECT 1 FROM steps WHERE session_id = :id AND control_id LIKE 'leave-%'"
    while not await laboratory.rows(early, session_id):
        await asyncio.sleep(0.1)
    row = await laboratory.session_row(session_id)
    await laboratory.stepped(session_id, row["cursor"] + 1)
    await laboratory.temporal.signal_stop(session_id, "a-stop", True, "forward")
    await laboratory.ended(session_id, type="forward")
    return session_id


async def exported(laboratory: Laboratory) -> UUID:
    """An account in a file, with all that is told on the way."""
    account = Account(id=laboratory.user_id, database=laboratory.database)
    await furnish(account)
    export = await add_export(account)
    await laboratory.temporal.start_export(export)
    await laboratory.client.get_workflow_handle(export_workflow_id(export.id)).result()
    return export.id


async def certified(laboratory: Laboratory) -> UUID:
    """The result of a test that won, and its certificate."""
    data_set_id = await laboratory.add_candles(rising(WARM_UP + 8))
    plan = Plan(candles=8, model="simulated/always-long", data_set_id=data_set_id)
    certificate_of = result_id(await laboratory.plain(plan))
    assert await certificate(laboratory, certificate_of) is not None
    return certificate_of


async def uncertified(laboratory: Laboratory) -> UUID:
    """The result of a test that gets no certificate, for it never traded."""
    certificate_of = result_id(await laboratory.plain(Plan(candles=3, model="simulated/hold")))
    with suppress(CertificateRefused):
        await certificate(laboratory, certificate_of)
    return certificate_of


async def certificate(laboratory: Laboratory, certificate_of: UUID) -> Issued | None:
    return await laboratory.temporal.certify(
        certificate_of, laboratory.user_id, timedelta(seconds=30), includes_reasoning=False
    )


SCENARIOS: Mapping[str, Scenario] = {
    each.__name__: each
    for each in (plain, controlled, stopped, troubled, summed, handed_back, failed, fetched)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where scenarios are played."""

    directory: Path
    database: Database
    redis: Redis
    openrouter_url: str
    exchange_url: str

    @asynccontextmanager
    async def laboratory(self, name: str, **settings: str) -> AsyncIterator[Laboratory]:
        """A laboratory with workers, on a Temporal of its own."""
        server = TemporalServer(self.directory / name, dynamic_config=settings)
        server.start()
        try:
            await upgrade_namespace(server.address, NAMESPACE)
            client = await Client.connect(
                server.address,
                namespace=NAMESPACE,
                identity=IDENTITY,
                data_converter=data_converter(),
            )
            async with httpx.AsyncClient() as http:
                laboratory = Laboratory(
                    database=self.database,
                    redis=self.redis,
                    client=client,
                    task_queue="recorded",
                    openrouter_url=self.openrouter_url,
                    http=http,
                    market=open_market("simulated", base_url=self.exchange_url),
                    max_decisions_per_key=1,
                )
                await laboratory.sign_up()
                async with laboratory.worker():
                    yield laboratory
        finally:
            server.stop()


async def record(stage: Stage) -> None:
    """Play every scenario and keep its history."""
    async with stage.laboratory("temporal") as laboratory:
        for name, scenario in SCENARIOS.items():
            session_id = await scenario(laboratory)
            await keep(name, laboratory.client, workflow_id(session_id))
        session_id = await followed(laboratory)
        await keep("followed", laboratory.client, workflow_id(session_id, "forward"))
        session_id = await touched(laboratory)
        await keep("touched", laboratory.client, workflow_id(session_id, "forward"))
        feed = "prices-exchange:recorded-BTC/USDT"
        await laboratory.client.get_workflow_handle(feed).result()
        await keep("priced", laboratory.client, feed)
        export_id = await exported(laboratory)
        await keep("exported", laboratory.client, export_workflow_id(export_id))
        for scenario in (certified, uncertified):
            name = certificate_workflow_id(await scenario(laboratory))
            await keep(scenario.__name__, laboratory.client, name)
    few = {"limit.historyCount.suggestContinueAsNew": FEW_EVENTS}
    async with stage.laboratory("forgetful-temporal", **few) as laboratory:
        name = workflow_id(await continued(laboratory))
        first = await keep("continued-last-run", laboratory.client, name)
        await keep("continued-first-run", laboratory.client, name, run_id=first)


async def keep(name: str, client: Client, workflow: str, *, run_id: str | None = None) -> str:
    """Write a history without what names the machine; return the first run of its chain."""
    handle = client.get_workflow_handle(workflow, run_id=run_id)
    history = json.loads((await handle.fetch_history()).to_json())
    cleaned = without_machine(history)
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in cleaned["events"])
    (HISTORIES / f"{name}.json").write_text(f'{{"events":[\n{lines}\n]}}\n')
    started = history["events"][0]["workflowExecutionStartedEventAttributes"]
    return str(started["firstExecutionRunId"])


def without_machine(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_machine(item) for key, item in value.items() if key not in LEFT_OUT}
    return [without_machine(item) for item in value] if isinstance(value, list) else value


async def main() -> None:
    decisions.TURN_PATIENCE_S = decisions.TURN_PAUSE_S = 0.5
    model_calls.CANCELLATION_GRACE_S = 0.2
    price_feeds.LINGER_S = 1.0
    exports.PROGRESS_INTERVAL_S = 0.0
    PLAYBACK_DELAY["slow"] = timedelta(seconds=5)
    HISTORIES.mkdir(exist_ok=True)
    clock = ExchangeClock(speed=Timeframe.HOUR_1.milliseconds / 2_000)
    clock.set(now_ms=1_700_000_000_000)
    with (
        tempfile.TemporaryDirectory(prefix="alphalab-") as name,
        serve_app(create_app()) as url,
        serve_app(exchange_server.create_app(clock)) as exchange_url,
    ):
        directory = Path(name)
        postgres, redis_server = (
            PostgresServer(directory / "postgres"),
            RedisServer(directory / "redis"),
        )
        postgres.start()
        redis_server.start()
        upgrade(postgres.url)
        database = Database.connect(postgres.url)
        async with Redis.from_url(redis_server.url) as redis:
            await record(
                Stage(
                    directory=directory,
                    database=database,
                    redis=redis,
                    openrouter_url=url,
                    exchange_url=exchange_url,
                )
            )
        await database.dispose()
        redis_server.stop()
        postgres.stop()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the client's native threads may abort a process that tears itself down
