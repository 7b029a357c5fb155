"""Migrations make the schema that the models describe, however often and by whomever they run."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, pool, text

from db.engine import Database, normalized_url
from db.models import Base
from local.servers import PostgresServer
from migrations.roles import RoleMisconfigured
from migrations.run import upgrade

COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attgenerated
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND c.relname <> 'alembic_version' AND a.attnum > 0
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
"""
INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""


def structure(url: str) -> dict[str, set[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        return {
            name: set(connection.execute(query).fetchall())
            for name, query in (("columns", COLUMNS), ("keys", CONSTRAINTS), ("indexes", INDEXES))
        }


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server on which nobody has created the roles yet."""
    server = PostgresServer(tmp_path / "postgres", is_synced=False)
    server.start()
    yield server
    server.stop()


def test_models_and_migrations_describe_the_same_schema(empty_postgres_url: str, postgres_url: str):
    engine = create_engine(normalized_url(empty_postgres_url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)

    assert structure(postgres_url) == structure(empty_postgres_url)


def test_alembic_finds_nothing_to_migrate(postgres_url: str):
    engine = create_engine(normalized_url(postgres_url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_no_money_is_kept_in_floats(postgres_url: str):
    types = {column[2] for column in structure(postgres_url)["columns"]}

    assert not types & {"real", "double precision", "money"}


def test_a_second_upgrade_changes_nothing(empty_postgres_url: str):
    upgrade(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as connection:
        before = connection.execute("SELECT oid, xmin FROM pg_class ORDER BY oid").fetchall()
        connection.commit()
        upgrade(empty_postgres_url)
        after = connection.execute("SELECT oid, xmin FROM pg_class ORDER BY oid").fetchall()

    assert before == after


def test_many_may_migrate_several_databases_of_a_new_cluster_at_once(new_cluster: PostgresServer):
    urls = [new_cluster.create_database(f"race_{i}") for i in range(2)]
    script = "import sys; from migrations.run import upgrade; upgrade(sys.argv[1])"
    with (
        ThreadPoolExecutor() as executor,
        subprocess.Popen([sys.executable, "-c", script, urls[0]]) as other_process,
    ):
        list(executor.map(upgrade, urls * 2))

    assert other_process.returncode == 0
    assert structure(urls[0]) == structure(urls[1])
    assert structure(urls[0])["columns"]


def test_a_role_that_would_bypass_isolation_is_refused(new_cluster: PostgresServer):
    upgrade(new_cluster.url)
    with psycopg.connect(new_cluster.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE alphalab_app BYPASSRLS")
        try:
            with pytest.raises(RoleMisconfigured, match="alphalab_app"):
                upgrade(new_cluster.url)
        finally:
            connection.execute("ALTER ROLE alphalab_app NOBYPASSRLS")


async def test_a_login_without_superuser_can_migrate_and_serve(new_cluster: PostgresServer):
    """A managed PostgreSQL gives out a login that owns a database and may create roles."""
    upgrade(new_cluster.url)  # whoever came first made the roles
    url = new_cluster.create_database("managed")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE deployer LOGIN CREATEROLE BYPASSRLS")
        connection.execute("ALTER DATABASE managed OWNER TO deployer")
        for role in ("owner", "app", "system"):
            connection.execute(f"GRANT alphalab_{role} TO deployer WITH ADMIN OPTION, SET FALSE")
    url = url.replace("//postgres@", "//deployer@")

    upgrade(url)

    database = Database.connect(url)
    try:
        async with database.as_system() as session:
            await session.execute(
                text("INSERT INTO users (id, clerk_id) VALUES (gen_random_uuid(), 'someone')")
            )
    finally:
        await database.dispose()
    with psycopg.connect(url) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
        assert owners.fetchall() == [("alphalab_owner",)]
