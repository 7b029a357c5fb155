"""The workflow of an export: it ends with a file or with a reason, and is never lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer
from typing_extensions import override

from activities import account_tables, exports
from activities.reconciliation import LostExports, Reconciler
from db.models import ExportRecord, NewNotification
from db.repositories.exports import ExportRepository, StaleExport
from db.repositories.inbox import InboxRepository
from integrations.errors import AuthenticationFailed
from integrations.storage.objects import ObjectStore
from tests.activities.accounts import add_export, content_of, furnish, row_of, unzipped
from tests.db.accounts import Account, new_account
from tests.laboratory import Laboratory
from workflows.export import ExportWorkflow
from workflows.messages import ExportProgress
from workflows.payload_converter import DATA_CONVERTER
from workflows.runtime import TemporalUnreachable, export_workflow_id

AT_ONCE = timedelta(0)


def account_in(laboratory: Laboratory) -> Account:
    return Account(id=laboratory.user_id, database=laboratory.database)


def handle_of(laboratory: Laboratory, export: ExportRecord) -> WorkflowHandle[Any, Any]:
    name = export_workflow_id(export.id)
    return laboratory.client.get_workflow_handle_for(ExportWorkflow.run, name)


async def test_an_export_ends_with_a_file_and_tells_how_far_it_is(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exports, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr(account_tables, "ROWS_PER_PAGE", 1)
    account = account_in(laboratory)
    await furnish(account)
    export = await add_export(account)
    async with laboratory.worker():
        await laboratory.temporal.start_export(export)
        await laboratory.temporal.start_export(export)
        written = await handle_of(laboratory, export).result()
        progress = await handle_of(laboratory, export).query(ExportWorkflow.progress)

        await laboratory.temporal.start_export(export)
        again = await handle_of(laboratory, export).result()

    assert progress == ExportProgress(status="ready", progress_pct=100.0)
    assert written == again
    assert written.size_bytes == len(await content_of(laboratory.storage, account, export))
    history = (await handle_of(laboratory, export).fetch_history()).events
    # None of what the file says is kept by Temporal.
    assert all(b"Follow the trend" not in event.SerializeToString() for event in history)


async def test_its_history_does_not_grow_with_the_account(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exports, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr(account_tables, "ROWS_PER_PAGE", 1)
    account = account_in(laboratory)
    await furnish_inbox(account, 25)
    export = await add_export(account, format="json")  # which holds no page back
    noted: list[float] = []
    note = ExportRepository.note_progress

    async def note_and_count(self: ExportRepository, export_id: UUID, progress_pct: float) -> None:
        noted.append(progress_pct)
        await note(self, export_id, progress_pct)

    monkeypatch.setattr(ExportRepository, "note_progress", note_and_count)
    async with laboratory.worker():
        await laboratory.temporal.start_export(export)
        await handle_of(laboratory, export).result()

    signalled = [
        event
        for event in (await handle_of(laboratory, export).fetch_history()).events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert len(set(noted)) >= 25
    assert 1 <= len(signalled) <= 10


class Refusing(ObjectStore):
    """A storage that lets nobody in."""

    def __init__(self) -> None:
        """There is nothing behind it."""

    @override
    def writer(self, key: str) -> Any:
        raise AuthenticationFailed("The file storage does not let us in.")


async def test_a_storage_that_refuses_ends_it_with_a_reason(apart: Laboratory):
    apart.storage = Refusing()
    account = account_in(apart)
    export = await add_export(account)
    async with apart.worker():
        await apart.temporal.start_export(export)
        with pytest.raises(WorkflowFailureError):
            await handle_of(apart, export).result()
        progress = await handle_of(apart, export).query(ExportWorkflow.progress)
    history = await handle_of(apart, export).fetch_history()

    failed = await row_of(account, export.id)
    assert (failed.status, failed.error) == ("failed", "The file storage does not let us in.")
    assert progress.status == "failed"
    await reconciler(apart).run_once(unchanged_for=AT_ONCE)
    assert not await apart.temporal.is_export_running(export.id)
    await replayed_as_once(history)


async def replayed_as_once(history: WorkflowHistory) -> None:
    """Replay a failed export of when its last activity answered nothing."""
    (answered,) = (
        event.activity_task_completed_event_attributes
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
    )
    (nothing,) = await DATA_CONVERTER.encode([None])
    answered.result.payloads[0].CopyFrom(nothing)
    await Replayer(workflows=[ExportWorkflow], data_converter=DATA_CONVERTER).replay_workflow(
        history
    )


class Overtaken(Refusing):
    """A storage that refuses one attempt when another one has made the file."""

    def __init__(self, account: Account, export: ExportRecord) -> None:
        self._account = account
        self._export = export

    @override
    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[Any]:
        async with self._account.database.for_user(self._account.id) as session:
            await ExportRepository(session).finish(
                self._export.id, object_key=key, size_bytes=5, lifetime=timedelta(hours=24)
            )
        yield super().writer(key)


async def test_an_export_whose_end_was_not_heard_of_ends_well(apart: Laboratory):
    account = account_in(apart)
    export = await add_export(account)
    apart.storage = Overtaken(account, export)
    async with apart.worker():
        await apart.temporal.start_export(export)
        result = await handle_of(apart, export).result()
        progress = await handle_of(apart, export).query(ExportWorkflow.progress)

    assert (result.status, result.size_bytes) == ("ready", 5)
    assert progress == ExportProgress(status="ready", progress_pct=100.0)
    assert (await row_of(account, export.id)).error is None


async def test_an_export_without_a_workflow_is_started_again(apart: Laboratory):
    account = account_in(apart)
    await furnish(account)
    export = await add_export(account)  # and its start was interrupted

    await reconciler(apart).run_once()
    assert not await apart.temporal.is_export_running(export.id)
    await reconciler(apart).run_once(unchanged_for=AT_ONCE)
    assert await apart.temporal.is_export_running(export.id)
    first = (await handle_of(apart, export).describe()).run_id
    await reconciler(apart).run_once(unchanged_for=AT_ONCE)
    assert (await handle_of(apart, export).describe()).run_id == first
    await handle_of(apart, export).terminate("a test")
    await reconciler(apart).run_once(unchanged_for=AT_ONCE)

    async with apart.worker():
        await handle_of(apart, export).result()
    assert (await row_of(account, export.id)).status == "ready"
    assert "trades.csv" in unzipped(await content_of(apart.storage, account, export))


async def test_an_export_that_temporal_does_not_answer_for_keeps_no_other_waiting(
    apart: Laboratory,
):
    stuck = await add_export(account_in(apart))
    lost = await add_export(await new_account(apart.database))
    asked_while_open: list[int] = []

    class Picky:
        async def is_export_running(self, export_id: UUID) -> bool:
            asked_while_open.append(await open_transactions(apart))
            if export_id == stuck.id:
                raise TemporalUnreachable("a test")
            return await apart.temporal.is_export_running(export_id)

        async def start_export(self, export: StaleExport) -> None:
            await apart.temporal.start_export(export)

    await Reconciler(apart.database, apart.temporal, exports=LostExports(Picky())).run_once(
        unchanged_for=AT_ONCE
    )

    assert await apart.temporal.is_export_running(lost.id)
    assert asked_while_open == [0, 0]


async def test_an_export_whose_user_is_gone_ends(apart: Laboratory):
    account = account_in(apart)
    export = await add_export(account)
    await apart.temporal.start_export(export)
    async with apart.database.as_system() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": account.id})

    async with apart.worker():
        with pytest.raises(WorkflowFailureError) as failure:
            await handle_of(apart, export).result()

    assert "no such export" in str(failure.value.cause)


async def open_transactions(laboratory: Laboratory) -> int:
    """Those that wait for their process; this one runs."""
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    of_this_database = " AND datname = current_database()"
    async with laboratory.database.as_system() as session:
        return int((await session.execute(text(idle + of_this_database))).scalar_one())


def reconciler(laboratory: Laboratory) -> Reconciler:
    temporal = laboratory.temporal
    return Reconciler(laboratory.database, temporal, exports=LostExports(temporal))


async def furnish_inbox(account: Account, notices: int) -> None:
    for number in range(notices):
        new = NewNotification(
            user_id=account.id, type="info", category="paused", title="Paused", message=str(number)
        )
        async with account.database.for_user(account.id) as session:
            await InboxRepository(session).notify(new)
