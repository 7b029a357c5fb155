"""An asset's price as the exchange pushes it, shared by all who watch it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from integrations.errors import TemporarilyUnavailable
from integrations.exchanges.connection import Connection


class TickerStream:
    """The next push of each asset, awaited by one task whatever the number of watchers.

    ccxt gives all watchers one future, and the cancellation of one of them would cancel it for
    the others.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._awaited: dict[str, asyncio.Task[Any]] = {}

    async def next(self, asset: str, *, silence: float) -> Any:
        """The next ticker, as ccxt gives it, or `IntegrationError`; `silence` is in seconds.

        A stream that says nothing for so long counts as broken.
        """
        task = self._awaited.get(asset)
        if task is None or task.done():
            task = self._awaited[asset] = _quiet_task(self._watch(asset))
        done, _ = await asyncio.wait({task}, timeout=silence)
        if not done:
            task.cancel()
        if not done or task.cancelled():
            raise TemporarilyUnavailable(f"{self._connection.source}: the stream fell silent")
        return task.result()

    def close(self) -> None:
        for task in self._awaited.values():
            task.cancel()

    async def _watch(self, asset: str) -> Any:
        return await self._connection.ask_about(
            asset, lambda exchange: exchange.watch_ticker(asset)
        )


def _quiet_task(watching: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(watching)
    # All watchers may have left before it fails; nobody needs to hear of it then.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
