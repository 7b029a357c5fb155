"""How many model calls one API key may have under way."""

from asyncio import Semaphore
from weakref import WeakValueDictionary


class KeySlots:
    """Lets so many calls of each key run at once in this worker; the others wait in turn.

    Providers limit keys: without this, the hundred tests of one user refuse each other.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Forgotten, key and all, with the last call that holds or waits for it.
        self._of_key: WeakValueDictionary[str, Semaphore] = WeakValueDictionary()

    def of(self, api_key: str) -> Semaphore:
        """Return what a call with this key has to hold."""
        return self._of_key.setdefault(api_key, Semaphore(self._limit))
