"""One backtest from its start to its result, with all that can be known of it afterwards."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.accounts import Database, Ledger, Row
from tests.chaos.clients import Frame, WatchingClient
from tests.chaos.kills import Kill, Killer
from tests.chaos.people import Json, Person
from tests.chaos.plans import Plan
from tests.chaos.stacks import ChaosStack, StackFailed

# How long the restless client keeps a connection at most.
PATIENCE_SECONDS = 4.0
END_SECONDS = 120.0
# What differs between two sessions that are otherwise the same.
_OWN_OF_TRADES = {"id"}
_OWN_OF_DECISIONS = {"id", "trade_id", "latency_ms", "attempts"}
_OWN_OF_RESULTS = {"id", "session_id", "created_at", "duration_display", "possibly_paid_twice"}
_OWN_OF_EVENTS = {
    *("id", "trade_id", "session_id", "result_id", "latency_ms", "attempt"),
    *("elapsed_seconds", "duration_seconds", "duration_display"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a session came to, by REST, and without what is its own."""

    result: Json
    trades: Sequence[Json]
    decisions: Sequence[Json]
    possibly_paid_twice: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished session: what its user sees, what is stored, what clients heard, who asked."""

    session_id: str
    seconds: float
    kills: Sequence[Kill]
    outcome: Outcome
    steps: Sequence[Row]
    calls: Sequence[Row]
    requests: Counter[str]
    clients: Mapping[str, WatchingClient]

    @property
    def equity(self) -> list[tuple[int, Any, Any]]:
        """The equity after every candle, to the last stored digit."""
        return [
            (step["candle_number"], step["equity"], step["drawdown"])
            for step in self.steps
            if step["phase"] == "step"
        ]

    @property
    def events(self) -> list[Frame]:
        """What the steady client got, without what is the session's own."""
        frames = self.clients["steady"].frames
        return [
            {"seq": frame["seq"], "event": frame["event"], "data": _common(frame["data"])}
            for frame in frames
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where sessions are run: a stack, a user on it, and the accounts beside it."""

    stack: ChaosStack
    person: Person
    database: Database
    ledger: Ledger
    plan: Plan

    async def run(self, agent_id: str, *, is_disturbed: bool) -> Run:
        """Run one session to its end, with kills or without."""
        await self.ledger.forget()
        began = time.monotonic()
        session_id = await self.person.start(
            agent_id, candles=self.plan.candles, interval=self.plan.interval
        )
        clients = {
            "steady": self.client(session_id),
            "restless": self.client(session_id, patience=PATIENCE_SECONDS),
        }
        watching = [asyncio.create_task(client.run()) for client in clients.values()]
        plan = self.plan if is_disturbed else self.plan.without_kills()
        killer = Killer(stack=self.stack, database=self.database, ledger=self.ledger, plan=plan)
        try:
            kills = await killer.run(session_id)
            await self.ended(session_id)
            seconds = time.monotonic() - began
            await asyncio.wait_for(asyncio.gather(*watching), timeout=60.0)
        finally:
            for each in watching:
                each.cancel()
        await self.ledger.collect(self.plan.model)
        clients["from the start"] = await self.replayed(session_id)
        return Run(
            session_id=session_id,
            seconds=seconds,
            kills=kills,
            outcome=await self.outcome(session_id),
            steps=await self.database.steps(session_id),
            calls=await self.database.calls(session_id),
            requests=self.ledger.requests.copy(),
            clients=clients,
        )

    async def ended(self, session_id: str) -> Json:
        """The session once it has a result. Raises StackFailed."""
        deadline = time.monotonic() + END_SECONDS
        while not (session := await self.person.session(session_id))["result_id"]:
            if session["status"] == "failed" or time.monotonic() > deadline:
                raise StackFailed(f"No result: {session}\n{self.stack.log_tail()}")
            await asyncio.sleep(0.1)
        return session

    async def outcome(self, session_id: str) -> Outcome:
        result = await self.person.result(session_id)
        path = f"/api/results/{result['id']}"
        trades = await self.person.pages(f"{path}/trades", "trades", limit=500)
        thoughts = await self.person.pages(f"{path}/reasoning", "reasoning", limit=1000)
        return Outcome(
            result=_without(result, _OWN_OF_RESULTS),
            trades=[_without(each, _OWN_OF_TRADES) for each in trades],
            decisions=[_without(each, _OWN_OF_DECISIONS) for each in thoughts],
            possibly_paid_twice=result["possibly_paid_twice"],
        )

    async def replayed(self, session_id: str) -> WatchingClient:
        """A client that comes after the end and asks for everything."""
        client = self.client(session_id)
        await asyncio.wait_for(client.run(), timeout=60.0)
        return client

    def client(self, session_id: str, *, patience: float | None = None) -> WatchingClient:
        return WatchingClient(
            api_url=self.stack.api_url,
            session_id=session_id,
            token=self.person.token,
            patience=patience,
            random=Random(self.plan.seed),
        )


def _common(value: Any) -> Any:
    """The value without what differs from session to session, at any depth."""
    if isinstance(value, dict):
        return {name: _common(each) for name, each in value.items() if name not in _OWN_OF_EVENTS}
    return value


def _without(values: Json, names: set[str]) -> Json:
    return {name: value for name, value in values.items() if name not in names}
