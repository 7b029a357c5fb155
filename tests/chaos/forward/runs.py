"""Forward tests from their start to their result, with all that can be known of them afterwards."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from local.parity import compare_recorded
from local.simulators.exchange_clock import ClockOrigin
from tests.chaos.accounts import Database, Ledger, Row
from tests.chaos.clients import WatchingClient
from tests.chaos.forward.plans import ForwardPlan, Subject
from tests.chaos.kills import Kill, Killer
from tests.chaos.people import Json, Person, TestType
from tests.chaos.plans import Plan, Strike
from tests.chaos.stacks import ChaosStack, StackFailed
from trading.parity import Parity

GATE_CANDLES = 60
GATE_MODEL = "simulated/always-long"
# Longer than reconciliation, restarts and time limits together.
STUCK_SECONDS = 240.0
# A notice that was under way in a worker that died is told after its limit of two minutes.
TOLD_SECONDS = 150.0
_SESSION = """
    SELECT id, status, end_reason, start_date, cursor, last_seq, epoch, missed_candles,
        paused_candles, late_decisions, possibly_paid_twice
    FROM trading_sessions WHERE id = %s
"""
_DECISIONS = """
    SELECT d.candle_number, d.late, s.happened_at
    FROM decisions d JOIN steps s ON s.session_id = d.session_id
        AND s.candle_number = d.candle_number AND s.phase = 'decision'
    WHERE d.session_id = %s ORDER BY d.candle_number, s.ordinal
"""
_NOTICES = "SELECT category, dedup_key FROM notifications WHERE session_id = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A test that was started."""

    subject: Subject
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a test left behind; only one of them has a client."""

    subject: Subject
    session: Row
    result: Json
    steps: Sequence[Row]
    decisions: Sequence[Row]
    calls: Sequence[Row]
    notices: Sequence[Row]
    requests: Counter[str]
    parity: Parity
    kills: Sequence[Kill]
    clock: ClockOrigin
    client: WatchingClient | None = None

    @property
    def candles(self) -> list[Row]:
        """The rows of stepped candles."""
        return [step for step in self.steps if step["phase"] == "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardTrack:
    """Where forward tests are run: a stack, a user on it, and the accounts beside it."""

    stack: ChaosStack
    person: Person
    database: Database
    plan: ForwardPlan

    async def started(self) -> list[Running]:
        """Start the tests, and count requests from then on."""
        agents = [await self._proven_agent(subject) for subject in self.plan.subjects]
        await Ledger(self.stack.setting("OPENROUTER_BASE_URL")).forget()
        return [
            Running(
                subject=subject,
                session_id=await self.person.start_forward(agent_id, subject.asset),
            )
            for subject, agent_id in zip(self.plan.subjects, agents, strict=True)
        ]

    async def _proven_agent(self, subject: Subject) -> str:
        """An agent that earned its forward test by a backtest on candles that only rise."""
        agent_id = await self.person.add_agent(subject.name, GATE_MODEL)
        backtest = await self.person.start(agent_id, candles=GATE_CANDLES)
        await self._ended(backtest)
        await self.person.change_agent(agent_id, subject.name, subject.model)
        return agent_id

    def client(self, running: Running) -> WatchingClient:
        return WatchingClient(
            api_url=self.stack.api_url,
            session_id=running.session_id,
            token=self.person.token,
            type="forward",
        )

    async def strike(self, strikes: Sequence[Strike], first: Running) -> list[Kill]:
        """Carry out the kills, each its delay after the one before."""
        killer = Killer(
            stack=self.stack,
            database=self.database,
            ledger=Ledger(self.stack.setting("OPENROUTER_BASE_URL")),
            plan=Plan(),
        )
        done: list[Kill] = []
        for strike in strikes:
            await asyncio.sleep(strike.delay)
            so_far = done[-1].candle if done else 0
            done.append(await killer.strike(replace(strike, candle=so_far), first.session_id))
        return done

    async def goes_on(self, tests: Sequence[Running], decisions: int) -> None:
        """Wait until each test has decided so many times from now. Raises StackFailed."""
        before = [await self._decided(each) for each in tests]
        deadline = time.monotonic() + STUCK_SECONDS * self.plan.leniency
        for running, count in zip(tests, before, strict=True):
            while await self._decided(running) < count + decisions:
                if time.monotonic() > deadline:
                    standing = await self.database.standing(running.session_id)
                    raise StackFailed(f"Stuck: {standing}\n{self.stack.log_tail()}")
                await asyncio.sleep(0.1)

    async def _decided(self, running: Running) -> int:
        return len(await self.database.read(_DECISIONS, running.session_id))

    async def stopped(self, running: Running, kills: Sequence[Kill]) -> Evidence:
        """Stop a test, close its position, and read what it left."""
        session_id, read = running.session_id, self.database.read
        await self.person.control(session_id, "stop", {"close_position": True}, "forward")
        result_id = (await self._ended(session_id, "forward"))["result_id"]
        compared = await compare_recorded(dict(self._settings), session_id)
        ledger = Ledger(self._settings["OPENROUTER_BASE_URL"])
        await ledger.collect(running.subject.model)
        evidence = Evidence(
            subject=running.subject,
            session=(await read(_SESSION, session_id))[0],
            result=(await self.person.get(f"/api/results/{result_id}"))["result"],
            steps=await self.database.steps(session_id),
            decisions=await read(_DECISIONS, session_id),
            calls=await self.database.calls(session_id),
            notices=await read(_NOTICES, session_id),
            requests=ledger.requests,
            parity=compared.parity,
            kills=kills,
            clock=self._clock(),
        )
        return await self._told(evidence)

    @property
    def _settings(self) -> dict[str, str]:
        return self.stack.directory.record.settings

    def _clock(self) -> ClockOrigin:
        file = self.stack.directory.path / "exchange-clock.json"
        return ClockOrigin.model_validate_json(file.read_bytes())

    async def _told(self, evidence: Evidence) -> Evidence:
        """With the notices of every exit, or those that were there after long enough."""
        deadline = time.monotonic() + TOLD_SECONDS
        while untold(evidence) and time.monotonic() < deadline:
            await asyncio.sleep(1.0)
            notices = await self.database.read(_NOTICES, str(evidence.session["id"]))
            evidence = replace(evidence, notices=notices)
        return evidence

    async def _ended(self, session_id: str, type: TestType = "backtest") -> Json:
        deadline = time.monotonic() + STUCK_SECONDS
        while not (session := await self.person.session(session_id, type))["result_id"]:
            if session["status"] == "failed" or time.monotonic() > deadline:
                raise StackFailed(f"No result: {session}\n{self.stack.log_tail()}")
            await asyncio.sleep(0.1)
        return session


def untold(evidence: Evidence) -> list[int]:
    """Trades that ended before their test did, and of whose end the user was not told."""
    told = {notice["dedup_key"] for notice in evidence.notices}
    ended = [number for step in evidence.steps for number in _exits(step)]
    return [number for number in ended if f"closed-{number}" not in told]


def _exits(step: Row) -> list[int]:
    """The trades that a row closes; of one that closed with its test, the test's end tells."""
    events = step["events"]
    if any(each["event"] == "session_completed" for each in events):
        return []
    closed = [each["data"] for each in events if each["event"] == "position_closed"]
    return [data["trade_number"] for data in closed]
