"""Clears the storage: files whose time is over, and files that no row names.

Rows come first: an export is ended in its row before its file is deleted, and its row names the
file until that is done, so that a sweep which dies anywhere is finished by the next one. A file
without a row is what somebody left who was deleted, or died in the middle.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database
from db.repositories.certificates import AllCertificates
from db.repositories.exports import AllExportsRepository
from integrations.errors import IntegrationError
from integrations.storage.objects import ObjectStore

# A file is written before its row says so, in much less than a day.
UNNAMED_FOR: Final = timedelta(days=1)
# Any constant of the project's own, as in reconciliation: whoever has this turn sweeps.
_TURN: Final = 4_201_338
_AT_ONCE: Final = 500

NamedKeys = Callable[[AsyncSession, Sequence[str]], Awaitable[set[str]]]


async def _named_by_exports(session: AsyncSession, keys: Sequence[str]) -> set[str]:
    return await AllExportsRepository(session).keys_among(keys)


async def _named_by_certificates(session: AsyncSession, keys: Sequence[str]) -> set[str]:
    return await AllCertificates(session).keys_among(keys)


async def _named_by_nobody(_: AsyncSession, __: Sequence[str]) -> set[str]:
    return set()


# For each kind of files, which of some keys are named by its rows. The doctor deletes what it
# writes, unless it is cut short.
NAMED: Mapping[str, NamedKeys] = MappingProxyType(
    {
        "exports/": _named_by_exports,
        "certificates/": _named_by_certificates,
        "doctor/": _named_by_nobody,
    }
)

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep has done."""

    expired: int = 0
    cleared: int = 0
    unnamed: int = 0
    unfinished: int = 0


class Sweeper:
    """Clears away what nobody may have any more, one process at a time."""

    def __init__(
        self,
        database: Database,
        storage: ObjectStore,
        named: Mapping[str, NamedKeys] = NAMED,
    ) -> None:
        self._database = database
        self._storage = storage
        self._named = named

    async def run_every(self, seconds: float) -> None:
        """Sweep at once and then regularly, whatever is unreachable meanwhile."""
        while True:
            try:
                swept = await self.run_once()
            except (IntegrationError, SQLAlchemyError, OSError) as e:
                _logger.warning("storage_not_swept", error=type(e).__name__)
            except Exception as e:  # whatever it is, the next sweep may come further
                _logger.exception("storage_not_swept", error=type(e).__name__)
            else:
                if swept != Swept():
                    _logger.info(
                        "storage_swept",
                        expired=swept.expired,
                        cleared=swept.cleared,
                        unnamed=swept.unnamed,
                        unfinished=swept.unfinished,
                    )
            await asyncio.sleep(seconds)

    async def run_once(self, *, now: datetime | None = None) -> Swept:
        """Sweep; does nothing while another process does. Raises what storage and database do."""
        now = now or datetime.now(UTC)
        async with self._database.turn(_TURN) as is_ours:
            if not is_ours:
                return Swept()
            before = now - UNNAMED_FOR
            return Swept(
                expired=await self._expire(now),
                cleared=await self._clear(),
                unnamed=sum([await self._unnamed(prefix, before=before) for prefix in self._named]),
                unfinished=await self._storage.remove_unfinished(before=before),
            )

    async def _expire(self, now: datetime) -> int:
        async with self._database.as_system() as session:
            return await AllExportsRepository(session).expire(now)

    async def _clear(self) -> int:
        """Delete the files of exports that have ended, and then their names."""
        cleared = 0
        while True:
            async with self._database.as_system() as session:
                kept = await AllExportsRepository(session).to_clear(limit=_AT_ONCE)
            for export in kept:
                await self._storage.delete(export.object_key)
                async with self._database.as_system() as session:
                    await AllExportsRepository(session).forget_file(export.id)
            cleared += len(kept)
            if len(kept) < _AT_ONCE:
                return cleared

    async def _unnamed(self, prefix: str, *, before: datetime) -> int:
        """Delete the old files under a prefix that no row names."""
        keys: list[str] = []
        removed = 0
        async for found in self._storage.list(prefix):
            if found.modified_at < before:
                keys.append(found.key)
            if len(keys) == _AT_ONCE:
                removed += await self._remove_unnamed(prefix, keys)
                keys.clear()
        return removed + await self._remove_unnamed(prefix, keys)

    async def _remove_unnamed(self, prefix: str, keys: Sequence[str]) -> int:
        async with self._database.as_system() as session:
            named = await self._named[prefix](session, keys)
        unnamed = [key for key in keys if key not in named]
        for key in unnamed:
            await self._storage.delete(key)
        return len(unnamed)
