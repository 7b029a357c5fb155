"""How many model calls one API key may have under way."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

# Of so many places of a key one is for waiting: whoever waits holds one of the worker's, too.
CALLS_PER_WAITING_PLACE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A place in the line of a key: since when (a Unix time), and how many attempts failed before.

    An attempt whose turn does not come hands it back, and the next one takes it up.
    """

    since: float
    failed: int = 0


class StillWaiting(Exception):
    """The turn has not come, and is not to be waited for here any longer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting:
    """Somebody in a line; who waits without limit is never sent away."""

    since: float
    number: int
    called: asyncio.Future[None]
    may_be_sent_away: bool


class Line:
    """Lets so many pass at once, and so many wait; who came first goes first.

    Those beyond are sent away, the last to come before others, to come again: that takes nothing
    from their place in the line.
    """

    def __init__(self, places: int, waiting_places: int) -> None:
        self._free = places
        self._waiting_places = waiting_places
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()

    @property
    def is_free(self) -> bool:
        return self._free > 0

    @asynccontextmanager
    async def turn(
        self, *, since: float | None = None, patience: float | None = None
    ) -> AsyncIterator[None]:
        """Hold a place while the block runs; who came earlier, and left meanwhile, says since when.

        Raises `StillWaiting` after `patience` seconds, or at once where too many wait who came
        earlier. Without `patience` the turn is waited for however long it takes.
        """
        try:
            async with asyncio.timeout(patience):
                await self._take(
                    time.time() if since is None else since, may_be_sent_away=patience is not None
                )
        except TimeoutError:
            raise StillWaiting from None
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, since: float, *, may_be_sent_away: bool) -> None:
        if self._free > 0:
            self._free -= 1
            return
        called = asyncio.get_running_loop().create_future()
        mine = _Waiting(
            since=since,
            number=next(self._numbers),
            called=called,
            may_be_sent_away=may_be_sent_away,
        )
        self._waiting.append(mine)
        self._send_one_away()
        try:
            await called
        except asyncio.CancelledError:
            # Called in the moment of giving up?
            if called.done() and not called.cancelled() and called.exception() is None:
                self._give_back()
            raise
        finally:
            self._waiting.remove(mine)

    def _send_one_away(self) -> None:
        """Where one too many waits, the last of those who may be sent away goes."""
        waiting = self._not_called()
        leaving = [each for each in waiting if each.may_be_sent_away]
        if leaving and len(waiting) > self._waiting_places:
            max(leaving, key=_place).called.set_exception(StillWaiting)

    def _give_back(self) -> None:
        waiting = self._not_called()
        if waiting:
            min(waiting, key=_place).called.set_result(None)
        else:
            self._free += 1

    def _not_called(self) -> list[_Waiting]:
        return [each for each in self._waiting if not each.called.done()]


def _place(waiting: _Waiting) -> tuple[float, int]:
    return waiting.since, waiting.number


class KeySlots:
    """Lets so many calls of each key run at once in this worker, and few more wait in it.

    Providers limit keys: without this, the hundred tests of one user refuse each other. And a
    worker has so many places: those who wait in them are kept few, so that other keys find one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Forgotten, key and all, with the last call that holds or waits for it.
        self._of_key: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def of(self, api_key: str) -> Line:
        """Return the line in which a call with this key has to wait."""
        waiting_places = max(1, self._limit // CALLS_PER_WAITING_PLACE)
        return self._of_key.setdefault(api_key, Line(self._limit, waiting_places))
