"""Sessions that are paused before the kills and taken up again after them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.accounts import Row
from tests.chaos.clients import WatchingClient
from tests.chaos.people import Json
from tests.chaos.runs import Outcome, Track
from tests.chaos.stacks import StackFailed

MODEL = "simulated/always-long"
PAUSE_SECONDS = 60.0
# Long enough for a session that wrongly moves on to show it.
LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A session that its user paused when `asked` candles were stepped."""

    session_id: str
    asked: int
    standing: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A paused session and what became of it."""

    paused: Paused
    later: Row
    shown: Json
    answer: Json
    outcome: Outcome
    client: WatchingClient


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenUp:
    """What became of the three: resumed, stopped with closing, stopped without."""

    resumed: Resumed
    closed: Resumed
    kept: Resumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bystanders:
    """The same test four times: undisturbed, and paused to be resumed, stopped, or left open."""

    track: Track
    undisturbed: Outcome
    paused: Sequence[Paused]

    async def take_up(self) -> TakenUp:
        """See that they have not moved, and end each in its way."""
        await asyncio.sleep(LOOK_SECONDS)
        first, second, third = self.paused
        return TakenUp(
            resumed=await self._end(first, "resume"),
            closed=await self._end(second, "stop", {"close_position": True}),
            kept=await self._end(third, "stop", {"close_position": False}),
        )

    async def _end(self, paused: Paused, what: str, body: Json | None = None) -> Resumed:
        track, session_id = self.track, paused.session_id
        later = await track.database.standing(session_id)
        shown = await track.person.session(session_id)
        answer = await track.person.control(session_id, what, body)
        await track.ended(session_id)
        return Resumed(
            paused=paused,
            later=later,
            shown=shown,
            answer=answer,
            outcome=await track.outcome(session_id),
            client=await track.replayed(session_id),
        )


async def paused_bystanders(track: Track) -> Bystanders:
    """Run one bystander to its end and pause three others at random candles."""
    agent_id = await track.person.add_agent("Bystander", MODEL)
    candles = track.plan.bystander_candles
    session_id = await track.person.start(agent_id, candles=candles)
    await track.ended(session_id)
    random = Random(track.plan.seed)
    return Bystanders(
        track=track,
        undisturbed=await track.outcome(session_id),
        paused=[
            await _paused(track, agent_id, random.randrange(candles // 4, candles * 3 // 4))
            for _ in range(3)
        ],
    )


async def _paused(track: Track, agent_id: str, candle: int) -> Paused:
    session_id = await track.person.start(agent_id, candles=track.plan.bystander_candles)
    await _until(track, session_id, lambda standing: standing["cursor"] >= candle)
    await track.person.control(session_id, "pause")
    asked = (await track.database.standing(session_id))["cursor"]
    standing = await _until(track, session_id, lambda row: row["status"] == "paused")
    return Paused(session_id=session_id, asked=asked, standing=standing)


async def _until(track: Track, session_id: str, is_there: Callable[[Row], bool]) -> Row:
    deadline = time.monotonic() + PAUSE_SECONDS
    while not is_there(standing := await track.database.standing(session_id)):
        if time.monotonic() > deadline:
            raise StackFailed(f"A bystander does not move: {standing}\n{track.stack.log_tail()}")
        await asyncio.sleep(0.01)
    return standing
