"""A laboratory for whole backtests: a user, a key, an agent, candles, sessions, and a worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
from cryptography.fernet import Fernet
from redis.asyncio import Redis
from sqlalchemy import text
from temporalio.client import Client

from activities.certificates import CertificateIssuer
from activities.live_candles import LiveCandles, Market, NoMarket
from db.engine import Database
from db.identifiers import new_id
from db.models import NewSession
from db.repositories.agents import AgentContent, AgentRepository
from db.repositories.api_keys import ApiKeyRepository
from db.repositories.data_sets import SharedDataRepository
from db.repositories.sessions import SessionRepository
from db.repositories.users import SignInRepository
from events.channels import session_stream
from events.types import Event, decode_event
from integrations.openrouter.client import OpenRouterClient
from integrations.storage.objects import ObjectStore
from tests.issuing import ISSUER
from tests.memory_storage import memory_storage
from tests.plain_runs import PlainRun
from trading.candles import CandleSeries, Timeframe
from trading.rules import Mode, Rules
from worker import Activities, FernetKeyRing, build_activities, build_workers
from workflows.messages import Progress, SessionResult
from workflows.runtime import SessionStart, SessionType, Temporal, workflow_id

FIRST_CANDLE = datetime(2024, 1, 1, tzinfo=UTC)
WARM_UP = 50


def default_rules(**changes: Any) -> Rules:
    """Omni at an hour's candles, loose limits."""
    rules = Rules(
        starting_capital=10_000.0,
        timeframe_ms=Timeframe.HOUR_1.milliseconds,
        mode=Mode.OMNI,
        safety_mode=False,
        allow_leverage=False,
        max_leverage=5.0,
        max_position_size=0.5,
        max_loss_per_trade=0.05,
        max_daily_loss=None,
        max_total_drawdown=None,
    )
    return replace(rules, **changes)


def walk(count: int, *, seed: int = 7) -> CandleSeries:
    """A seeded random walk of hourly candles that begins at `FIRST_CANDLE`."""
    random = np.random.default_rng(seed)
    close = 30_000 * np.exp(np.cumsum(random.normal(0, 0.008, count)))
    open_ = np.concatenate(([30_000.0], close[:-1]))
    reach = 1 + np.abs(random.normal(0, 0.004, (2, count)))
    first = int(FIRST_CANDLE.timestamp() * 1000)
    return CandleSeries(
        open_time=first + np.arange(count) * Timeframe.HOUR_1.milliseconds,
        open=open_,
        high=np.maximum(open_, close) * reach[0],
        low=np.minimum(open_, close) / reach[1],
        close=close,
        volume=random.uniform(10, 100, count),
    )


def rising(count: int) -> CandleSeries:
    """A market in which nobody who buys loses."""
    close = 30_000 * np.cumprod(np.full(count, 1.015))
    open_ = close / 1.015
    return CandleSeries(
        open_time=int(FIRST_CANDLE.timestamp() * 1000)
        + Timeframe.HOUR_1.milliseconds * np.arange(count),
        open=open_,
        high=close * 1.0001,
        low=open_ * 0.9999,
        close=close,
        volume=np.full(count, 10.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A test to run; a forward one finds its candles when it begins."""

    type: SessionType = "backtest"
    timeframe: str = "1h"
    asset: str = "BTC/USDT"

    candles: int = 20
    model: str = "simulated/momentum"
    interval: int = 1
    speed: str = "instant"
    blind: bool = False
    max_cost_usd: float | None = None
    ai_summary: bool = False
    rules: Rules = field(default_factory=default_rules)
    indicators: Sequence[str] = ("rsi_14", "ema_20")
    data_set_id: UUID | None = None
    # From and to: a backtest whose candles have to be fetched.
    fetched: tuple[datetime, datetime] | None = None
    api_key: str | None = "sk-or-v1-test"
    # More than the data holds makes a session that no correct start would make.
    total_candles: int | None = None


@dataclass(slots=True, kw_only=True, repr=False)  # asyncio shows what a task came to, often
class Laboratory:
    """Everything a backtest needs, over real servers; OpenRouter is the simulator."""

    database: Database
    redis: Redis
    client: Client
    task_queue: str
    openrouter_url: str
    http: httpx.AsyncClient
    market: Market = field(default_factory=NoMarket)
    storage: ObjectStore = field(default_factory=memory_storage)
    issuer: CertificateIssuer = ISSUER
    fernet_key: str = field(default_factory=lambda: Fernet.generate_key().decode())
    user_id: UUID = field(default_factory=uuid4)
    max_decisions: int = 64
    max_decisions_per_key: int = 32

    @property
    def temporal(self) -> Temporal:
        return Temporal(self.client, self.task_queue)

    def activities(self) -> Activities:
        return build_activities(
            self.database,
            self.redis,
            OpenRouterClient(self.http, self.openrouter_url),
            FernetKeyRing((self.fernet_key,)),
            LiveCandles(self.database, self.market, f"exchange:{self.task_queue}"),
            storage=self.storage,
            issuer=self.issuer,
            temporal=self.temporal,
            max_decisions_per_key=self.max_decisions_per_key,
        )

    async def sign_up(self) -> None:
        async with self.database.as_system() as session:
            user, _ = await SignInRepository(session).get_or_create(f"user_{uuid4().hex}")
        self.user_id = user.id

    @asynccontextmanager
    async def worker(self, *, grace: float = 2.0) -> AsyncIterator[None]:
        """A worker of this laboratory's task queue, while the block runs."""
        workers = build_workers(
            self.client,
            self.task_queue,
            self.activities(),
            max_decisions=self.max_decisions,
            grace=timedelta(seconds=grace),
        )
        async with AsyncExitStack() as stack:
            for each in workers:
                await stack.enter_async_context(each)
            yield

    async def add_candles(self, series: CandleSeries) -> UUID:
        """A shared data set that no test of the API finds when it looks for an asset's newest."""
        async with self.database.as_system() as session:
            stored, _ = await SharedDataRepository(session).add(
                asset="LAB/USDT",
                timeframe=Timeframe.HOUR_1,
                source=f"import:{uuid4().hex[:8]}",
                series=series,
            )
        return stored.id

    async def add_session(self, plan: Plan) -> UUID:
        """Insert a session that could start, with an agent and a key of its own."""
        is_live, data_set_id = plan.type == "forward", plan.data_set_id
        is_stored = not is_live and plan.fetched is None
        if data_set_id is None and is_stored:
            data_set_id = await self.add_candles(walk(WARM_UP + plan.candles))
        first = FIRST_CANDLE + timedelta(hours=WARM_UP)
        start, end = plan.fetched or (first, first + timedelta(hours=plan.candles))
        agent = await self._add_agent(plan)
        session_id = new_id()
        async with self.database.for_user(self.user_id) as session:
            await SessionRepository(session).add(
                NewSession(
                    id=session_id,
                    user_id=self.user_id,
                    agent_id=agent.id,
                    agent_version_id=agent.version_id,
                    agent_name=agent.name,
                    workflow_id=workflow_id(session_id, plan.type),
                    data_set_id=data_set_id,
                    rules=asdict(plan.rules),
                    type=plan.type,
                    status="initializing",
                    mode=plan.rules.mode.value,
                    asset=plan.asset,
                    timeframe=plan.timeframe,
                    starting_capital=plan.rules.starting_capital,
                    start_date=None if is_live else start,
                    end_date=None if is_live else end,
                    playback_speed=plan.speed,
                    decision_mode="every_candle" if plan.interval == 1 else "every_n_candles",
                    decision_interval_candles=plan.interval,
                    warm_up_candles=WARM_UP,
                    total_candles=(plan.total_candles or plan.candles) if is_stored else 0,
                    blind=plan.blind,
                    max_cost_usd=plan.max_cost_usd,
                    ai_summary=plan.ai_summary,
                )
            )
        return session_id

    async def start(
        self, session_id: UUID, type: SessionType = "backtest", *, load_candles: bool = False
    ) -> None:
        await self.temporal.start(
            SessionStart(
                session_id=session_id,
                user_id=self.user_id,
                agent_name="agent",
                asset="BTC/USDT",
                timeframe="1h",
                mode="omni",
                type=type,
                load_candles=load_candles,
            )
        )

    async def run(self, plan: Plan, *, seconds: float = 60.0) -> UUID:
        """Run a backtest to its end on this laboratory's worker; return the session's id."""
        session_id = await self.started(plan)
        await self.ended(session_id, seconds=seconds)
        return session_id

    async def started(self, plan: Plan) -> UUID:
        """Start a test; return the session's id."""
        session_id = await self.add_session(plan)
        await self.start(session_id, plan.type, load_candles=plan.fetched is not None)
        return session_id

    async def ended(
        self, session_id: UUID, *, seconds: float = 60.0, type: SessionType = "backtest"
    ) -> SessionResult:
        """Wait for the end of a test."""
        result = await self.temporal.wait_result(session_id, timedelta(seconds=seconds), type)
        assert result is not None, "the test did not end in time"
        return result

    async def reached(
        self, session_id: UUID, condition: Callable[[dict[str, Any]], bool], *, seconds: float = 30
    ) -> dict[str, Any]:
        """Wait until the session's row meets the condition; return the row."""
        async with asyncio.timeout(seconds):
            while not condition(row := await self.session_row(session_id)):
                await asyncio.sleep(0.04)
        return row

    async def paused(self, session_id: UUID) -> dict[str, Any]:
        """Wait until the session is paused; return its row."""
        return await self.reached(session_id, lambda row: row["status"] == "paused")

    async def progress(self, session_id: UUID) -> Progress:
        """What the workflow says of itself, as soon as a worker answers for it."""
        async with asyncio.timeout(30):
            while (progress := await self.temporal.progress(session_id)) is None:
                await asyncio.sleep(0.05)
        return progress

    async def stepped(self, session_id: UUID, candles: int) -> dict[str, Any]:
        """Wait until the session has stepped that many candles; return its row."""
        return await self.reached(session_id, lambda row: row["cursor"] >= candles)

    async def plain(self, plan: Plan) -> UUID:
        """The same backtest without Temporal, undisturbed; return the session's id."""
        session_id = await self.add_session(plan)
        run = PlainRun(activities=self.activities(), user_id=self.user_id, session_id=session_id)
        await run.run()
        return session_id

    async def result(self, session_id: UUID) -> dict[str, Any]:
        """The stored result's row."""
        query = "SELECT * FROM test_results WHERE session_id = :id"
        return (await self.rows(query, session_id))[0]

    async def events(self, session_id: UUID, name: str | None = None) -> list[dict[str, Any]]:
        """What `steps` holds of decisions and controls, and of what happened in steps, in order."""
        rows = await self.rows(
            "SELECT events FROM steps WHERE session_id = :id ORDER BY last_seq", session_id
        )
        found = [event for row in rows for event in row["events"]]
        return [event for event in found if name in {None, event["event"]}]

    async def rows(self, query: str, session_id: UUID) -> list[dict[str, Any]]:
        """Rows of a query with `:id`, as the session's owner sees them."""
        async with self.database.for_user(self.user_id) as session:
            result = await session.execute(text(query), {"id": session_id})
            return [dict(row) for row in result.mappings()]

    async def session_row(self, session_id: UUID) -> dict[str, Any]:
        return (await self.rows("SELECT * FROM trading_sessions WHERE id = :id", session_id))[0]

    async def trades(self, session_id: UUID) -> list[dict[str, Any]]:
        """The trades without what differs between sessions: ids and times of writing."""
        rows = await self.rows(
            "SELECT * FROM trades WHERE session_id = :id ORDER BY trade_number", session_id
        )
        own = ("id", "session_id", "created_at", "updated_at")
        return [{key: value for key, value in row.items() if key not in own} for row in rows]

    async def decisions(self, session_id: UUID) -> list[tuple[int, str, str]]:
        rows = await self.rows(
            "SELECT candle_number, decision, reasoning FROM decisions WHERE session_id = :id"
            " ORDER BY candle_number",
            session_id,
        )
        return [(row["candle_number"], row["decision"], row["reasoning"]) for row in rows]

    async def streamed(self, session_id: UUID) -> list[Event]:
        """What the session's Redis stream holds."""
        entries: Any = await self.redis.xrange(session_stream(session_id))
        return [decode_event(fields[b"e"]) for _, fields in entries]

    async def add_key(self, api_key: str, *, fernet_key: str | None = None) -> UUID:
        """Store an API key of the user's, encrypted as it must be."""
        ciphertext = Fernet(fernet_key or self.fernet_key).encrypt(api_key.encode()).decode()
        async with self.database.for_user(self.user_id) as session:
            key = await ApiKeyRepository(session).add(
                user_id=self.user_id, key_prefix="sk-or-v1-••••", encrypted_key=ciphertext
            )
        return key.id

    async def give_key(self, session_id: UUID, key_id: UUID | None) -> None:
        """Change the key of the session's agent."""
        async with self.database.for_user(self.user_id) as session:
            await session.execute(
                text(
                    "UPDATE agents SET api_key_id = :key FROM trading_sessions s"
                    " WHERE s.id = :id AND agents.id = s.agent_id"
                ),
                {"id": session_id, "key": key_id},
            )

    async def _add_agent(self, plan: Plan) -> Any:
        key_id = None if plan.api_key is None else await self.add_key(plan.api_key)
        async with self.database.for_user(self.user_id) as session:
            agents = AgentRepository(session)
            agent = await agents.add(
                user_id=self.user_id,
                name=f"agent-{uuid4().hex[:8]}",
                api_key_id=key_id,
                content=AgentContent(
                    mode=plan.rules.mode.value,
                    model=plan.model,
                    indicators=tuple(plan.indicators),
                    strategy_prompt="Follow the trend, cut losses early, let winners run. " * 2,
                ),
            )
            version = (await agents.versions(agent.id))[0]
        return _Agent(id=agent.id, name=agent.name, version_id=version.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agent:
    id: UUID
    name: str
    version_id: UUID
