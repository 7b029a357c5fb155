"""Every written-out statement of the repositories fits the schema and the application's rights."""

import importlib
import pkgutil

import psycopg
import pytest
from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql

import db.repositories

MODULES = [module.name for module in pkgutil.iter_modules(db.repositories.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_postgres_accepts_each_statement(postgres_url: str, module: str):
    dialect = postgresql.dialect(paramstyle="numeric_dollar")
    contents = vars(importlib.import_module(f"db.repositories.{module}"))
    statements = [value for value in contents.values() if isinstance(value, TextClause)]
    with psycopg.connect(postgres_url, options="-c role=alphalab_app") as connection:
        for number, statement in enumerate(statements):
            query = str(statement.compile(dialect=dialect))
            connection.execute(f"PREPARE statement_{number} AS {query}".encode())
