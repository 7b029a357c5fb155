"""How tasks are ended for certain."""

import asyncio
from collections.abc import Collection
from typing import Any

# Long enough for a task to let go of its connections.
_CANCEL_AGAIN_S = 0.5


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, in whatever way.

    Before Python 3.12 `asyncio.wait_for`, by which redis-py sends, may swallow a cancellation: a
    task that goes on is cancelled again.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
