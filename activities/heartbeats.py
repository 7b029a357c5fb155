"""Heartbeats beside work that waits for others, so that a dead worker is noticed at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity

INTERVAL_S = 1.0


@contextmanager
def heartbeating() -> Iterator[None]:
    """Heartbeat every second while the block runs; also what makes a cancellation arrive.

    Most blocks are over long before that, so a timer is set and no task is started.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(INTERVAL_S, beat)

    timer = loop.call_later(INTERVAL_S, beat)
    try:
        yield
    finally:
        timer.cancel()
