"""Files under keys of ours, in a folder or a bucket of S3: there as a whole, or not at all."""

import asyncio
import re
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
import structlog
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import LocalStore, S3Store
from obstore.store import ObjectStore as AnyStore

from integrations.errors import (
    AuthenticationFailed,
    ObjectNotFound,
    RequestRejected,
    TemporarilyUnavailable,
)
from integrations.storage.locations import Bucket, Folder, location_of

if TYPE_CHECKING:
    from obstore import AsyncWritableFile
    from obstore.store import RetryConfig

# A part of an upload; S3 takes 10,000 of them, and none but the last below 5 MiB.
_PART_BYTES: Final = 8 * 1024 * 1024
_PARTS_AT_ONCE: Final = 2
# One request each: a slow reader holds no connection to the storage open.
_READ_BYTES: Final = 1024 * 1024
_LISTED_AT_ONCE: Final = 500
_KEY: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
# How a folder calls what is not written to its end.
_UNFINISHED: Final = re.compile(r".+#\d+")
# Callers try again, for longer, or have somebody waiting.
_RETRIES: Final["RetryConfig"] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as it is listed."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStream:
    """An object that is there, and its content piece by piece, at most a mebibyte each.

    The content raises `TemporarilyUnavailable` where the storage fails or the object is replaced,
    `ObjectNotFound` where it is deleted meanwhile.
    """

    size_bytes: int
    content: AsyncIterator[bytes]


class ObjectWriter:
    """Takes an object piece by piece."""

    def __init__(self, key: str, file: "AsyncWritableFile") -> None:
        self._key = key
        self._file: AsyncWritableFile | None = file

    async def write(self, data: bytes) -> None:
        """Append; what is behind is uploaded meanwhile. Raises as `ObjectStore.put` does."""
        if self._file is None:
            raise ValueError("the object is complete, or was given up")
        with _failures(self._key):
            await self._file.write(data)

    async def complete(self) -> None:
        """Make the object exist."""
        if self._file is not None:
            with _failures(self._key):
                await self._file.close()

    def give_up(self) -> None:
        """Leave nothing: without its last reference the file is gone."""
        self._file = None


class ObjectStore:
    """One folder or bucket. Keys are letters, digits and `_-.`, in parts divided by `/`."""

    def __init__(self, store: AnyStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, key: str, data: bytes) -> None:
        """Store an object in place of any other under its key.

        Raises `TemporarilyUnavailable`, `AuthenticationFailed` or `RequestRejected`.
        """
        with _failures(_checked(key)):
            await obstore.put_async(self._store, key, data, chunk_size=_PART_BYTES)

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[ObjectWriter]:
        """Write an object of any size: it exists after the block, or not, where that raises."""
        file = obstore.open_writer_async(
            self._store, _checked(key), buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )
        writer = ObjectWriter(key, file)
        del file
        try:
            yield writer
            await writer.complete()
        finally:
            writer.give_up()

    async def stream(self, key: str) -> ObjectStream:
        """Find an object, and read it while it is iterated over. Raises `ObjectNotFound`."""
        with _failures(_checked(key)):
            found = await obstore.head_async(self._store, key)
        content = self._content(key, found["size"], found["e_tag"])
        return ObjectStream(size_bytes=found["size"], content=content)

    async def delete(self, key: str) -> None:
        """Delete an object, whether or not it is there; no empty folder of it stays."""
        with suppress(ObjectNotFound), _failures(_checked(key)):
            await obstore.delete_async(self._store, key)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Everything whose key begins with these whole parts, as `exports/`, in any order.

        What somebody else put there under another kind of name is passed over, and logged.
        """
        with _failures(_checked(prefix.rstrip("/"))):
            async for found in obstore.list(self._store, prefix, chunk_size=_LISTED_AT_ONCE):
                for each in found:
                    if not _is_key(each["path"]):
                        _logger.warning("foreign_file_in_storage", path=each["path"])
                        continue
                    yield StoredObject(
                        key=each["path"],
                        size_bytes=each["size"],
                        modified_at=each["last_modified"],
                    )

    async def remove_unfinished(self, *, before: datetime) -> int:
        """Delete what killed writers left in a folder before a time; return how many.

        A bucket needs a rule for incomplete multipart uploads instead.
        """
        if self._folder is None:
            return 0
        return await asyncio.to_thread(_remove_unfinished, self._folder, before.timestamp())

    async def _content(self, key: str, size: int, e_tag: str | None) -> AsyncIterator[bytes]:
        for start in range(0, size, _READ_BYTES):
            end = min(start + _READ_BYTES, size)
            with _failures(key):
                found = await obstore.get_async(
                    self._store, key, options={"range": (start, end), "if_match": e_tag}
                )
                piece = bytes(await found.bytes_async())
            yield piece


def open_store(location: str) -> ObjectStore:
    """The storage of a setting: `/a/folder`, `file:///a/folder` or `s3://bucket/prefix`.

    A missing folder is made, for this user alone. Region, credentials and endpoint of S3 come from
    the environment variables `AWS_…`. Nothing is connected yet. Raises ValueError, also where the
    folder cannot be made.
    """
    match location_of(location):
        case Folder(path=path):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"the folder cannot be made: {error.strerror}") from None
            return ObjectStore(LocalStore(path, automatic_cleanup=True), path)
        case Bucket(name=name, prefix=prefix):
            return ObjectStore(S3Store(name, prefix=prefix, retry_config=_RETRIES))


def _checked(key: str) -> str:
    if not _is_key(key):
        raise ValueError(f"not a key of an object: {key!r}")
    return key


def _is_key(text: str) -> bool:
    return ".." not in text and _KEY.fullmatch(text) is not None


def _remove_unfinished(folder: Path, before: float) -> int:
    left = [
        path
        for path in folder.rglob("*#*")
        if _UNFINISHED.fullmatch(path.name) and path.stat().st_mtime < before
    ]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


@contextmanager
def _failures(key: str) -> Generator[None]:
    """Translate what obstore raises; its own words name hosts and folders, and stay the cause."""
    try:
        yield
    except FileNotFoundError:
        raise ObjectNotFound(f"The file storage has nothing at {key}.") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AuthenticationFailed("The file storage does not let us in.") from error
    except (InvalidPathError, NotSupportedError, UnknownConfigurationKeyError) as error:
        raise RequestRejected("The file storage refuses the request.") from error
    except (BaseError, OSError) as error:
        raise TemporarilyUnavailable("The file storage cannot be used now.") from error
