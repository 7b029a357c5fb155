"""The worker: runs workflows and activities until it is told to stop."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import structlog
import uvloop
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from redis.asyncio import Redis
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from activities.ai_summaries import AiSummaryActivities
from activities.backtest_candles import BacktestCandleActivities
from activities.candle_history import CandleHistory
from activities.certificates import CertificateActivities, CertificateIssuer
from activities.contexts import SessionContexts
from activities.decisions import DecisionActivities
from activities.exports import ExportActivities, NobodyWatches
from activities.key_slots import KeySlots
from activities.live_candles import LiveCandles, NoMarket
from activities.live_markets import LiveMarketActivities
from activities.market_data import MarketDataActivities
from activities.notifications import NotificationActivities
from activities.positions import PositionActivities
from activities.price_feeds import PriceFeedActivities
from activities.prices import NoFeeds
from activities.reconciliation import HeldAssets, LostExports, Reconciler
from activities.results import ResultActivities
from activities.sessions import SessionActivities
from activities.summaries import SummaryActivities
from activities.sweeping import Sweeper
from api import __version__
from certificates.signing import SigningKey
from db.engine import Database
from db.market_frames import MarketFrames
from events.prices import PriceBoard
from events.publisher import EventPublisher
from integrations.exchanges.exchange_market import open_market
from integrations.mail.mailer import Mailer, MailServer
from integrations.openrouter.client import OpenRouterClient
from integrations.storage.objects import ObjectStore, open_store
from observability import configure_logging
from settings import SettingsError, WorkerSettings, usable, worker_settings
from workflows.backtest import BacktestWorkflow
from workflows.certificate import CertificateWorkflow
from workflows.export import ExportWorkflow
from workflows.forward_test import ForwardTestWorkflow
from workflows.price_feed import PriceFeedWorkflow
from workflows.queues import background_queue, decision_queue, export_queue
from workflows.runtime import Temporal, connect

# A heartbeat, which is what brings a cancellation, is held back for no longer than this.
HEARTBEAT_THROTTLE = timedelta(seconds=0.5)
# Where many workflows have something to do, a few go on at a time: those that have begun find room
# for their activities, which Temporal then hands over without a queue between. A question for more
# work, of which there are two kinds, takes one of these places as well.
WORKFLOW_TASKS_AT_ONCE = 10
MAX_WORKFLOW_POLLERS = 4
# Work of a worker that died waits this long for it before another one may replay and go on. Where
# so many wait for their turn that it takes longer, they are replayed for nothing.
STICKY_TIMEOUT = timedelta(seconds=10)
# A workflow that is not cached is replayed at its next candle; each takes nearly a megabyte.
MAX_CACHED_WORKFLOWS = 2_000
# Feeds and letters wait for others nearly all the time.
MAX_BACKGROUND_ACTIVITIES = 500
# Each keeps a core busy and has a few pages of rows in memory; the others wait in Temporal's queue.
MAX_EXPORTS = 2
RECONCILE_INTERVAL_S = 60.0
SWEEP_INTERVAL_S = 3_600.0
# Redis that hangs holds up a step no longer than this; events are in the database anyway.
REDIS_TIMEOUT_S = 2.0

_logger = structlog.get_logger(__name__)


class FernetKeyRing:
    """Opens stored API keys with any of the configured keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def decrypt(self, token: str) -> str:
        """Return the plain key; raises ValueError when no configured key opens it."""
        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise ValueError("the stored key cannot be opened") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activities:
    """The activities of one worker, with everything they use."""

    market_data: MarketDataActivities
    backtest_candles: BacktestCandleActivities
    live_markets: LiveMarketActivities
    positions: PositionActivities
    price_feeds: PriceFeedActivities
    sessions: SessionActivities
    decisions: DecisionActivities
    ai_summaries: AiSummaryActivities
    results: ResultActivities
    notifications: NotificationActivities
    summaries: SummaryActivities
    certificates: CertificateActivities
    exports: ExportActivities


def build_activities(
    database: Database,
    redis: Redis,
    openrouter: OpenRouterClient,
    keys: FernetKeyRing,
    live: LiveCandles | None = None,
    *,
    storage: ObjectStore,
    issuer: CertificateIssuer,
    temporal: Temporal | None = None,
    mailer: Mailer | None = None,
    max_decisions_per_key: int = 32,
) -> Activities:
    """Wire the activities over one cache of candles and settings.

    Without `temporal` nobody keeps price feeds going or hears that a position was touched.
    """
    publisher, signals = EventPublisher(redis), temporal or NoFeeds()
    watchers = temporal or NobodyWatches()
    frames = MarketFrames(database)
    contexts = SessionContexts(database, frames)
    live = live or LiveCandles(database, NoMarket(), "none")
    history = CandleHistory(database, live.market, live.source, clock=live.now_ms)
    slots = KeySlots(max_decisions_per_key)
    return Activities(
        market_data=MarketDataActivities(contexts),
        backtest_candles=BacktestCandleActivities(database, frames, history),
        live_markets=LiveMarketActivities(database, contexts, live),
        positions=PositionActivities(database, contexts, publisher, live, signals),
        price_feeds=PriceFeedActivities(database, live, PriceBoard(redis), signals),
        sessions=SessionActivities(database, contexts, publisher),
        decisions=DecisionActivities(
            database,
            contexts,
            publisher,
            openrouter,
            keys,
            slots=slots,
            exchange_time=live.now_ms,
        ),
        ai_summaries=AiSummaryActivities(database, contexts, openrouter, keys, slots=slots),
        results=ResultActivities(database, contexts, publisher),
        notifications=NotificationActivities(database, mailer),
        summaries=SummaryActivities(database),
        exports=ExportActivities(database, storage, watchers),
        certificates=CertificateActivities(database, storage, issuer),
    )


def build_workers(
    client: Client,
    task_queue: str,
    activities: Activities,
    *,
    max_activities: int = 50,
    max_decisions: int = 64,
    grace: timedelta = timedelta(seconds=20),
    deployment: WorkerDeploymentConfig | None = None,
) -> list[Worker]:
    """One worker for workflows and their steps, one for model calls, two for what may take long.

    With a `deployment` Temporal gives them only what belongs to their version of the code.
    """
    steps = Worker(
        client,
        task_queue=task_queue,
        workflows=[
            BacktestWorkflow,
            ForwardTestWorkflow,
            PriceFeedWorkflow,
            ExportWorkflow,
            CertificateWorkflow,
        ],
        activities=[
            activities.market_data.calculate_indicators,
            activities.backtest_candles.load_candles,
            activities.live_markets.prepare_market,
            activities.live_markets.observe_market,
            activities.positions.fill_order,
            activities.positions.leave_position,
            activities.sessions.claim,
            activities.sessions.execute_step,
            activities.sessions.run_candles,
            activities.sessions.record_control,
            activities.results.finish,
            activities.results.fail,
            activities.summaries.look_at_day,
            activities.exports.fail_export,
        ],
        max_concurrent_activities=max_activities,
        max_cached_workflows=MAX_CACHED_WORKFLOWS,
        max_concurrent_workflow_tasks=WORKFLOW_TASKS_AT_ONCE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(
            minimum=1, initial=2, maximum=MAX_WORKFLOW_POLLERS
        ),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=grace,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        deployment_config=deployment,
    )
    decisions = Worker(
        client,
        task_queue=decision_queue(task_queue),
        activities=[
            activities.decisions.request_decision,
            activities.ai_summaries.write_ai_summary,
        ],
        max_concurrent_activities=max_decisions,
        graceful_shutdown_timeout=grace,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        deployment_config=deployment,
    )
    # A feed holds a slot for an hour and a mail server for minutes: no candle waits for them.
    background = Worker(
        client,
        task_queue=background_queue(task_queue),
        activities=[
            activities.price_feeds.follow_prices,
            activities.notifications.notify,
            activities.certificates.compose_certificate,
            activities.certificates.write_certificate,
            activities.certificates.record_certificate,
        ],
        max_concurrent_activities=MAX_BACKGROUND_ACTIVITIES,
        graceful_shutdown_timeout=grace,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        deployment_config=deployment,
    )
    exports = Worker(
        client,
        task_queue=export_queue(task_queue),
        activities=[activities.exports.write_export],
        max_concurrent_activities=MAX_EXPORTS,
        max_concurrent_activity_task_polls=MAX_EXPORTS,
        graceful_shutdown_timeout=grace,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        deployment_config=deployment,
    )
    return [steps, decisions, background, exports]


def deployment_of(settings: WorkerSettings) -> WorkerDeploymentConfig | None:
    """The version of this worker's code, where the settings name it.

    A backtest is pinned: it ends under the version that it began with.
    """
    name, build_id = settings.worker_deployment_name, settings.worker_build_id
    if not (name and build_id):
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=name, build_id=build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a worker works with."""

    client: Client
    database: Database
    storage: ObjectStore
    activities: Activities


@asynccontextmanager
async def opened(settings: WorkerSettings) -> AsyncIterator[Opened]:
    """Open what the activities need, and close it again."""
    async with AsyncExitStack() as stack:
        database = Database.connect(
            settings.database_url.get_secret_value(),
            system_url=_secret(settings.database_system_url),
            pool_size=settings.database_pool_size,
        )
        stack.push_async_callback(database.dispose)
        redis = Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            # Every activity that runs may publish at the same time.
            max_connections=settings.worker_max_activities + settings.worker_max_decisions,
        )
        stack.push_async_callback(redis.aclose)
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits))
        client = await connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            payload_keys=_secret(settings.temporal_payload_keys),
            api_key=_secret(settings.temporal_api_key),
            tls=settings.temporal_tls,
            runtime=_runtime(settings),
        )
        openrouter = OpenRouterClient(
            http, settings.openrouter_base_url, referer=settings.public_url, title="AlphaLab"
        )
        keys = FernetKeyRing(settings.encryption_keys)
        with usable("STORAGE_BUCKET"):
            storage = open_store(settings.storage_bucket)
        live = await stack.enter_async_context(_live_candles(settings, database))
        activities = build_activities(
            database,
            redis,
            openrouter,
            keys,
            live,
            storage=storage,
            issuer=_issuer(settings),
            temporal=Temporal(client, settings.temporal_task_queue),
            mailer=mailer_of(settings),
            max_decisions_per_key=settings.worker_max_decisions_per_key,
        )
        yield Opened(client=client, database=database, storage=storage, activities=activities)


def _issuer(settings: WorkerSettings) -> CertificateIssuer:
    return CertificateIssuer(
        key=SigningKey.from_seed(settings.certificate_signing_key.get_secret_value()),
        public_url=settings.public_url,
        engine_version=__version__,
    )


def _runtime(settings: WorkerSettings) -> Runtime | None:
    """What Temporal's client and workers run on, where that is to show their metrics."""
    address = settings.worker_metrics_address
    if address is None:
        return None
    metrics = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
    )
    with usable("WORKER_METRICS_ADDRESS"):
        return Runtime(telemetry=TelemetryConfig(metrics=metrics))


def mailer_of(settings: WorkerSettings) -> Mailer | None:
    """The mailer, where the settings name a server."""
    if settings.smtp_host is None or settings.smtp_from is None:
        return None
    return Mailer(
        MailServer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            sender=settings.smtp_from,
            security=settings.smtp_tls,
            username=settings.smtp_username,
            password=_secret(settings.smtp_password),
        )
    )


@asynccontextmanager
async def _live_candles(settings: WorkerSettings, database: Database) -> AsyncIterator[LiveCandles]:
    source = settings.market_data_source
    if source is None:
        yield LiveCandles(database, NoMarket(), "none")
        return
    with usable("MARKET_DATA_SOURCE"):
        market = open_market(source, base_url=settings.exchange_base_url)
    try:
        await market.open()
        yield LiveCandles(database, market, settings.market_source or source)
    finally:
        await market.close()


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT, then let running activities end."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopped.set)
    async with opened(settings) as given, AsyncExitStack() as stack:
        workers = build_workers(
            given.client,
            settings.temporal_task_queue,
            given.activities,
            max_activities=settings.worker_max_activities,
            max_decisions=settings.worker_max_decisions,
            grace=timedelta(seconds=settings.worker_graceful_shutdown_seconds),
            deployment=deployment_of(settings),
        )
        for each in workers:
            await stack.enter_async_context(each)
        tending = _tending(settings, given)
        _logger.info("worker_ready", task_queue=settings.temporal_task_queue)
        await stopped.wait()
        for task in tending:
            task.cancel()
        # All at once: each stops asking for work now and gives what it runs the same time to end.
        await asyncio.gather(asyncio.wait(tending), *(each.shutdown() for each in workers))
    # The client's native threads may abort a process that exits at once.
    await asyncio.sleep(0.1)


def _tending(settings: WorkerSettings, given: Opened) -> list[asyncio.Task[None]]:
    """What every worker does beside its work, one of them at a time."""
    temporal = Temporal(given.client, settings.temporal_task_queue)
    source = settings.market_source
    watch = HeldAssets(temporal, source) if source is not None else None
    reconciler = Reconciler(given.database, temporal, watch, LostExports(temporal))
    sweeper = Sweeper(given.database, given.storage)
    return [
        tended(reconciler.run_every(RECONCILE_INTERVAL_S), "reconciliation"),
        tended(sweeper.run_every(SWEEP_INTERVAL_S), "sweep"),
    ]


def tended(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Begin work that goes on until it is cancelled; should it end by itself, the log says so."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_note_end)
    return task


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        _logger.error("tending_ended", task=task.get_name(), exc_info=task.exception())


def _secret(value: object) -> str | None:
    get = getattr(value, "get_secret_value", None)
    return None if get is None else get()


def main() -> None:
    try:
        settings = worker_settings()
    except SettingsError as e:
        sys.exit(str(e))
    configure_logging(level=settings.level, form=settings.log_format, process="worker")
    spare_collector()
    try:
        uvloop.run(run(settings))
    except SettingsError as e:  # some are unusable only when they are used
        sys.exit(str(e))


def spare_collector() -> None:
    """Collect garbage rarely, and never look at what the imports brought.

    Nearly everything that a candle makes dies by its reference count; looking for cycles every 700
    objects cost a tenth of the processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


if __name__ == "__main__":
    main()
