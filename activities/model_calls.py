"""Model calls that are bought once: noted before they are made, booked before they are read."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID, uuid5

from activities.failures import passes_by_itself, superseded
from activities.questions import Reply, bought_reply, stored_reply
from db.engine import Database
from db.repositories.stepping import Bill, CallKey, ModelCallRow, SteppingRepository

# A call that is cut short by a stop may still end and be booked; it was paid for anyway.
CANCELLATION_GRACE_S = 5.0
# A restart of PostgreSQL, or a failover, while a reply waits to be booked.
BOOKING_PATIENCE_S = 60.0
BOOKING_PAUSE_S = 0.2

T = TypeVar("T")


class ModelCalls:
    """The rows of calls. A call found `started` may have been paid for; a `done` one was."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID, key: CallKey) -> ModelCallRow | None:
        """The call as it stands; None where it was never opened."""
        async with self._database.statements_for_user(user_id) as connection:
            return await SteppingRepository(connection).call(key)

    async def open(self, user_id: UUID, key: CallKey) -> ModelCallRow | None:
        """Note that a call is about to be made; return it where a twin attempt was quicker."""
        async with self._database.statements_for_user(user_id) as connection:
            stepping = SteppingRepository(connection)
            if await stepping.open_call(key, id=call_id(key)):
                return None
            return await done_by_twin(stepping, key)

    async def refuse(self, user_id: UUID, key: CallKey) -> None:
        """Note that nothing was bought."""
        async with self._database.statements_for_user(user_id) as connection:
            await SteppingRepository(connection).refuse_call(key)

    async def book(self, user_id: UUID, bill: Bill) -> Reply:
        """Store the reply alone; where another attempt was first, its reply is what counts."""
        attempts = await self.patiently(user_id, lambda stepping: stepping.book_call(bill))
        if attempts is not None:
            return bought_reply(bill.reply, attempts)
        async with self._database.statements_for_user(user_id) as connection:
            return stored_reply(await done_by_twin(SteppingRepository(connection), bill.key))

    async def patiently(
        self, user_id: UUID, store: Callable[[SteppingRepository], Awaitable[T]]
    ) -> T:
        """Store what is paid for and is nowhere else yet.

        Temporal's next attempt would have to buy it again, so PostgreSQL is waited for here.
        """
        deadline = time.monotonic() + BOOKING_PATIENCE_S
        while True:
            try:
                async with self._database.statements_for_user(user_id) as connection:
                    return await store(SteppingRepository(connection))
            except Exception as e:
                if not passes_by_itself(e) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(BOOKING_PAUSE_S)


async def carried_out(purchase: Awaitable[T]) -> T:
    """Await a purchase; one that is cancelled has a moment to end and be booked."""
    call = asyncio.ensure_future(purchase)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await _let_it_end(call)
        raise


async def _let_it_end(call: "asyncio.Future[Any]") -> None:
    done, _ = await asyncio.wait([call], timeout=CANCELLATION_GRACE_S)
    if not done:
        call.cancel()
        await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # retrieved: the cancellation is what counts now


async def done_by_twin(stepping: SteppingRepository, key: CallKey) -> ModelCallRow:
    """The call that another attempt has made meanwhile; ends where a newer run owns the session."""
    made = await stepping.call(key)
    if made is None or not is_done(made):
        raise superseded(str(key.session_id))
    return made


def is_done(call: ModelCallRow | None) -> bool:
    return call is not None and call.status == "done"


def call_id(key: CallKey) -> UUID:
    return uuid5(key.session_id, f"call-{key.candle_number}-{key.call_no}")
