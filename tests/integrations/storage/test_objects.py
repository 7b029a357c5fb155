"""An object is there as a whole or not at all, in a folder as in a bucket of S3."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from integrations.errors import AuthenticationFailed, ObjectNotFound, TemporarilyUnavailable
from integrations.storage.locations import Bucket, Folder, location_of
from integrations.storage.objects import ObjectStore, StoredObject, open_store
from tests.integrations.storage.simple_s3 import SimpleS3
from tests.loopback import eventually

KEY = "exports/ada/one.zip"
# More than two parts of an upload.
LARGE = [bytes([number]) * 3_000_000 for number in range(5)]


async def _read(store: ObjectStore, key: str) -> bytes:
    found = await store.stream(key)
    data = b"".join([piece async for piece in found.content])
    assert found.size_bytes == len(data)
    return data


async def _keys(store: ObjectStore, prefix: str) -> set[str]:
    return {each.key async for each in store.list(prefix)}


async def test_what_is_put_is_read_and_listed_and_can_be_replaced(store: ObjectStore):
    await store.put(KEY, b"first")
    await store.put(KEY, b"second")

    assert await _read(store, KEY) == b"second"
    (listed,) = [each async for each in store.list("exports/")]
    assert listed == StoredObject(key=KEY, size_bytes=6, modified_at=listed.modified_at)
    assert listed.modified_at.tzinfo is not None


async def test_a_list_is_of_whole_parts_of_keys(store: ObjectStore):
    for key in (KEY, "exports/bob.zip", "exports-of-others/x"):
        await store.put(key, b"x")

    assert await _keys(store, "exports/") == {KEY, "exports/bob.zip"}
    assert await _keys(store, "certificates/") == set()


async def test_a_list_passes_over_what_somebody_else_put_there(folder: Path):
    store = open_store(str(folder))
    await store.put(KEY, b"x")
    for name in (".DS_Store", "a file.txt", "bücher.zip"):
        (folder / "exports" / name).touch()

    with capture_logs() as logged:
        assert await _keys(store, "exports/") == {KEY}
    assert {each["event"] for each in logged} == {"foreign_file_in_storage"}
    assert len(logged) == 3


async def test_a_large_object_is_written_and_read_piece_by_piece(store: ObjectStore):
    async with store.writer(KEY) as writer:
        for piece in LARGE:
            await writer.write(piece)
        assert await _keys(store, "exports/") == set()

    found = await store.stream(KEY)
    sizes = [len(piece) async for piece in found.content]
    assert (sum(sizes), max(sizes)) == (found.size_bytes, 1024 * 1024)
    assert await _read(store, KEY) == b"".join(LARGE)


async def _broken_off(store: ObjectStore) -> None:
    async with store.writer(KEY) as writer:
        for piece in LARGE:
            await writer.write(piece)
        raise RuntimeError("the source broke off")


async def test_an_object_that_was_not_finished_never_exists(store: ObjectStore):
    with pytest.raises(RuntimeError, match="broke off"):
        await _broken_off(store)

    with pytest.raises(ObjectNotFound):
        await store.stream(KEY)


async def test_a_cancelled_writer_leaves_the_object_that_was_there(store: ObjectStore):
    await store.put(KEY, b"old")
    has_begun = asyncio.Event()

    async def write() -> None:
        async with store.writer(KEY) as writer:
            await writer.write(LARGE[0])
            has_begun.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await has_begun.wait()
    writing.cancel()
    await asyncio.wait([writing])

    assert await _read(store, KEY) == b"old"


async def test_nothing_is_written_after_the_end(store: ObjectStore):
    async with store.writer(KEY) as writer:
        await writer.write(b"all")

    with pytest.raises(ValueError, match="complete"):
        await writer.write(b"more")


async def test_deleting_what_is_not_there_is_no_error(store: ObjectStore):
    await store.put(KEY, b"x")

    await store.delete(KEY)
    await store.delete(KEY)

    with pytest.raises(ObjectNotFound):
        await store.stream(KEY)


async def test_the_last_object_of_a_folder_takes_it_along(folder: Path):
    store = open_store(str(folder))
    for key in (KEY, "exports/bob/two.zip"):
        await store.put(key, b"x")

    await store.delete(KEY)
    assert [path.name for path in (folder / "exports").iterdir()] == ["bob"]
    await store.delete("exports/bob/two.zip")
    assert list(folder.iterdir()) == []
    await store.put(KEY, b"x")


async def test_an_object_that_goes_while_it_is_read_is_said_to_be_gone(store: ObjectStore):
    await store.put(KEY, b"".join(LARGE))
    found = await store.stream(KEY)
    await anext(found.content)

    await store.delete(KEY)

    with pytest.raises(ObjectNotFound):
        await anext(found.content)


async def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(store: ObjectStore):
    await store.put(KEY, b"".join(LARGE))
    found = await store.stream(KEY)
    await anext(found.content)

    await store.put(KEY, b"".join(reversed(LARGE)))

    with pytest.raises(TemporarilyUnavailable):
        await anext(found.content)


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "exports/../x", "exports//x", "exports/", "a b", ".x", "ä"]
)
async def test_keys_lead_nowhere_else(store: ObjectStore, key: str):
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, b"x")
    with pytest.raises(ValueError, match="not a key"):
        await store.stream(key)
    with pytest.raises(ValueError, match="not a key"):
        await store.delete(key)


async def test_what_a_killed_writer_left_in_a_folder_is_removed(folder: Path):
    store = open_store(str(folder))
    await store.put(KEY, b"x")
    left = folder / f"{KEY}#1"
    left.write_bytes(b"half")
    now = datetime.now(UTC)
    os.utime(left, (now.timestamp() - 10, now.timestamp() - 10))

    assert await store.remove_unfinished(before=now - timedelta(seconds=11)) == 0
    assert await store.remove_unfinished(before=now) == 1

    assert not left.exists()
    assert await _read(store, KEY) == b"x"


async def test_a_writer_that_gives_up_leaves_no_file(folder: Path):
    store = open_store(str(folder))
    with pytest.raises(RuntimeError):
        await _broken_off(store)

    async def is_empty() -> bool:
        return not [path for path in folder.rglob("*") if path.is_file()]

    await eventually(is_empty)


def test_the_folder_is_made_for_this_user_alone(folder: Path):
    open_store(folder.as_uri())

    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(ValueError, match="cannot be made"):
        open_store(str(tmp_path / "file" / "storage"))


async def test_a_bucket_has_its_objects_under_its_prefix(bucket: ObjectStore, s3: SimpleS3):
    await bucket.put(KEY, b"x")

    assert s3.objects == {f"alpha/{KEY}": b"x"}


async def test_a_refusal_of_the_storage_is_told_from_an_outage(bucket: ObjectStore, s3: SimpleS3):
    s3.failure = 403
    with pytest.raises(AuthenticationFailed):
        await bucket.put(KEY, b"x")

    s3.failure = 503
    with pytest.raises(TemporarilyUnavailable) as caught:
        await bucket.stream(KEY)
    assert "127.0.0.1" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value.__cause__)


async def test_an_outage_while_an_object_is_read_is_told(bucket: ObjectStore, s3: SimpleS3):
    await bucket.put(KEY, b"x")
    found = await bucket.stream(KEY)
    s3.failure = 403

    with pytest.raises(AuthenticationFailed):
        await anext(found.content)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("/var/lib/alphalab", Folder(path=Path("/var/lib/alphalab"))),
        ("file:///var/a%20b", Folder(path=Path("/var/a b"))),
        ("s3://bucket", Bucket(name="bucket", prefix=None)),
        ("s3://bucket/alpha/lab/", Bucket(name="bucket", prefix="alpha/lab")),
    ],
)
def test_a_location_is_a_folder_or_a_bucket(text: str, location: Folder | Bucket):
    assert location_of(text) == location


@pytest.mark.parametrize(
    "text",
    [
        *("gs://bucket", "https://x/y", "s3://", "s3://key:secret@bucket", "file://host/x"),
        *("", "storage", "./storage", "s3:/bucket/x", "S3:/bucket", "file:/a", "s3:bucket"),
    ],
)
def test_other_locations_are_refused(text: str):
    with pytest.raises(ValueError, match="must be /a/folder"):
        location_of(text)
