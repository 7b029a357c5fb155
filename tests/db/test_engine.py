"""Transactions belong to a user, commit as a whole, and survive a restart of the server."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from db.engine import Database, normalized_url
from local.servers import PostgresServer
from migrations.run import upgrade
from tests.db.accounts import Account

ROLE = text("SELECT current_user, current_setting('app.user_id', true)")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgres_scheme_gets_the_driver(scheme):
    url = normalized_url(f"{scheme}://me:secret@db.example:5433/alphalab?sslmode=require")

    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.password) == ("db.example", 5433, "secret")
    assert url.query["sslmode"] == "require"


def test_another_database_is_refused_without_showing_the_password():
    with pytest.raises(ValueError, match="not a PostgreSQL address") as refused:
        normalized_url("mysql://me:secret@db.example/alphalab")
    assert "secret" not in str(refused.value)


async def test_transactions_run_as_their_role_and_say_whose_they_are(account: Account):
    database = account.database
    async with database.for_user(account.id) as session:
        assert tuple((await session.execute(ROLE)).one()) == ("alphalab_app", str(account.id))
    async with database.as_system() as session:
        assert (await session.execute(ROLE)).one()[0] == "alphalab_system"


async def test_options_of_the_address_are_kept(postgres_url: str, account: Account):
    separator = "&" if "?" in postgres_url else "?"
    options = f"{separator}options=-c%20application_name%3Dmine"
    database = Database.connect(postgres_url + options, pool_size=1)
    try:
        async with database.for_user(account.id) as session:
            name = await session.scalar(text("SELECT current_setting('application_name')"))
            assert name == "mine"
            assert (await session.execute(ROLE)).one()[0] == "alphalab_app"
    finally:
        await database.dispose()


async def test_an_error_in_the_block_rolls_everything_back(account: Account):
    async def fail() -> None:
        async with account.database.for_user(account.id) as session:
            await session.execute(text("UPDATE users SET first_name = 'Nobody'"))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()

    async with account.database.for_user(account.id) as session:
        assert await session.scalar(text("SELECT first_name FROM users")) is None


async def test_a_cancelled_transaction_leaves_its_connection_usable(account: Account):
    database = account.database

    async def sleep() -> None:
        async with database.for_user(account.id) as session:
            await session.execute(text("UPDATE users SET first_name = 'Late'"))
            await session.execute(text("SELECT pg_sleep(30)"))

    for _ in range(12):  # more often than there are connections
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with database.for_user(account.id) as session:
        assert await session.scalar(text("SELECT first_name FROM users")) is None


async def test_the_pools_heal_after_the_server_was_killed(postgres_url: str):
    """Ends every connection the way a crash does, under pools that hold some."""
    database = Database.connect(postgres_url, pool_size=3)
    someone = uuid4()

    async def ask() -> object:
        async with database.for_user(someone) as session:
            return await session.scalar(text("SELECT pg_backend_pid()"))

    try:
        before = set(await asyncio.gather(*(ask() for _ in range(3))))
        async with database.as_system() as session:
            mine = await session.scalar(text("SELECT pg_backend_pid()"))
        killer = Database.connect(postgres_url, pool_size=1)
        async with killer.as_system() as session:
            end = text("SELECT pg_terminate_backend(:pid)")
            for pid in [*before, mine]:
                await session.execute(text("SET LOCAL ROLE postgres"))
                await session.execute(end, {"pid": pid})
        await killer.dispose()
        await asyncio.sleep(0.2)

        after = set(await asyncio.gather(*(ask() for _ in range(3))))
        assert not before & after
        async with database.as_system() as session:
            assert await session.scalar(text("SELECT 1")) == 1
    finally:
        await database.dispose()


async def test_a_server_that_is_down_is_an_error_and_one_that_is_back_is_used(tmp_path: Path):
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    upgrade(server.url)
    database = Database.connect(server.url, pool_size=2)

    async def ask() -> object:
        async with database.for_user(uuid4()) as session:
            return await session.scalar(text("SELECT 1"))

    try:
        await asyncio.gather(ask(), ask())
        server.stop()
        with pytest.raises(OperationalError):
            await ask()
        server.start()
        assert list(await asyncio.gather(ask(), ask(), ask())) == [1, 1, 1]
    finally:
        await database.dispose()
        server.stop()


async def test_a_connection_lost_in_the_middle_of_a_transaction_is_an_error(postgres_url: str):
    """Only the opening statement is tried again: what followed it may have had effects."""
    database = Database.connect(postgres_url, pool_size=1)

    async def end_myself() -> None:
        async with database.for_user(uuid4()) as session:
            await session.execute(text("SET LOCAL ROLE postgres"))
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    try:
        with pytest.raises(DBAPIError) as lost:
            await end_myself()
        assert lost.value.connection_invalidated
        async with database.for_user(uuid4()) as session:
            assert await session.scalar(text("SELECT 1")) == 1
    finally:
        await database.dispose()


async def test_single_statements_see_their_own_user_however_turns_change(postgres_url: str):
    database = Database.connect(postgres_url, pool_size=1)
    first, second = uuid4(), uuid4()

    async def seen(user: UUID) -> Any:
        async with database.statements_for_user(user) as driver:
            cursor = await driver.execute(
                "SELECT current_user, current_setting('app.user_id', true), pg_backend_pid()"
            )
            return await cursor.fetchone()

    try:
        rows = [await seen(user) for user in (first, first, second, first)]
        assert [row[:2] for row in rows] == [
            ("alphalab_app", str(user)) for user in (first, first, second, first)
        ]
        assert len({row[2] for row in rows}) == 1, "one connection served them all"
    finally:
        await database.dispose()


async def test_the_user_of_single_statements_is_no_users_transaction(postgres_url: str):
    """The connections whose user outlives a transaction serve nothing else."""
    database = Database.connect(postgres_url, pool_size=1)
    try:
        async with database.statements_for_user(uuid4()) as driver:
            await driver.execute("SELECT 1")
        for pool in (database._app, database._system):
            async with pool.connect() as pooled:
                setting = await pooled.execute(text("SELECT current_setting('app.user_id', true)"))
                assert not setting.scalar_one()
    finally:
        await database.dispose()


async def test_a_transaction_of_statements_that_ends_in_an_error_rolls_back(account: Account):
    database = account.database

    async def fail() -> None:
        async with database.statements_for_user(account.id) as driver, driver.transaction():
            await driver.execute("UPDATE users SET first_name = 'Nobody'")
            raise RuntimeError("on purpose")

    for _ in range(12):  # more often than there are connections
        with pytest.raises(RuntimeError, match="on purpose"):
            await fail()

    async with database.for_user(account.id) as session:
        assert await session.scalar(text("SELECT first_name FROM users")) is None


async def test_a_cancelled_statement_leaves_its_connection_usable(account: Account):
    database = account.database

    async def sleep() -> None:
        async with database.statements_for_user(account.id) as driver, driver.transaction():
            await driver.execute("UPDATE users SET first_name = 'Late'")
            await driver.execute("SELECT pg_sleep(30)")

    for _ in range(12):
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with database.for_user(account.id) as session:
        assert await session.scalar(text("SELECT first_name FROM users")) is None


async def test_single_statements_heal_after_the_server_was_restarted(tmp_path: Path):
    server = PostgresServer(tmp_path / "postgres", is_synced=False)
    server.start()
    upgrade(server.url)
    database = Database.connect(server.url, pool_size=2)

    async def ask() -> object:
        async with database.statements_for_user(uuid4()) as driver:
            cursor = await driver.execute("SELECT 1")
            return await cursor.fetchone()

    try:
        await asyncio.gather(ask(), ask())
        server.stop()
        with pytest.raises((psycopg.OperationalError, OperationalError)):
            await ask()
        server.start()
        assert list(await asyncio.gather(ask(), ask(), ask())) == [(1,), (1,), (1,)]
    finally:
        await database.dispose()
        server.stop()
