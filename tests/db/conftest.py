"""A database, and two users of it for each test."""

from collections.abc import AsyncIterator

import pytest

from db.engine import Database
from tests.db.accounts import Account, new_account


@pytest.fixture(scope="session")
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database.connect(postgres_url)
    yield database
    await database.dispose()


@pytest.fixture
async def account(database: Database) -> Account:
    return await new_account(database)


@pytest.fixture
async def stranger(database: Database) -> Account:
    return await new_account(database)
