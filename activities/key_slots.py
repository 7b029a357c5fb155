"""How many model calls one API key may have under way."""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A place in the line of a key: since when (a Unix time), and how many attempts failed before.

    An attempt that has waited for long hands it back, and the next one takes it up.
    """

    since: float
    failed: int = 0


class StillWaiting(Exception):
    """The turn has not come within the time that there was for it."""


class Line:
    """Lets so many pass at once; of those who wait, the one who came first goes first."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def is_free(self) -> bool:
        return self._free > 0

    @asynccontextmanager
    async def turn(
        self, *, since: float | None = None, patience: float | None = None
    ) -> AsyncIterator[None]:
        """Hold a place while the block runs. Raises `StillWaiting` after `patience` seconds.

        Who came earlier, and left meanwhile, says since when.
        """
        try:
            async with asyncio.timeout(patience):
                await self._take(time.time() if since is None else since)
        except TimeoutError:
            raise StillWaiting from None
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, since: float) -> None:
        if self._free > 0:
            self._free -= 1
            return
        called = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (since, next(self._numbers), called))
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # called in the moment of giving up
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            *_, called = heapq.heappop(self._waiting)
            if not called.done():
                called.set_result(None)
                return
        self._free += 1


class KeySlots:
    """Lets so many calls of each key run at once in this worker; the others wait in turn.

    Providers limit keys: without this, the hundred tests of one user refuse each other.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Forgotten, key and all, with the last call that holds or waits for it.
        self._of_key: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def of(self, api_key: str) -> Line:
        """Return the line in which a call with this key has to wait."""
        return self._of_key.setdefault(api_key, Line(self._limit))
