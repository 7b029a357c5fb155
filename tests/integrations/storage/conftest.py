"""A folder, and a bucket behind real HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations.storage.objects import ObjectStore, open_store
from tests.integrations.storage.simple_s3 import BUCKET, KEY_ID, SimpleS3
from tests.loopback import serve_app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture(scope="session")
def served_s3() -> Iterator[tuple[SimpleS3, str]]:
    s3 = SimpleS3()
    with serve_app(s3.app) as address:
        yield s3, address


@pytest.fixture
def s3(served_s3: tuple[SimpleS3, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleS3]:
    """The bucket, as the environment of a process names it."""
    s3, address = served_s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    yield s3
    s3.clear()


@pytest.fixture
def bucket(s3: SimpleS3) -> ObjectStore:
    return open_store(f"s3://{BUCKET}/alpha")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "bucket":
        bucket: ObjectStore = request.getfixturevalue("bucket")
        return bucket
    return open_store(str(request.getfixturevalue("folder")))
