"""`alphalab demo`: a backtest from nothing to its result, done as a user of the API does it."""

import asyncio
import hashlib
import io
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import httpx
from rich.console import Console

from db.engine import Database
from local.data_directory import DataDirectory, StackRecord, check_is_own_issuer
from local.demo_client import ANSWER_SECONDS, ApiClient, DemoFailed, Json
from local.demo_market import Market, Span, check_served, store_simulated, upload
from local.demo_report import Addresses, alphalab_command, report, where_next
from local.demo_view import Standing, View, counted
from local.stack import command_settings, given_settings, start_in_background
from settings import TemporalSettings

# The user that `alphalab token` signs in as, so that its tokens show what the demo made.
SUBJECT = "user_local"
CANDLES_TRADED = 500
STARTING_CAPITAL = 10_000.0
START_SECONDS = 120.0
TRADES_READ = 500

SIMULATED_MODEL = "simulated/momentum"
SIMULATED_KEY = "sk-or-v1-of-nobody"
REAL_MODELS: Final = ("openai/gpt-4o-mini", "google/gemini-2.5-flash-lite", "openrouter/auto")
# A language model takes seconds and costs money: fewer decisions, and a limit.
REAL_INTERVAL = 16
REAL_LIMIT_USD = 0.5

INDICATORS: Final = ("rsi_14", "ema_20", "macd", "atr_14")
STRATEGY = (
    "Trade momentum. Go long when the price breaks out of its recent range upwards, short when it "
    "breaks out downwards, and leave when the move fades. Always set a stop and keep losses small."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """Who decides, with which key, and how often."""

    model: str
    key_id: str
    is_simulated: bool

    @property
    def agent_name(self) -> str:
        return "Demo (simulated model)" if self.is_simulated else "Demo"

    @property
    def terms(self) -> Json:
        """Its part of a backtest's start."""
        if self.is_simulated:
            return {"decision_mode": "every_candle"}
        return {
            "decision_mode": "every_n_candles",
            "decision_interval_candles": REAL_INTERVAL,
            "max_cost_usd": REAL_LIMIT_USD,
        }


def run_demo(
    directory: DataDirectory,
    market: Market,
    *,
    sign_in: Callable[[], str],
    candles: int = CANDLES_TRADED,
) -> None:
    """Run a backtest of the market's newest candles and show it.

    `sign_in` mints a token of the running stack's issuer for `SUBJECT`. Raises `DemoFailed`,
    and `ServerNotStarted` when there is no stack and none can be started.
    """
    view = View(_console())
    try:
        _ensure_stack(directory, view)
    except KeyboardInterrupt:
        view.line("You left before the stack was ready.")
        raise
    record = directory.running_record()
    check_is_own_issuer(record)
    asyncio.run(_Demo(directory, record, market, view, sign_in()).run(candles))


def _console() -> Console:
    """What stands in the texts is shown as it is; a character that cannot be becomes a `?`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, markup=False, emoji=False)


def _ensure_stack(directory: DataDirectory, view: View) -> None:
    began = time.monotonic()
    if _has_ready_stack(directory, view):
        view.step("Stack", f"already running in {directory.path}, so the demo uses it")
        return

    def describe() -> str:
        started = ", ".join(directory.record.children)
        return f"Starting the stack in {directory.path}" + (f": {started}" if started else "")

    with view.waiting(describe):
        start_in_background(directory)
    view.step("Stack", f"started in {directory.path} in {time.monotonic() - began:.0f} s")
    view.step("", f"it keeps running: `{alphalab_command(directory, 'down')}` stops it")


def _has_ready_stack(directory: DataDirectory, view: View) -> bool:
    """Whether the directory has a running stack; one that starts or stops is waited for."""

    def is_settled() -> bool:
        return not directory.is_running or directory.record.state == "ready"

    if not is_settled():
        deadline = time.monotonic() + START_SECONDS
        with view.waiting(lambda: f"The stack in {directory.path} is {directory.record.state}"):
            while not is_settled():
                if time.monotonic() > deadline:
                    raise DemoFailed(f"The stack in {directory.path} does not become ready.")
                time.sleep(0.1)
    return directory.is_running


class _Demo:
    """One run on a ready stack."""

    def __init__(
        self, directory: DataDirectory, record: StackRecord, market: Market, view: View, token: str
    ) -> None:
        self._directory = directory
        self._record = record
        self._market = market
        self._view = view
        self._token = token

    async def run(self, candles: int) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
            client = ApiClient(
                http,
                api_url=self._record.addresses["API"],
                token=self._token,
                on_waiting=lambda: self._view.line("The API is away for the moment; waiting ..."),
            )
            await self._sign_in(client)
            brain = await self._find_brain(client)
            agent = await self._ensure_agent(client, brain)
            await self._store_candles(client)
            session = await self._start(client, agent, brain, candles)
            began = time.monotonic()
            result_id = await self._watch(client, session)
            await self._report(client, session, result_id, brain, time.monotonic() - began)

    async def _sign_in(self, client: ApiClient) -> None:
        message = (await client.post("/api/users/sync"))["message"]
        told = "created" if message == "User created" else "known already"
        self._view.step("User", f"{SUBJECT}, {told}; signed in by the stack's own token issuer")

    async def _find_brain(self, client: ApiClient) -> Brain:
        """A key that works, and a model that it opens."""
        secret = given_settings().get("OPENROUTER_API_KEY", SIMULATED_KEY)
        key = await _ensure_key(client, secret)
        validation = await client.post(f"/api/api-keys/{key['id']}/validate")
        if not validation["valid"]:
            raise DemoFailed(
                f"{validation['error']} Set OPENROUTER_API_KEY to one that "
                f"{self._record.settings['OPENROUTER_BASE_URL']} takes."
            )
        known = validation["models_available"] or []
        model = next((each for each in (SIMULATED_MODEL, *REAL_MODELS) if each in known), None)
        if model is None:
            raise DemoFailed(f"None of the demo's models is on offer: {', '.join(REAL_MODELS)}.")
        is_simulated = model == SIMULATED_MODEL
        whose = "the simulated OpenRouter: nothing is paid"
        if not is_simulated:
            whose = f"OpenRouter: the demo spends {REAL_LIMIT_USD} USD at most"
        self._view.step("Key", f"{key['key_prefix']}, stored encrypted, of {whose}")
        return Brain(model=model, key_id=key["id"], is_simulated=is_simulated)

    async def _ensure_agent(self, client: ApiClient, brain: Brain) -> Json:
        wanted = {
            "name": brain.agent_name,
            "mode": "omni",
            "model": brain.model,
            "api_key_id": brain.key_id,
            "indicators": list(INDICATORS),
            "strategy_prompt": STRATEGY,
        }
        found = await client.get("/api/agents", search=brain.agent_name, limit=100)
        same = [each for each in found["agents"] if each["name"] == brain.agent_name]
        if same:
            answer = await client.put(f"/api/agents/{same[0]['id']}", wanted)
        else:
            answer = await client.post("/api/agents", wanted)
        agent: Json = answer["agent"]
        self._view.step(
            "Agent",
            f"{agent['name']}, {'found' if same else 'made'}: {agent['model']}, sees "
            f"{', '.join(agent['indicators'])}",
        )
        return agent

    async def _store_candles(self, client: ApiClient) -> None:
        market = self._market
        with self._view.waiting(lambda: f"Storing {counted(len(market.series), 'candle')}"):
            if market.file is None:
                await self._store_simulated()
            else:
                await upload(market, client)
        self._view.step("Candles", market.description)

    async def _store_simulated(self) -> None:
        settings = command_settings(self._directory)
        database = Database.connect(
            settings["DATABASE_URL"], system_url=settings.get("DATABASE_SYSTEM_URL")
        )
        try:
            await store_simulated(self._market, database)
        finally:
            await database.dispose()

    async def _start(self, client: ApiClient, agent: Json, brain: Brain, candles: int) -> Json:
        market, traded = self._market, self._market.newest(candles)
        await check_served(market, traded, client)
        span = Span.of(traded, market.timeframe)
        answer = await client.post(
            "/api/arena/backtest/start",
            {
                "agent_id": agent["id"],
                "asset": market.asset,
                "timeframe": market.timeframe.value,
                "data_source": market.source,
                "start_date": span.start.isoformat(),
                "end_date": span.end.isoformat(),
                "starting_capital": STARTING_CAPITAL,
                "playback_speed": "instant",
                **brain.terms,
            },
        )
        session: Json = answer["session"]
        every = session["decision_interval_candles"]
        self._view.step(
            "Backtest",
            f"{counted(session['total_candles'], 'candle')}, {span.start:%Y-%m-%d %H:%M} to "
            f"{span.end:%Y-%m-%d %H:%M} UTC, a decision every "
            f"{'candle' if every == 1 else f'{every} candles'}",
        )
        return session

    async def _watch(self, client: ApiClient, session: Json) -> str:
        """Show the test until its end; the id of its result. Raises `DemoFailed`."""
        standing = Standing(total_candles=session["total_candles"], equity=STARTING_CAPITAL)
        try:
            with self._view.watching(standing) as show:
                async with aclosing(client.watch(session["id"])) as frames:
                    async for frame in frames:
                        standing = standing.after(frame)
                        show(standing)
                        await _stop_when_stuck(client, session["id"], frame, standing)
        except asyncio.CancelledError:
            self._say_goodbye(session)
            raise
        if standing.result_id is None:
            raise DemoFailed(f"The backtest failed: {standing.failure}")
        if standing.trouble and standing.decision is None:
            raise DemoFailed(f"The agent could not take a single decision: {standing.trouble}")
        if standing.trouble:
            self._view.line(f"Ended early: {standing.trouble}")
        return standing.result_id

    async def _report(
        self, client: ApiClient, session: Json, result_id: str, brain: Brain, seconds: float
    ) -> None:
        path = f"/api/results/{result_id}"
        result = (await client.get(path))["result"]
        trades = (await client.get(f"{path}/trades", limit=TRADES_READ))["trades"]
        report(
            self._view,
            result,
            trades,
            file=self._market.file,
            is_simulated_model=brain.is_simulated,
            seconds=seconds,
        )
        where_next(self._view, self._directory, self._addresses(session, "Result", path))
        if self._market.file is None:
            real = ("--candles", "FILE", "--asset", "BTC/USDT", "--timeframe", "1h")
            self._view.step("Real data", alphalab_command(self._directory, "demo", *real))

    def _addresses(self, session: Json, what: str, path: str) -> Addresses:
        namespace = TemporalSettings.model_fields["temporal_namespace"].default
        return Addresses(
            what=what,
            path=path,
            api=self._record.addresses["API"],
            documentation=self._record.addresses["API documentation"],
            web_ui=self._record.addresses.get("Temporal Web UI"),
            namespace=self._record.settings.get("TEMPORAL_NAMESPACE", namespace),
            workflow_id=session["workflow_id"],
        )

    def _say_goodbye(self, session: Json) -> None:
        self._view.line()
        self._view.line("You left; the backtest goes on to its end without you.")
        path = f"/api/arena/backtest/{session['id']}"
        where_next(self._view, self._directory, self._addresses(session, "Backtest", path))


async def _ensure_key(client: ApiClient, secret: str) -> Json:
    """The user's key of this secret; its label tells it from others without showing it."""
    label = f"Demo {hashlib.sha256(secret.encode()).hexdigest()[:8]}"
    stored = (await client.get("/api/api-keys"))["api_keys"]
    same: list[Json] = [key for key in stored if key["label"] == label]
    if same:
        return same[0]
    new = {"provider": "openrouter", "api_key": secret, "label": label}
    added: Json = (await client.post("/api/api-keys", new))["api_key"]
    return added


async def _stop_when_stuck(
    client: ApiClient, session_id: str, frame: Json, standing: Standing
) -> None:
    """A test that paused for want of a model would wait for ever: its result so far will do."""
    if frame["event"] == "session_paused" and standing.pause_reason != "user":
        await client.post(f"/api/arena/backtest/{session_id}/stop", {"close_position": True})
