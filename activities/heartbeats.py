"""Heartbeats beside work that waits for others, so that a dead worker is noticed at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity

INTERVAL_S = 1.0
# A heartbeat is a call to Temporal. When a thousand tests wake up at one close, every activity
# takes longer than usual, and what says so only adds to it.
FIRST_AFTER_S = 2.0


@contextmanager
def heartbeating() -> Iterator[None]:
    """Heartbeat every second of a block that takes longer than two.

    It is also what makes a cancellation arrive. Most blocks are over long before that, so a timer
    is set and no task is started.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(INTERVAL_S, beat)

    timer = loop.call_later(FIRST_AFTER_S, beat)
    try:
        yield
    finally:
        timer.cancel()
