"""Kills parts of a running stack while a session runs on it."""

import asyncio
import time
from dataclasses import dataclass

from tests.chaos.accounts import Database, Ledger, Row
from tests.chaos.plans import Plan, Strike, Victim
from tests.chaos.stacks import ChaosStack, StackFailed

POLL_SECONDS = 0.01
# Longer than the worst of restarts and time limits together.
STUCK_SECONDS = 150.0
# A frozen worker's last request has reached the simulator by then.
SETTLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A kill as it happened; `at` is in seconds since the epoch."""

    victim: Victim
    candle: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer:
    """Strikes a stack by plan, led by how far a session has come."""

    stack: ChaosStack
    database: Database
    ledger: Ledger
    plan: Plan

    async def run(self, session_id: str) -> list[Kill]:
        """Carry out every strike, then wait for the session's end. Raises StackFailed."""
        done = []
        for strike in self.plan.strikes():
            standing = await self._wait(session_id, strike.candle)
            if standing["cursor"] < strike.candle:
                break
            await asyncio.sleep(strike.delay)
            done.append(await self.strike(strike, session_id))
        await self._wait(session_id, self.plan.candles + 1)
        return done

    async def strike(self, strike: Strike, session_id: str) -> Kill:
        """Kill now, or at the moment that the victim's name says. Raises StackFailed."""
        standing = await self.database.glance(session_id)
        candle = standing["cursor"] if standing else strike.candle
        at = time.time()
        match strike.victim:
            case "everything":
                await self._collect_first()
                await self.stack.kill_everything()
                await self.stack.start()
            case "simulators":
                await self._collect_first()
                await self.stack.kill("simulators")
                self.stack.thaw("worker")
            case "temporal's data":
                at = await self.stack.lose_temporal_data()
            case "request":
                candle = await self.database.asking(session_id) + 1
                await asyncio.sleep(strike.delay / 20)
                at = await self.stack.kill("worker")
            case victim:
                at = await self.stack.kill(victim)
        return Kill(victim=strike.victim, candle=candle, at=at)

    async def _collect_first(self) -> None:
        """Freeze the worker and read the ledger, which is about to die, to the last request."""
        self.stack.freeze("worker")
        await asyncio.sleep(SETTLE_SECONDS)
        await self.ledger.collect(self.plan.model)

    async def _wait(self, session_id: str, candle: int) -> Row:
        """Return the session's standing once it has stepped so many candles, or has ended."""
        moved_at, cursor = time.monotonic(), -1
        while True:
            standing = await self.database.glance(session_id)
            if standing is not None:
                if standing["cursor"] >= candle or standing["status"] not in _GOING:
                    return standing
                if standing["cursor"] != cursor:
                    moved_at, cursor = time.monotonic(), standing["cursor"]
            if time.monotonic() - moved_at > STUCK_SECONDS:
                raise StackFailed(f"Stuck at candle {cursor}: {standing}\n{self.stack.log_tail()}")
            await asyncio.sleep(POLL_SECONDS)


_GOING = {"configuring", "initializing", "running"}
