"""A sweep deletes what has expired and what nobody names, and nothing else; it may die anywhere."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from activities.sweeping import _TURN, UNNAMED_FOR, Sweeper, Swept
from db.engine import Database
from db.models import ExportRecord
from db.repositories.certificates import CertificateRepository
from db.repositories.exports import AllExportsRepository, ExportRepository
from db.repositories.results import ResultRepository
from events.payloads import result_id
from integrations.errors import TemporarilyUnavailable
from integrations.storage.objects import ObjectStore, open_store
from tests.activities.accounts import add_export, keys_of, row_of
from tests.db.accounts import Account, a_certificate, add_test, new_account

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def storage(folder: Path) -> ObjectStore:
    return open_store(str(folder))


@pytest.fixture
async def account(database: Database) -> Account:
    return await new_account(database)


@pytest.fixture
def sweeper(database: Database, storage: ObjectStore) -> Sweeper:
    return Sweeper(database, storage)


async def ready(account: Account, storage: ObjectStore) -> ExportRecord:
    export = await add_export(account)
    key = f"exports/{account.id}/{export.id}.zip"
    await storage.put(key, b"a file")
    async with account.database.for_user(account.id) as session:
        exports = ExportRepository(session)
        lifetime = timedelta(hours=24)
        await exports.finish(export.id, object_key=key, size_bytes=6, lifetime=lifetime)
    return await row_of(account, export.id)


async def failed(account: Account, storage: ObjectStore) -> ExportRecord:
    """One whose row named its file from the beginning, as rows once did."""
    key = f"exports/{account.id}/failed.zip"
    export = await add_export(account, object_key=key)
    await storage.put(key, b"a file")
    async with account.database.for_user(account.id) as session:
        await ExportRepository(session).fail(export.id, "It did not work.")
    return export


def age(folder: Path, key: str, by: timedelta) -> None:
    then = NOW.timestamp() - by.total_seconds()
    os.utime(folder / key, (then, then))


async def test_an_export_is_kept_for_its_time_and_then_cleared_away(
    sweeper: Sweeper, storage: ObjectStore, account: Account
):
    export = await ready(account, storage)

    await sweeper.run_once(now=NOW)
    kept = await row_of(account, export.id)
    assert (kept.status, await keys_of(storage, account)) == ("ready", [export.object_key])

    await sweeper.run_once(now=LATER)
    swept = await row_of(account, export.id)
    assert (swept.status, swept.object_key, swept.size_bytes) == ("expired", None, 6)
    assert await keys_of(storage, account) == []


async def test_the_file_of_a_failed_export_goes(
    sweeper: Sweeper, storage: ObjectStore, account: Account
):
    export = await failed(account, storage)

    await sweeper.run_once(now=NOW)

    swept = await row_of(account, export.id)
    assert (swept.status, swept.object_key) == ("failed", None)
    assert await keys_of(storage, account) == []


async def test_what_no_row_names_goes_after_a_day_and_what_one_names_stays(
    sweeper: Sweeper, storage: ObjectStore, account: Account, folder: Path
):
    kept = await ready(account, storage)
    old, young = f"exports/{account.id}/old.zip", f"exports/{account.id}/young.zip"
    for key in (str(kept.object_key), old, young, "letters/x.pdf"):
        await storage.put(key, b"a file")
        age(folder, key, UNNAMED_FOR + timedelta(minutes=1))
    age(folder, young, UNNAMED_FOR - timedelta(minutes=1))
    half = folder / f"{kept.object_key}#1"
    half.write_bytes(b"half a file")
    age(folder, f"{kept.object_key}#1", UNNAMED_FOR + timedelta(minutes=1))

    swept = await sweeper.run_once(now=NOW)

    assert (swept.unnamed, swept.unfinished) == (1, 1)
    assert not half.exists()
    assert set(await keys_of(storage, account)) == {kept.object_key, young}
    assert [each.key async for each in storage.list("letters/")] == ["letters/x.pdf"]
    assert await sweeper.run_once(now=NOW) == Swept()


async def test_each_kind_of_file_has_its_own_rows(
    database: Database, storage: ObjectStore, folder: Path
):
    for key in ("certificates/kept.pdf", "certificates/lost.pdf"):
        await storage.put(key, b"a file")
        age(folder, key, 2 * UNNAMED_FOR)

    async def named(_: Any, keys: Any) -> set[str]:
        return {"certificates/kept.pdf"} & {*keys}

    await Sweeper(database, storage, {"certificates/": named}).run_once(now=NOW)

    left = [each.key async for each in storage.list("certificates/")]
    assert left == ["certificates/kept.pdf"]


async def test_the_files_of_a_certificate_stay_and_what_the_doctor_left_goes(
    sweeper: Sweeper, storage: ObjectStore, account: Account, folder: Path
):
    tested = await add_test(account, await account.add_agent())
    async with account.database.for_user(account.id) as session:
        result = await ResultRepository(session).get(result_id(tested.id))
        assert result is not None
        new = a_certificate(result)
        await CertificateRepository(session).add(new)
    kept = {new.pdf_key, new.image_key, new.qr_key, new.bundle_key}
    lost = {f"certificates/{result.id}/lost.pdf", f"certificates/{tested.id}/lost.pdf"}
    for key in kept | lost | {"doctor/0f3c"}:
        await storage.put(key, b"a file")
        age(folder, key, 2 * UNNAMED_FOR)

    swept = await sweeper.run_once(now=NOW)

    assert swept.unnamed == 3
    assert {each.key async for each in storage.list("certificates/")} == kept
    assert {path.name for path in folder.iterdir()} == {"certificates"}
    assert [path.name for path in (folder / "certificates").iterdir()] == [str(result.id)]


class Dying(ObjectStore):
    """A storage whose process dies before or after a file is deleted."""

    def __init__(self, storage: ObjectStore, *, is_late: bool) -> None:
        super().__init__(storage._store, storage._folder)
        self._is_late = is_late

    async def delete(self, key: str) -> None:  # type: ignore[explicit-override]
        if self._is_late:
            await super().delete(key)
        raise TemporarilyUnavailable("dead")


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_sweep_that_dies_is_finished_by_the_next(
    sweeper: Sweeper, database: Database, storage: ObjectStore, account: Account, is_late: bool
):
    export = await ready(account, storage)

    with pytest.raises(TemporarilyUnavailable):
        await Sweeper(database, Dying(storage, is_late=is_late)).run_once(now=LATER)

    half_swept = await row_of(account, export.id)
    assert (half_swept.status, half_swept.object_key) == ("expired", export.object_key)
    await sweeper.run_once(now=LATER)
    assert (await row_of(account, export.id)).object_key is None
    assert await keys_of(storage, account) == []


async def test_the_files_of_a_deleted_user_go(
    sweeper: Sweeper, storage: ObjectStore, account: Account, folder: Path
):
    export = await ready(account, storage)
    age(folder, str(export.object_key), 2 * UNNAMED_FOR)
    async with account.database.as_system() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": account.id})

    await sweeper.run_once(now=NOW)

    assert list(folder.iterdir()) == []


async def test_one_sweeps_at_a_time(
    sweeper: Sweeper, database: Database, storage: ObjectStore, account: Account
):
    export = await ready(account, storage)
    async with database.as_system() as session:
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        await session.execute(lock, {"key": _TURN})

        assert await sweeper.run_once(now=LATER) == Swept()

    assert (await row_of(account, export.id)).status == "ready"


async def test_one_connection_is_enough(
    postgres_url: str, storage: ObjectStore, account: Account, folder: Path
):
    expired, lost = await ready(account, storage), f"exports/{account.id}/lost.zip"
    await storage.put(lost, b"a file")
    age(folder, lost, 2 * UNNAMED_FOR)
    small = Database.connect(postgres_url, pool_size=1)
    try:
        async with asyncio.timeout(10):  # less than anybody waits for a pool
            await Sweeper(small, storage).run_once(now=LATER)
    finally:
        await small.dispose()

    assert (await row_of(account, expired.id)).status == "expired"
    assert await keys_of(storage, account) == []


async def test_what_is_not_ours_stops_no_sweep(
    sweeper: Sweeper, storage: ObjectStore, account: Account, folder: Path
):
    export = await ready(account, storage)
    foreign = folder / "exports" / ".DS_Store"
    foreign.touch()
    for each in (foreign, folder / str(export.object_key)):
        age(folder, str(each.relative_to(folder)), 2 * UNNAMED_FOR)

    await sweeper.run_once(now=NOW)

    assert foreign.exists()
    assert await keys_of(storage, account) == [export.object_key]


@pytest.mark.parametrize("failure", [TemporarilyUnavailable("away"), ValueError("a bug")])
async def test_a_failure_stops_no_later_sweep(
    database: Database,
    storage: ObjectStore,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
):
    tried = asyncio.Event()
    sweeper = Sweeper(database, storage)

    async def fail_once(*_: Any, **__: Any) -> Swept:
        monkeypatch.undo()
        raise failure

    async def note(*_: Any, **__: Any) -> set[str]:
        tried.set()
        return set()

    monkeypatch.setattr(AllExportsRepository, "to_clear", fail_once)
    sweeper._named = {"exports/": note}
    sweeping = asyncio.create_task(sweeper.run_every(0.01))
    try:
        async with asyncio.timeout(10):
            await tried.wait()
    finally:
        sweeping.cancel()
