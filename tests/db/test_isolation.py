"""Row-level security, proven with plain SQL as the application role on pooled connections.

What is tested is read from the catalogue, so that a new table is covered by itself.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db.engine import Database

# Holds a revision and no data of anybody.
UNPROTECTED = {"alembic_version"}
# The system's alone: no other role has any right.
RESERVED = {"watch_candles", "webhook_deliveries"}
VALUES_BY_TYPE: Mapping[str, Any] = {
    "bool": False,
    "bytea": b"x",
    "jsonb": "{}",
    "numeric": 1,
    "_text": "{}",
}

NUMBERS = itertools.count(1)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    type: str
    is_needed: bool
    is_generated: bool
    allowed: str | None  # the first value of its enumeration
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def parents(self) -> dict[str, str]:
        return {each.name: each.parent for each in self.columns if each.parent is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All tables, parents before children, and a row of each for users A and B."""

    tables: tuple[Table, ...]
    a: dict[str, Row]
    b: dict[str, Row]


COLUMNS = """
    SELECT c.relname AS table_name, a.attname AS name, t.typname AS type,
        a.attnotnull AND NOT a.atthasdef AS is_needed, a.attgenerated <> '' AS is_generated,
        (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conrelid = c.oid
            AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]) AS rule,
        (SELECT k.confrelid::regclass::text FROM pg_constraint k WHERE k.conrelid = c.oid
            AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum]) AS parent,
        EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
            AND a.attnum = ANY (i.indkey)) AS is_key
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum
"""


def read_tables(connection: psycopg.Connection[Row]) -> tuple[Table, ...]:
    by_table: dict[str, list[Row]] = {}
    for row in connection.execute(COLUMNS):
        by_table.setdefault(row["table_name"], []).append(row)
    tables = [
        Table(
            name=name,
            columns=tuple(column(row) for row in rows),
            key=tuple(row["name"] for row in rows if row["is_key"]),
        )
        for name, rows in by_table.items()
        if name not in UNPROTECTED | RESERVED
    ]
    return parents_first(tables)


def column(row: Row) -> Column:
    listed = re.search(r"'([^']+)'", row["rule"] or "")
    return Column(
        name=row["name"],
        type=row["type"],
        is_needed=row["is_needed"],
        is_generated=row["is_generated"],
        allowed=listed.group(1) if listed and "ANY" in row["rule"] else None,
        parent=row["parent"],
    )


def parents_first(tables: Iterable[Table]) -> tuple[Table, ...]:
    waiting = list(tables)
    ordered: list[Table] = []
    while waiting:
        done = {table.name for table in ordered}
        ready = [table for table in waiting if set(table.parents.values()) <= done]
        assert ready, "foreign keys in a circle"
        ordered += ready
        waiting = [table for table in waiting if table not in ready]
    return tuple(ordered)


def invented_row(table: Table, parents: Mapping[str, Row]) -> Row:
    """A row that satisfies the table's rules and belongs to the owner of `parents`."""
    row: Row = {}
    for each in table.columns:
        if each.is_generated:
            continue
        if each.parent is not None:
            row[each.name] = parents[each.parent]["id"]
        elif each.is_needed or each.name in table.key:
            row[each.name] = invented_value(each)
    return row


def invented_value(each: Column) -> Any:
    if each.type == "uuid":
        return uuid4()
    if each.type in ("int4", "int8"):
        return next(NUMBERS)
    if each.type == "timestamptz":
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=next(NUMBERS))
    if each.allowed is not None:
        return each.allowed
    return VALUES_BY_TYPE.get(each.type, f"{each.name}-{uuid4().hex}")


def insert(table: Table, row: Row) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Literal(value) for value in row.values()),
    )


@pytest.fixture(scope="module")
def catalogue(postgres_url: str) -> Catalogue:
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        tables = read_tables(connection)
        rows: list[dict[str, Row]] = []
        for _ in range(2):
            rows.append({})
            for table in tables:
                rows[-1][table.name] = invented_row(table, rows[-1])
                connection.execute(insert(table, rows[-1][table.name]))
    return Catalogue(tables=tables, a=rows[0], b=rows[1])


@pytest.fixture(scope="module")
async def one_connection(postgres_url: str) -> AsyncIterator[Database]:
    """A pool of one, so that every transaction gets the connection of the one before it."""
    database = Database.connect(postgres_url, pool_size=1)
    yield database
    await database.dispose()


def where_key(table: Table, row: Row) -> str:
    return " AND ".join(f"{name} = {sql.Literal(row[name]).as_string()}" for name in table.key)


def user_of(rows: dict[str, Row]) -> UUID:
    user_id = rows["users"]["id"]
    assert isinstance(user_id, UUID)
    return user_id


async def run(database: Database, user_id: UUID, statement: str) -> int:
    """Run a statement as a user and say how many rows it touched; nothing is kept."""
    async with database.for_user(user_id) as session:
        connection = await session.connection()
        touched = (await connection.exec_driver_sql(statement.replace("%", "%%"))).rowcount
        await session.rollback()
    return touched


async def refusal(database: Database, user_id: UUID, statement: str) -> str:
    """Run a statement that must be refused and say with which code."""
    with pytest.raises(ProgrammingError) as refused:
        await run(database, user_id, statement)
    assert isinstance(refused.value.orig, psycopg.Error)
    return str(refused.value.orig.sqlstate)


INSUFFICIENT_PRIVILEGE = "42501"  # a missing grant and a violated policy alike


async def test_every_table_is_protected_and_its_owner_too(catalogue: Catalogue, postgres_url: str):
    query = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
            AND NOT (relrowsecurity AND relforcerowsecurity
                AND pg_get_userbyid(relowner) = 'alphalab_owner')
    """
    with psycopg.connect(postgres_url) as connection:
        assert {name for (name,) in connection.execute(query)} == UNPROTECTED
    assert len(catalogue.tables) >= 16


async def test_what_is_the_systems_alone_is_closed_to_the_app(one_connection: Database):
    for name in RESERVED:
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with one_connection.for_user(uuid4()) as session:
                await session.execute(text(f"SELECT 1 FROM {name}"))


async def test_nobody_but_the_three_roles_has_any_right(postgres_url: str):
    query = """
        SELECT table_name, grantee FROM information_schema.role_table_grants
        WHERE table_schema = 'public'
            AND grantee NOT IN ('alphalab_owner', 'alphalab_app', 'alphalab_system')
    """
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(query).fetchall() == []
        roles = connection.execute(
            "SELECT rolname, rolbypassrls, rolsuper, rolcanlogin FROM pg_roles"
            " WHERE rolname LIKE 'alphalab%' ORDER BY rolname"
        ).fetchall()
    assert roles == [
        ("alphalab_app", False, False, False),
        ("alphalab_owner", False, False, False),
        ("alphalab_system", True, False, False),
    ]


async def test_without_a_user_there_are_no_rows_and_no_error(
    catalogue: Catalogue, postgres_url: str, one_connection: Database
):
    names = [table.name for table in catalogue.tables]
    shared = {
        "data_sets": "WHERE user_id IS NOT NULL",
        "candles": "WHERE data_set_id NOT IN (SELECT id FROM data_sets)",
    }
    for role in ("alphalab_app", "alphalab_owner"):
        with psycopg.connect(postgres_url, options=f"-c role={role}") as connection:
            for name in names:
                where = shared.get(name, "") if role == "alphalab_app" else ""
                query = sql.SQL(f"SELECT count(*) FROM {name} {where}")
                assert connection.execute(query).fetchone() == (0,), (role, name)
                connection.commit()
    # A connection on which a user was set and is no longer: the setting is empty, not null.
    async with one_connection.for_user(user_of(catalogue.a)) as session:
        await session.execute(text("SELECT 1"))
    async with one_connection._app.connect() as pooled:
        setting = text("SELECT current_setting('app.user_id', true)")
        assert (await pooled.execute(setting)).scalar_one() == ""
        for name in names:
            count = text(f"SELECT count(*) FROM {name} {shared.get(name, '')}")
            assert (await pooled.execute(count)).scalar_one() == 0, name


async def test_a_user_sees_the_own_rows(catalogue: Catalogue, one_connection: Database):
    """The control of the tests that follow: the rows are there, for the one who owns them."""
    for table in catalogue.tables:
        for rows in (catalogue.a, catalogue.b):
            query = f"SELECT 1 FROM {table.name} WHERE {where_key(table, rows[table.name])}"
            assert await run(one_connection, user_of(rows), query) == 1, table.name


async def test_a_user_sees_none_of_anothers_rows(catalogue: Catalogue, one_connection: Database):
    for table in catalogue.tables:
        query = f"SELECT 1 FROM {table.name} WHERE {where_key(table, catalogue.a[table.name])}"
        assert await run(one_connection, user_of(catalogue.b), query) == 0, table.name


async def test_a_user_changes_and_deletes_none_of_anothers_rows(
    catalogue: Catalogue, one_connection: Database
):
    for table in catalogue.tables:
        where = where_key(table, catalogue.a[table.name])
        column_name = next(c.name for c in table.columns if not c.is_generated)
        for statement in (
            f"UPDATE {table.name} SET {column_name} = {column_name} WHERE {where}",
            f"DELETE FROM {table.name} WHERE {where}",
        ):
            try:
                touched = await run(one_connection, user_of(catalogue.b), statement)
            except ProgrammingError as error:
                assert isinstance(error.orig, psycopg.errors.InsufficientPrivilege)  # noqa: PT017
                continue
            assert touched == 0, statement


async def test_a_user_who_changes_and_deletes_all_reaches_the_own_row_only(
    catalogue: Catalogue, one_connection: Database
):
    """Without a condition the policy for reading does not apply, and the others stand alone."""
    async with one_connection.for_user(user_of(catalogue.b)) as session:
        connection = await session.connection()
        for table in reversed(catalogue.tables):
            for statement in (
                f"UPDATE {table.name} SET created_at = now()",
                f"DELETE FROM {table.name}",
            ):
                try:
                    async with connection.begin_nested():
                        touched = (await connection.exec_driver_sql(statement)).rowcount
                except ProgrammingError as error:
                    assert re.search("permission denied|does not exist", str(error))  # noqa: PT017
                    continue
                assert touched == 1, statement
        await session.rollback()


async def test_a_user_inserts_no_row_for_another(catalogue: Catalogue, one_connection: Database):
    for table in catalogue.tables:
        row = invented_row(table, catalogue.a)
        if table.name == "users":
            row["id"] = user_of(catalogue.a)
        code = await refusal(one_connection, user_of(catalogue.b), insert(table, row).as_string())
        assert code == INSUFFICIENT_PRIVILEGE, table.name


async def test_a_user_refers_to_no_row_of_another(catalogue: Catalogue, one_connection: Database):
    """Foreign keys are checked past row-level security, so that policies have to do it."""
    checked = 0
    for table in catalogue.tables:
        for name, parent in table.parents.items():
            row = invented_row(table, catalogue.b) | {name: catalogue.a[parent]["id"]}
            code = await refusal(
                one_connection, user_of(catalogue.b), insert(table, row).as_string()
            )
            assert code == INSUFFICIENT_PRIVILEGE, (table.name, name)
            checked += 1
    assert checked >= 20


async def test_a_user_inserts_own_rows_where_the_role_may(
    catalogue: Catalogue, one_connection: Database
):
    """The control of the two tests above: with the own parents the same insert goes through."""
    system_only = {"users"}
    with_one_row_each = {"user_settings", "test_results", "certificates", "exports"}
    for table in catalogue.tables:
        if table.name in system_only | with_one_row_each:
            continue
        statement = insert(table, invented_row(table, catalogue.b)).as_string()
        assert await run(one_connection, user_of(catalogue.b), statement) == 1, table.name


async def test_a_user_gives_no_own_row_to_another(catalogue: Catalogue, one_connection: Database):
    for table in catalogue.tables:
        owner = next((c for c in table.columns if c.name in ("user_id", "session_id")), None)
        if owner is None or owner.parent is None:
            continue
        statement = (
            f"UPDATE {table.name} SET {owner.name} = '{catalogue.a[owner.parent]['id']}'"
            f" WHERE {where_key(table, catalogue.b[table.name])}"
        )
        code = await refusal(one_connection, user_of(catalogue.b), statement)
        assert code == INSUFFICIENT_PRIVILEGE, table.name


async def test_the_user_does_not_leak_between_pooled_transactions(
    catalogue: Catalogue, postgres_url: str
):
    database = Database.connect(postgres_url, pool_size=2)
    users = [user_of(catalogue.a), user_of(catalogue.b)]

    async def check(user_id: UUID) -> None:
        async with database.for_user(user_id) as session:
            await asyncio.sleep(0)
            assert (await session.scalars(text("SELECT id FROM users"))).all() == [user_id]

    try:
        await asyncio.gather(*(check(users[i % 2]) for i in range(100)))
    finally:
        await database.dispose()


async def test_the_connections_that_steps_use_change_hands_with_their_user(
    catalogue: Catalogue, one_connection: Database
):
    people = (catalogue.a, catalogue.b)
    for table in catalogue.tables:
        for viewer, owner in itertools.product(people, people):
            query = f"SELECT 1 FROM {table.name} WHERE {where_key(table, owner[table.name])}"
            async with one_connection.statements_for_user(user_of(viewer)) as driver:
                found = await (await driver.execute(sql.SQL(query))).fetchall()
            assert len(found) == (viewer is owner), table.name


async def test_a_user_may_not_change_what_the_system_decides(
    catalogue: Catalogue, one_connection: Database
):
    for assignment in (
        "plan = 'enterprise'",
        "is_active = true",
        "clerk_id = 'me'",
        "clerk_updated_at = now()",
    ):
        code = await refusal(one_connection, user_of(catalogue.b), f"UPDATE users SET {assignment}")
        assert code == INSUFFICIENT_PRIVILEGE, assignment


async def test_versions_and_candles_cannot_be_rewritten(
    catalogue: Catalogue, one_connection: Database
):
    for statement in (
        "UPDATE agent_versions SET strategy_prompt = 'better in hindsight'",
        "DELETE FROM agent_versions",
        "UPDATE candles SET close = high",
        "DELETE FROM candles",
        "UPDATE data_sets SET source = 'exchange:binance'",
    ):
        code = await refusal(one_connection, user_of(catalogue.b), statement)
        assert code == INSUFFICIENT_PRIVILEGE, statement


async def test_shared_candles_are_readable_by_all_and_writable_by_none(
    catalogue: Catalogue, one_connection: Database, postgres_url: str
):
    shared = uuid4()
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO data_sets (id, asset, timeframe, source, content_sha256)"
            " VALUES (%s, 'BTC/USDT', '1h', 'import', %s)",
            (shared, uuid4().hex),
        )
        connection.execute(
            "INSERT INTO candles VALUES (%s, '2024-01-01T00:00:00Z', 1, 1, 1, 1, 1)", (shared,)
        )
    reader = user_of(catalogue.b)
    for query in (
        f"SELECT 1 FROM data_sets WHERE id = '{shared}'",
        f"SELECT 1 FROM candles WHERE data_set_id = '{shared}'",
    ):
        assert await run(one_connection, reader, query) == 1
    more = f"INSERT INTO candles VALUES ('{shared}', '2024-01-02T00:00:00Z', 1, 1, 1, 1, 1)"
    assert await refusal(one_connection, reader, more) == INSUFFICIENT_PRIVILEGE
    assert await run(one_connection, reader, f"DELETE FROM data_sets WHERE id = '{shared}'") == 0


async def test_deleting_a_user_takes_everything_and_nothing_of_another(
    catalogue: Catalogue, postgres_url: str
):
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        rows: dict[str, Row] = {}
        for table in catalogue.tables:
            rows[table.name] = invented_row(table, rows)
            connection.execute(insert(table, rows[table.name]))
        connection.execute("DELETE FROM users WHERE id = %s", (rows["users"]["id"],))
        for table in catalogue.tables:
            for kept, row in ((0, rows), (1, catalogue.b)):
                query = f"SELECT 1 FROM {table.name} WHERE {where_key(table, row[table.name])}"
                assert connection.execute(query).rowcount == kept, table.name
        connection.rollback()
