"""Numbered rows of a user, read page by page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database

_BEFORE_ALL = -1

Record = TypeVar("Record")


async def numbered_pages(
    database: Database,
    user_id: UUID,
    read: Callable[[AsyncSession, int], Awaitable[Sequence[Record]]],
    number_of: Callable[[Record], int],
) -> AsyncIterator[Sequence[Record]]:
    """What `read` finds after each number, until there is no more.

    Each page is a transaction of its own, so that no connection waits for whoever takes them.
    """
    after = _BEFORE_ALL
    while True:
        async with database.for_user(user_id) as session:
            found = await read(session, after)
        if not found:
            return
        yield found
        after = number_of(found[-1])
