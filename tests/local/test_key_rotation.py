"""Stored API keys move under a new Fernet key, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner, Result

from cli import app
from db.engine import Database
from db.repositories.api_keys import ApiKeyRepository
from local import key_rotation
from local.key_rotation import Rotation, rotate_keys
from migrations.run import upgrade
from settings import ApiSettings, MigrationSettings
from tests.db.accounts import new_account
from worker import FernetKeyRing

OLD, NEW, FOREIGN = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
async def database(empty_postgres_url: str) -> AsyncIterator[Database]:
    """A database of the test's own: rotation is of all keys there are."""
    upgrade(empty_postgres_url)
    database = Database.connect(empty_postgres_url, pool_size=3)
    yield database
    await database.dispose()


async def add_keys(database: Database, fernet_key: str, count: int) -> dict[UUID, str]:
    """Store keys of a new user's; return the plain ones."""
    account = await new_account(database)
    plain = {}
    async with database.for_user(account.id) as session:
        for _ in range(count):
            secret = f"sk-or-v1-{uuid4().hex}"
            stored = await ApiKeyRepository(session).add(
                user_id=account.id,
                key_prefix="sk-or-v1-••••••••",
                encrypted_key=Fernet(fernet_key).encrypt(secret.encode()).decode(),
            )
            plain[stored.id] = secret
    return plain


def ciphertexts(url: str) -> dict[UUID, str]:
    with psycopg.connect(url) as superuser:
        return dict(superuser.execute("SELECT id, encrypted_key FROM api_keys").fetchall())


def opened(url: str, *fernet_keys: str) -> dict[UUID, str]:
    """All keys as a process opens them that has these Fernet keys."""
    ring = FernetKeyRing(fernet_keys)
    return {key_id: ring.decrypt(each) for key_id, each in ciphertexts(url).items()}


async def test_every_key_opens_without_the_old_one_afterwards(
    database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(key_rotation, "BATCH", 3)
    plain = await add_keys(database, OLD, 5) | await add_keys(database, OLD, 4)
    new = await add_keys(database, NEW, 2)
    with pytest.raises(ValueError, match="cannot be opened"):
        opened(empty_postgres_url, NEW)

    done = await rotate_keys(database, (NEW, OLD))

    assert done == Rotation(encrypted=9, current=2)
    assert opened(empty_postgres_url, NEW) == plain | new
    assert await rotate_keys(database, (NEW,)) == Rotation(current=11)


async def test_broken_off_it_goes_on_where_it_ended(
    database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(key_rotation, "BATCH", 2)
    plain = await add_keys(database, OLD, 7)
    async with dying_after(database, 3) as dying:
        with pytest.raises(ConnectionError):
            await rotate_keys(dying, (NEW, OLD))
    assert opened(empty_postgres_url, OLD, NEW) == plain
    half = {each for each in ciphertexts(empty_postgres_url).values() if is_under(NEW, each)}
    assert 0 < len(half) < 7

    done = await rotate_keys(database, (NEW, OLD))

    assert done == Rotation(encrypted=7 - len(half), current=len(half))
    assert half <= set(ciphertexts(empty_postgres_url).values())
    assert opened(empty_postgres_url, NEW) == plain


async def test_keys_that_come_go_and_are_used_meanwhile_are_not_hurt(
    database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(key_rotation, "BATCH", 4)
    plain = await add_keys(database, OLD, 40)

    async def use() -> dict[UUID, str]:
        added: dict[UUID, str] = {}
        for _ in range(10):
            added |= await add_keys(database, NEW, 1)
            assert plain.items() <= opened(empty_postgres_url, NEW, OLD).items()
        return added

    done, added = await asyncio.gather(rotate_keys(database, (NEW, OLD)), use())

    assert done.encrypted == 40
    assert done.unreadable == 0
    assert opened(empty_postgres_url, NEW) == plain | added


async def test_a_key_that_is_deleted_under_the_rotation_stays_deleted(
    database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    plain = await add_keys(database, OLD, 3)
    gone = min(plain)  # they are taken in order

    def delete_first(*_: object) -> bool:
        with psycopg.connect(empty_postgres_url) as superuser:
            superuser.execute("DELETE FROM api_keys WHERE id = %s", [gone])
        monkeypatch.undo()
        return False

    monkeypatch.setattr(key_rotation, "_opens", delete_first)
    done = await rotate_keys(database, (NEW, OLD))

    assert gone not in ciphertexts(empty_postgres_url)
    assert done == Rotation(encrypted=2)


async def test_what_no_key_opens_is_counted_and_left_as_it_is(
    database: Database, empty_postgres_url: str
):
    await add_keys(database, FOREIGN, 2)
    plain = await add_keys(database, OLD, 1)
    before = ciphertexts(empty_postgres_url)

    done = await rotate_keys(database, (NEW, OLD))

    assert done == Rotation(encrypted=1, unreadable=2)
    after = ciphertexts(empty_postgres_url)
    assert {each for each in before if before[each] != after[each]} == plain.keys()


class TestCommand:
    @pytest.fixture(autouse=True)
    def bare_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        for name in {**ApiSettings.model_fields, **MigrationSettings.model_fields}:
            monkeypatch.delenv(name.upper(), raising=False)

    async def test_it_says_how_many(
        self, database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ):
        plain = await add_keys(database, OLD, 3)
        monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
        monkeypatch.setenv("ENCRYPTION_KEY", f"{NEW},{OLD}")

        first, second = await rotated(), await rotated()

        assert [first.exit_code, second.exit_code] == [0, 0], first.output
        assert first.stdout == "encrypted anew: 3, under the first key before: 0\n"
        assert second.stdout == "encrypted anew: 0, under the first key before: 3\n"
        assert opened(empty_postgres_url, NEW) == plain

    async def test_what_opens_with_no_key_is_said_and_fails_the_command(
        self, database: Database, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ):
        await add_keys(database, FOREIGN, 1)
        monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
        monkeypatch.setenv("ENCRYPTION_KEY", NEW)

        result = await rotated()

        assert result.exit_code == 1
        assert "1 open with none of the keys" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("keys", "says"), [(None, "ENCRYPTION_KEY"), ("no-key", "must be Fernet keys")]
    )
    async def test_without_usable_keys_it_says_so(
        self, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch, keys: str | None, says: str
    ):
        monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
        if keys is not None:
            monkeypatch.setenv("ENCRYPTION_KEY", keys)

        result = await rotated()

        assert result.exit_code == 1
        assert says in result.stderr
        assert "no-key" not in result.stderr


async def rotated() -> Result:
    """The command has an event loop of its own, and so runs in a thread of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["keys", "rotate"])


def is_under(fernet_key: str, ciphertext: str) -> bool:
    return key_rotation._opens(Fernet(fernet_key), ciphertext)


@asynccontextmanager
async def dying_after(database: Database, transactions: int) -> AsyncIterator[Database]:
    """The same database, away from some transaction on."""
    left = transactions
    as_system = database.as_system

    @asynccontextmanager
    async def counted():
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("a test")
        async with as_system() as session:
            yield session

    database.as_system = counted  # type: ignore[method-assign]
    try:
        yield database
    finally:
        del database.as_system
