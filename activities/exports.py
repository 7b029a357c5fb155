"""Writes what an account holds into one file of the storage: all of it, once, or none."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID, uuid4

import orjson
import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.account_tables import Account, RowsRead, profile_of, rows_in, tables_of
from activities.failures import activity_failures, storage_failures
from activities.heartbeats import heartbeating
from db.engine import Database
from db.models import ExportRecord
from db.models.exports import ACCOUNT_PARTS, AccountPart
from db.repositories.account_data import AccountDataRepository
from db.repositories.exports import ExportRepository
from integrations.archives import Member, Table, csv_of, json_of, zip_of
from integrations.storage.objects import ObjectStore

LIFETIME = timedelta(hours=24)
PROGRESS_INTERVAL_S = 1.0
# A signal is an event of the workflow's history: ten of them show that it moves.
_SIGNALLED_PCT = 10.0

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInput:
    """An export whose row says what is wanted."""

    export_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """How the export stands; `size_bytes` is of the file, where there is one."""

    status: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailExportInput:
    """An export that comes to nothing; `message` is for its user."""

    export_id: str
    user_id: str
    message: str


class ExportWatchers(Protocol):
    """Tells the workflow how far it is. Raises `ConnectionError` when Temporal is away."""

    async def export_advanced(self, export_id: UUID, progress_pct: float) -> None: ...


class NobodyWatches:
    """For activities that are called without Temporal."""

    async def export_advanced(self, *_: object) -> None:
        return None


class ExportActivities:
    """Makes files of accounts."""

    def __init__(self, database: Database, storage: ObjectStore, watchers: ExportWatchers) -> None:
        self._database = database
        self._storage = storage
        self._watchers = watchers

    @activity.defn
    async def write_export(self, input: ExportInput) -> ExportResult:
        """Write the file, then say in the row that it is there; nothing is done twice.

        The file is whole or not there, and each attempt has its own: the first whose file the row
        names has made it. One that comes later deletes what it wrote, one that dies in between
        leaves a file that no row names.
        """
        with activity_failures(), storage_failures(), heartbeating():
            export = await self._found(input)
            if export.status == "processing":
                await self._write(export)
                export = await self._found(input)
        return ExportResult(status=export.status, size_bytes=export.size_bytes)

    @activity.defn
    async def fail_export(self, input: FailExportInput) -> ExportResult | None:
        """Say in the row that there will be no file, unless there is one.

        Return how the export then stands; None where it is gone.
        """
        export_id = UUID(input.export_id)
        with activity_failures():
            async with self._database.for_user(UUID(input.user_id)) as session:
                exports = ExportRepository(session)
                await exports.fail(export_id, input.message)
                export = await exports.get(export_id)
        if export is None:
            return None
        return ExportResult(status=export.status, size_bytes=export.size_bytes)

    async def _found(self, input: ExportInput) -> ExportRecord:
        async with self._database.for_user(UUID(input.user_id)) as session:
            found = await ExportRepository(session).get(UUID(input.export_id))
        if found is None:
            raise ApplicationError("no such export", type="ExportNotFound", non_retryable=True)
        return found

    async def _write(self, export: ExportRecord) -> None:
        key = f"exports/{export.user_id}/{export.id}-{uuid4().hex}.{export.format}"
        size = await self._write_file(export, key)
        async with self._database.for_user(export.user_id) as session:
            is_first = await ExportRepository(session).finish(
                export.id, object_key=key, size_bytes=size, lifetime=LIFETIME
            )
        if not is_first:
            await self._storage.delete(key)

    async def _write_file(self, export: ExportRecord, key: str) -> int:
        """Return its size in bytes."""
        parts = [part for part in ACCOUNT_PARTS if export.include.get(part)]
        account = await self._account(export, parts)
        telling, size = _Telling(self, export, account.read), 0
        async with self._storage.writer(key) as writer:
            async for piece in content_of(account, parts, export):
                await writer.write(piece)
                size += len(piece)
                await telling.when_due()
        return size

    async def _account(self, export: ExportRecord, parts: Sequence[AccountPart]) -> Account:
        async with self._database.for_user(export.user_id) as session:
            counts = await AccountDataRepository(session).counts()
        total = sum(rows_in(counts, part) for part in parts)
        return Account(database=self._database, user_id=export.user_id, read=RowsRead(total=total))

    async def advanced(self, export: ExportRecord, percent: float, *, is_signalled: bool) -> None:
        """Say how far an export is, in its row and, at times, to its workflow."""
        async with self._database.for_user(export.user_id) as session:
            await ExportRepository(session).note_progress(export.id, percent)
        if not is_signalled:
            return
        try:
            await self._watchers.export_advanced(export.id, percent)
        except ConnectionError:
            _logger.warning("export_progress_not_told", export_id=str(export.id))


class _Telling:
    """Tells how far an export is: not too often."""

    def __init__(self, activities: ExportActivities, export: ExportRecord, read: RowsRead) -> None:
        self._activities = activities
        self._export = export
        self._read = read
        self._due_at = time.monotonic() + PROGRESS_INTERVAL_S
        self._signalled = 0.0

    async def when_due(self) -> None:
        if time.monotonic() < self._due_at:
            return
        percent = self._read.percent
        is_signalled = percent >= self._signalled + _SIGNALLED_PCT
        if is_signalled:
            self._signalled = percent
        await self._activities.advanced(self._export, percent, is_signalled=is_signalled)
        self._due_at = time.monotonic() + PROGRESS_INTERVAL_S


async def content_of(
    account: Account, parts: Sequence[AccountPart], export: ExportRecord
) -> AsyncIterator[bytes]:
    """The file of an export, piece by piece; none of them is empty."""
    about = {
        "export_id": export.id,
        "requested_at": export.created_at,
        "include": {part: part in parts for part in ACCOUNT_PARTS},
    }
    members = _members(account, parts, orjson.dumps(about, option=orjson.OPT_UTC_Z), export.format)
    pieces = zip_of(members, in_thread=True) if export.format == "zip" else _one_object(members)
    async for piece in pieces:
        if piece:
            yield piece


def _members(
    account: Account, parts: Sequence[AccountPart], about: bytes, format: str
) -> list[Member]:
    members = [Member(name="export.json", content=_whole(about))]
    for table in tables_of(account, parts):
        is_csv = format == "zip" and bool(table.columns)
        members.append(_csv_member(table) if is_csv else _json_member(table))
    if "account_settings" in parts:
        members.append(Member(name="account.json", content=_profile(account)))
    return members


def _csv_member(table: Table) -> Member:
    return Member(name=f"{table.name}.csv", content=csv_of(table))


def _json_member(table: Table) -> Member:
    return Member(name=f"{table.name}.json", content=json_of(table.pages))


async def _whole(text: bytes) -> AsyncIterator[bytes]:
    yield text


async def _profile(account: Account) -> AsyncIterator[bytes]:
    yield orjson.dumps(await profile_of(account))


async def _one_object(members: Sequence[Member]) -> AsyncIterator[bytes]:
    """The same files as the values of one JSON object, under their names."""
    separator = "{"
    for member in members:
        yield f'{separator}"{member.name.removesuffix(".json")}":'.encode()
        async for piece in member.content:
            yield piece
        separator = ","
    yield b"}"
