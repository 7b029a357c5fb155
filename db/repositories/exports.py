"""Exports: as their user asks for them, as they are made, and as they are cleared away."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import Export, ExportRecord, NewExport

_UNDER_WAY = col(Export.status) == "processing"


class ExportRepository:
    """Exports of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, new: NewExport) -> ExportRecord | None:
        """Store an export to be made; None while another one of the user's is under way."""
        statement = insert(Export).values(**new.model_dump()).on_conflict_do_nothing()
        added = await self._session.scalar(statement.returning(col(Export.id)))
        return None if added is None else await self.get(added)

    async def get(self, export_id: UUID) -> ExportRecord | None:
        found = await self._session.get(Export, export_id, populate_existing=True)
        return None if found is None else _record(found)

    async def note_progress(self, export_id: UUID, progress_pct: float) -> None:
        """Say how far it is, unless it has ended."""
        await self._change(export_id, progress_pct=progress_pct)

    async def finish(
        self, export_id: UUID, *, object_key: str, size_bytes: int, lifetime: timedelta
    ) -> bool:
        """Say that its file is there, for so long; False when it has ended already.

        It takes the place of the user's earlier ones: a user has one file at a time.
        """
        is_done = await self._change(
            export_id,
            status="ready",
            progress_pct=100.0,
            object_key=object_key,
            size_bytes=size_bytes,
            expires_at=func.clock_timestamp() + lifetime,
        )
        if is_done:
            await self._expire_others(export_id)
        return is_done

    async def _expire_others(self, export_id: UUID) -> None:
        """Those of the same user, whether or not the transaction sees any more."""
        owner = select(col(Export.user_id)).where(col(Export.id) == export_id).scalar_subquery()
        earlier = (
            col(Export.user_id) == owner,
            col(Export.status) == "ready",
            col(Export.id) != export_id,
        )
        await self._session.execute(
            update(Export).where(*earlier).values(status="expired"),
            execution_options={"synchronize_session": False},
        )

    async def fail(self, export_id: UUID, error: str) -> None:
        """Say that there will be no file; changes nothing when it has ended already."""
        await self._change(export_id, status="failed", error=error)

    async def _change(self, export_id: UUID, **values: Any) -> bool:
        change = update(Export).where(col(Export.id) == export_id, _UNDER_WAY).values(**values)
        changed = await self._session.scalar(
            change.returning(col(Export.id)), execution_options={"synchronize_session": False}
        )
        return changed is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleExport:
    """An export that should have a workflow."""

    id: UUID
    user_id: UUID
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptExport:
    """An export that has ended, and whose file may still be there."""

    id: UUID
    object_key: str


class AllExportsRepository:
    """Exports of all users; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, export_id: UUID) -> ExportRecord | None:
        """An export whose link was verified, whoever follows it."""
        return await ExportRepository(self._session).get(export_id)

    async def stale(self, unchanged_for: timedelta) -> list[StaleExport]:
        """Those under way whose row has not changed for that long, the oldest first."""
        columns = [getattr(Export, name) for name in StaleExport.__slots__]
        unchanged = col(Export.updated_at) < func.clock_timestamp() - unchanged_for
        query = select(*columns).where(_UNDER_WAY, unchanged).order_by(col(Export.updated_at))
        return [StaleExport(**row) for row in (await self._session.execute(query)).mappings()]

    async def expire(self, now: datetime) -> int:
        """End those whose time is over; return how many."""
        over = (col(Export.status) == "ready", col(Export.expires_at) <= now)
        ended = await self._session.scalars(
            update(Export).where(*over).values(status="expired").returning(col(Export.id)),
            execution_options={"synchronize_session": False},
        )
        return len(ended.all())

    async def to_clear(self, *, limit: int) -> list[KeptExport]:
        """Some of those that ended without or with a file, and may be followed no more."""
        ended: ColumnElement[bool] = or_(
            col(Export.status) == "expired", col(Export.status) == "failed"
        )
        columns = [getattr(Export, name) for name in KeptExport.__slots__]
        kept = select(*columns).where(ended, col(Export.object_key).is_not(None))
        rows = await self._session.execute(kept.order_by(col(Export.id)).limit(limit))
        return [KeptExport(**row) for row in rows.mappings()]

    async def forget_file(self, export_id: UUID) -> None:
        """Say that nothing is stored for it any more."""
        await self._session.execute(
            update(Export).where(col(Export.id) == export_id).values(object_key=None)
        )

    async def keys_among(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that an export names."""
        query = select(col(Export.object_key)).where(col(Export.object_key).in_(keys))
        return {key for key in await self._session.scalars(query) if key is not None}


def _record(export: Export) -> ExportRecord:
    return ExportRecord.model_validate(export, from_attributes=True)
