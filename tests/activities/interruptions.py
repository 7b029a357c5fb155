"""Runs an activity and interrupts it at its k-th await, as a cancellation or as a kill would.

An await counts where it suspends: what lies between two suspensions happens at once. Tasks that
the activity starts count with it. A killed activity and its tasks never run again, and whatever
they held open is torn down by `Process.kill`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from temporalio.testing import ActivityEnvironment

from tests.plain_runs import environment

Interruption = Literal["cancel", "kill"]

# What a killed activity leaves behind must not be collected: closing a coroutine runs its code.
GRAVEYARD: list[object] = []


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """The suspensions of one attempt, and what is to happen at one of them."""

    interrupt_at: int
    how: Interruption
    environment: ActivityEnvironment
    killed: asyncio.Event
    tasks: list[asyncio.Task[Any]]
    count: int = 0

    def suspended(self) -> None:
        self.count += 1
        if self.count != self.interrupt_at:
            return
        if self.how == "kill":
            self.killed.set()
        else:
            self.environment.cancel()


_CURRENT: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


class _Counted:
    """Drives a coroutine and counts where it suspends; once killed, it drives it no further."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], attempt: _Attempt) -> None:
        self._coroutine = coroutine
        self._attempt = attempt
        if attempt.how == "kill":
            GRAVEYARD.append(coroutine)

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        error: BaseException | None = None
        while True:
            if self._attempt.killed.is_set():
                GRAVEYARD.append(inner)
                if error is not None:
                    raise error
                yield from asyncio.get_running_loop().create_future()
            try:
                waited_for = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as end:
                return end.value
            self._attempt.suspended()
            error = None
            try:
                yield waited_for
            except BaseException as e:
                error = e


def _task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    attempt = _CURRENT.get()
    if attempt is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    task = asyncio.Task(_driven(_Counted(coroutine, attempt)), loop=loop, **options)
    attempt.tasks.append(task)
    return task


async def _driven(counted: Awaitable[Any]) -> Any:
    return await counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt went: its result, or how it ended without one."""

    result: Any = None
    error: BaseException | None = None
    was_killed: bool = False
    suspensions: int = 0


async def interrupted(
    activity: Callable[[Any], Awaitable[Any]],
    input: Any,
    *,
    at: int,
    how: Interruption,
    run_id: str,
) -> Outcome:
    """Run the first attempt of an activity and interrupt it at suspension `at`, counted from 1.

    It may come to its end before, or in spite of, the interruption.
    """
    loop = asyncio.get_running_loop()
    surroundings = environment(run_id=run_id)
    attempt = _Attempt(
        interrupt_at=at, how=how, environment=surroundings, killed=asyncio.Event(), tasks=[]
    )
    known_generators = set(loop._asyncgens)  # type: ignore[attr-defined]
    loop.set_task_factory(_task_factory)
    token = _CURRENT.set(attempt)
    try:
        # The environment runs the activity in a task of its own, which is the one that counts.
        running = surroundings.run(activity, input)
        _CURRENT.reset(token)
        return await _watched(running, attempt)
    finally:
        loop.set_task_factory(None)
        for generator in set(loop._asyncgens) - known_generators:  # type: ignore[attr-defined]
            loop._asyncgens.discard(generator)  # type: ignore[attr-defined]


async def _watched(running: Awaitable[Any], attempt: _Attempt) -> Outcome:
    async def run() -> Any:
        _CURRENT.set(attempt)
        return await running

    loop = asyncio.get_running_loop()
    main = asyncio.Task(run(), loop=loop)
    killed = asyncio.Task(attempt.killed.wait(), loop=loop)
    await asyncio.wait([main, killed], return_when=asyncio.FIRST_COMPLETED)
    was_killed = attempt.killed.is_set()
    killed.cancel()
    if was_killed:
        for task in attempt.tasks:
            task.cancel()
    await asyncio.wait([main, killed, *attempt.tasks])
    if was_killed or main.cancelled():
        error: BaseException | None = asyncio.CancelledError()
    else:
        error = main.exception()
    for task in attempt.tasks:
        if not task.cancelled():
            task.exception()  # retrieved: what counts is how the activity itself ended
    attempt.tasks.clear()
    return Outcome(
        result=None if error else main.result(),
        error=error,
        was_killed=was_killed,
        suspensions=attempt.count,
    )
