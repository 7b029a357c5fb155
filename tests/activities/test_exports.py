"""An export is one file with all that was asked for, whatever happens while it is written."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError
from typing_extensions import override

from activities import account_tables, exports
from activities.account_tables import RowsRead
from activities.exports import (
    ExportActivities,
    ExportInput,
    ExportResult,
    FailExportInput,
    NobodyWatches,
)
from api.exports import estimated_bytes
from db.engine import Database
from db.models import ExportRecord, NewNotification, SessionRecord
from db.models.exports import ACCOUNT_PARTS, AccountPart, ExportFormat
from db.repositories.account_data import AccountDataRepository
from db.repositories.inbox import InboxRepository
from integrations.errors import AuthenticationFailed, TemporarilyUnavailable
from integrations.storage.objects import ObjectStore, ObjectWriter, open_store
from tests.activities.accounts import (
    EVIL,
    SEALED_KEY,
    add_export,
    content_of,
    furnish,
    input_of,
    keys_of,
    row_of,
    unzipped,
)
from tests.activities.experiments import is_final
from tests.activities.interruptions import Interruption, interrupted
from tests.activities.processes import Machine
from tests.db.accounts import Account, new_account
from tests.laboratory import Laboratory
from tests.plain_runs import environment

MEGABYTE = 1 << 20


@pytest.fixture
async def account(database: Database) -> Account:
    return await new_account(database)


@pytest.fixture
async def tested(account: Account) -> SessionRecord:
    return await furnish(account)


@pytest.fixture
def storage(laboratory: Laboratory) -> ObjectStore:
    return laboratory.storage


@pytest.fixture
def activities(database: Database, storage: ObjectStore) -> ExportActivities:
    return ExportActivities(database, storage, NobodyWatches())


async def write(activities: ExportActivities, export: ExportRecord) -> ExportResult:
    result: ExportResult = await environment().run(activities.write_export, input_of(export))
    return result


async def test_an_archive_has_everything_and_no_key(
    activities: ExportActivities, storage: ObjectStore, account: Account, tested: SessionRecord
):
    export = await add_export(account)

    written = await write(activities, export)

    data = await content_of(storage, account, export)
    row = await row_of(account, export.id)
    assert (written.status, row.status, row.progress_pct) == ("ready", "ready", 100.0)
    assert written.size_bytes == row.size_bytes == len(data)
    assert row.expires_at is not None
    assert abs(row.expires_at - row.updated_at - exports.LIFETIME).total_seconds() < 1
    files = unzipped(data)
    assert list(files) == [
        *("export.json", "agents.json", "agent_versions.json"),
        *("results.csv", "equity_curves.csv", "trades.csv"),
        *("reasoning.csv", "notifications.csv", "activity.csv", "account.json"),
    ]
    assert files["export.json"]["export_id"] == str(export.id)
    assert files["export.json"]["include"] == dict.fromkeys(ACCOUNT_PARTS, True)
    names = {each["id"]: each["name"] for each in files["agents.json"]}
    versions = files["agent_versions.json"]
    assert [(names[each["agent_id"]], each["version"], each["model"]) for each in versions] == [
        ("Alpha", 1, "simulated/trend"),
        ("Alpha", 2, "simulated/flip"),
        ("Beta", 1, "simulated/trend"),
    ]
    text_of_all = json.dumps(files)
    assert "api_key" not in text_of_all
    assert SEALED_KEY not in text_of_all
    (result,) = files["results.csv"]
    assert (result["session_id"], result["total_pnl_pct"]) == (str(tested.id), "5.0")
    assert [row["result_id"] for row in files["equity_curves.csv"]] == [result["id"]]
    assert [row["pnl_amount"] for row in files["trades.csv"]] == ["10.0", "-4.5"]
    assert [row["candle_number"] for row in files["reasoning.csv"]] == ["0", "1", "2"]
    assert files["activity.csv"][0]["description"] == "Made."
    assert files["account.json"]["profile"]["id"] == str(account.id)
    assert files["account.json"]["settings"]["theme"] == "dark"


async def test_no_text_in_an_archive_is_a_formula(
    activities: ExportActivities, storage: ObjectStore, account: Account, tested: SessionRecord
):
    export = await add_export(account)
    await write(activities, export)

    files = unzipped(await content_of(storage, account, export))

    assert files["trades.csv"][0]["entry_reasoning"] == f"'{EVIL}"
    assert files["notifications.csv"][0]["message"] == f"'{EVIL}"


async def test_one_object_has_the_same_as_the_archive(
    activities: ExportActivities, storage: ObjectStore, account: Account, tested: SessionRecord
):
    archive = await add_export(account)
    await write(activities, archive)
    whole = await add_export(account, format="json")
    await write(activities, whole)

    files = unzipped(await content_of(storage, account, archive))
    values = json.loads(await content_of(storage, account, whole))

    assert list(values) == [name.rpartition(".")[0] for name in files]
    for name in ("agents", "agent_versions"):
        assert values[name] == files[f"{name}.json"]
    assert values["account"] == files["account.json"]
    assert values["trades"][0]["entry_reasoning"] == EVIL
    for name in ("results", "equity_curves", "trades", "reasoning", "notifications", "activity"):
        assert len(values[name]) == len(files[f"{name}.csv"]) > 0
        assert list(values[name][0]) == list(files[f"{name}.csv"][0])


PART_FILES: dict[AccountPart, set[str]] = {
    "agent_configs": {"agents", "agent_versions"},
    "test_results": {"results", "equity_curves"},
    "trade_history": {"trades"},
    "reasoning_traces": {"reasoning"},
    "account_settings": {"account", "notifications", "activity"},
}


async def test_each_part_brings_its_own_files_and_nothing_of_anybody_elses(
    activities: ExportActivities,
    storage: ObjectStore,
    account: Account,
    tested: SessionRecord,
    database: Database,
):
    stranger = await new_account(database)
    for part, names in PART_FILES.items():
        export = await add_export(account, format="json", parts=(part,))
        await write(activities, export)
        foreign = await add_export(stranger, format="json", parts=(part,))
        await write(activities, foreign)

        values = json.loads(await content_of(storage, account, export))
        of_stranger = await content_of(storage, stranger, foreign)
        assert set(values) == names | {"export"}
        assert str(account.id).encode() not in of_stranger
        assert str(tested.id).encode() not in of_stranger


async def test_no_row_is_lost_between_two_pages(
    activities: ExportActivities,
    storage: ObjectStore,
    account: Account,
    tested: SessionRecord,
    monkeypatch: pytest.MonkeyPatch,
):
    await account.add_agent("Gamma")
    await notice_at_once(account, "one", "two", "three")
    pages: list[int] = []
    monkeypatch.setattr(RowsRead, "add", lambda _, count: pages.append(count))
    whole = await add_export(account, format="json")
    await write(activities, whole)
    rows, in_pages = sum(pages), len(pages)
    pages.clear()
    monkeypatch.setattr(account_tables, "ROWS_PER_PAGE", 1)
    monkeypatch.setattr(account_tables, "LARGE_ROWS_PER_PAGE", 1)
    paged = await add_export(account, format="json")
    await write(activities, paged)
    assert pages == [1] * rows
    assert in_pages < rows

    first, second = [
        json.loads(await content_of(storage, account, each)) for each in (whole, paged)
    ]

    assert first.pop("export") != second.pop("export")
    assert len({each["created_at"] for each in first["notifications"]}) == 1
    assert len(first["notifications"]) == 4
    assert first == second


async def notice_at_once(account: Account, *messages: str) -> None:
    """Notices of one moment, which nothing but their ids brings into an order."""
    async with account.database.for_user(account.id) as session:
        for message in messages:
            new = NewNotification(
                user_id=account.id, type="info", category="paused", title="At once", message=message
            )
            await InboxRepository(session).notify(new)
        await session.execute(text("UPDATE notifications SET created_at = '2026-01-02T03:04:05Z'"))


# With few pages: each of them waits for the same things.
PARTS_TO_INTERRUPT: tuple[AccountPart, ...] = ("agent_configs",)


@pytest.mark.parametrize(("how", "step"), [("kill", 1), ("cancel", 3)])
async def test_interrupted_at_any_await_it_leaves_one_file_and_one_ready_row(
    machine: Machine,
    account: Account,
    how: Interruption,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(exports, "PROGRESS_INTERVAL_S", 0.0)
    await account.add_agent()
    storage, parts = machine.laboratory.storage, PARTS_TO_INTERRUPT
    expected = await _made(machine, account, await add_export(account, parts=parts))
    for at in count(random.randint(1, step), step):
        export = await add_export(account, parts=parts)
        process = machine.process()
        await process.warm_up()
        first = await interrupted(
            process.activities.exports.write_export,
            input_of(export),
            at=at,
            how=how,
            run_id="run-1",
        )
        where = f"interrupted at await {at} of {first.suspensions}"
        if first.was_killed:
            await process.kill()
        else:
            assert not is_final(first.error), where
            assert machine.busy_connections == 0, where
            await process.end()
        assert await _made(machine, account, export) == expected, where
        row = await row_of(account, export.id)
        assert row.status == "ready", where
        # One that was interrupted between its file and its row has left its own.
        files = [key for key in await keys_of(storage, account) if str(export.id) in key]
        assert row.object_key in files, where
        assert len(files) <= 2, where
        if first.suspensions < at:
            assert first.suspensions >= 20
            break


async def _made(machine: Machine, account: Account, export: ExportRecord) -> dict[str, Any]:
    """Run the activity to its end in a new process; return the file, but for what names it."""
    process = machine.process()
    surroundings = environment(attempt=2)
    await surroundings.run(process.activities.exports.write_export, input_of(export))
    await process.end()
    files = unzipped(await content_of(machine.laboratory.storage, account, export))
    del files["export.json"]
    return files


async def test_an_attempt_after_the_end_changes_nothing(
    activities: ExportActivities, storage: ObjectStore, account: Account, tested: SessionRecord
):
    export = await add_export(account)
    first = await write(activities, export)
    row, data = await row_of(account, export.id), await content_of(storage, account, export)

    again = await write(activities, export)
    failing = FailExportInput(export_id=str(export.id), user_id=str(account.id), message="late")
    await environment().run(activities.fail_export, failing)

    assert again == first
    assert await row_of(account, export.id) == row
    assert await content_of(storage, account, export) == data


class Waiting(ObjectStore):
    """A storage that two writers leave together: neither is done before both have written."""

    def __init__(self, storage: ObjectStore) -> None:
        super().__init__(storage._store, storage._folder)
        self._both = asyncio.Barrier(2)

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[ObjectWriter]:  # type: ignore[explicit-override]
        async with super().writer(key) as writer:
            yield writer
            await self._both.wait()


async def test_of_two_attempts_that_live_one_makes_the_file_and_the_other_leaves_nothing(
    database: Database, storage: ObjectStore, account: Account, tested: SessionRecord
):
    export = await add_export(account)
    activities = ExportActivities(database, Waiting(storage), NobodyWatches())

    first, second = await asyncio.gather(write(activities, export), write(activities, export))

    row = await row_of(account, export.id)
    assert first == second == ExportResult(status="ready", size_bytes=row.size_bytes)
    assert await keys_of(storage, account) == [row.object_key]
    assert len(await content_of(storage, account, export)) == row.size_bytes


async def test_a_late_attempt_leaves_the_file_that_is_there_alone(
    activities: ExportActivities, storage: ObjectStore, account: Account, tested: SessionRecord
):
    export = await add_export(account)
    await write(activities, export)
    row, data = await row_of(account, export.id), await content_of(storage, account, export)
    await account.add_agent("Made meanwhile")

    await activities._write(export)  # it saw the row before

    assert await row_of(account, export.id) == row
    assert await keys_of(storage, account) == [row.object_key]
    assert await content_of(storage, account, export) == data


async def test_what_is_not_there_is_not_tried_again(activities: ExportActivities, account: Account):
    nothing = ExportInput(export_id=str(uuid4()), user_id=str(account.id))

    with pytest.raises(ApplicationError) as failure:
        await environment().run(activities.write_export, nothing)

    assert (failure.value.type, failure.value.non_retryable) == ("ExportNotFound", True)


class Watching:
    """Hears of progress, or is away."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.heard: list[float] = []
        self._is_away = is_away

    async def export_advanced(self, export_id: UUID, progress_pct: float) -> None:
        if self._is_away:
            raise ConnectionError
        self.heard.append(progress_pct)


@pytest.mark.parametrize("is_away", [False, True])
async def test_progress_rises_and_is_told_in_steps(
    storage: ObjectStore, account: Account, is_away: bool, monkeypatch: pytest.MonkeyPatch
):
    await furnish(account)
    monkeypatch.setattr(exports, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr(account_tables, "ROWS_PER_PAGE", 1)
    watching = Watching(is_away=is_away)
    export = await add_export(account)

    await write(ExportActivities(account.database, storage, watching), export)

    assert (await row_of(account, export.id)).status == "ready"
    assert watching.heard == sorted(set(watching.heard))
    assert is_away or 3 <= len(watching.heard) <= 10
    assert all(10 <= each <= 99 for each in watching.heard)


class Broken(ObjectStore):
    """A storage that does not take what is written."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    @override
    def writer(self, key: str) -> Any:
        raise self._failure


@pytest.mark.parametrize(
    ("failure", "type", "is_final"),
    [
        (TemporarilyUnavailable("away"), "StorageUnavailable", False),
        (AuthenticationFailed("no"), "StorageRefused", True),
    ],
)
async def test_a_storage_that_is_away_is_tried_again_and_one_that_refuses_is_not(
    database: Database, account: Account, failure: Exception, type: str, is_final: bool
):
    export = await add_export(account)

    with pytest.raises(ApplicationError) as failed:
        await write(ExportActivities(database, Broken(failure), NobodyWatches()), export)

    assert (failed.value.type, failed.value.non_retryable) == (type, is_final)
    assert (await row_of(account, export.id)).status == "processing"


MANY = """
    INSERT INTO decisions (id, session_id, candle_number, timestamp, candle_data,
        indicator_values, reasoning, decision, prompt_hash, model_requested)
    SELECT gen_random_uuid(), :id, i, now(), '{"close": 1.5}', '{"rsi_14": 50.5}',
        (SELECT string_agg(md5(i::text || k::text), '') FROM generate_series(1, 125) k),
        'hold', 'h', 'simulated/trend'
    FROM generate_series(3, :count - 1) AS i
"""


async def test_a_long_export_is_never_in_memory_as_a_whole(
    account: Account, tested: SessionRecord, tmp_path: Path
):
    rows, process = 12_000, psutil.Process()
    async with account.database.for_user(account.id) as session:
        await session.execute(text(MANY), {"id": tested.id, "count": rows})
    activities = ExportActivities(account.database, open_store(str(tmp_path)), NobodyWatches())

    async def grown(export: ExportRecord) -> tuple[int, int]:
        """The size of the file, and by how much the process has grown at most."""
        before, most = process.memory_info().rss, 0
        writing = asyncio.create_task(write(activities, export))
        while not writing.done():
            most = max(most, process.memory_info().rss - before)
            await asyncio.sleep(0.02)
        return (await writing).size_bytes or 0, most

    await grown(await add_export(account, parts=("trade_history",)))
    for form, least in FORMATS_AT_LEAST.items():
        size, growth = await grown(await add_export(account, format=form))
        assert size > least * MEGABYTE
        assert growth < least * MEGABYTE


# What deflates least: random letters take half a byte each.
FORMATS_AT_LEAST: dict[ExportFormat, int] = {"zip": 25, "json": 50}


@pytest.mark.parametrize("format", ["zip", "json"])
async def test_the_size_that_is_announced_is_of_the_right_order(
    activities: ExportActivities, account: Account, tested: SessionRecord, format: Any
):
    async with account.database.for_user(account.id) as session:
        counts = await AccountDataRepository(session).counts()
    export = await add_export(account, format=format, parts=("trade_history", "reasoning_traces"))
    written = await write(activities, export)

    announced = estimated_bytes(counts, ("trade_history", "reasoning_traces"), format)

    assert (counts.trades, counts.decisions, counts.agents, counts.results) == (2, 3, 2, 1)
    assert written.size_bytes is not None
    assert 0.2 < announced / written.size_bytes < 5
