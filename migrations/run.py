"""Brings a database to the newest schema: as often, and by as many processes at once, as wanted."""

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, pool

from db.engine import OWNER_ROLE, normalized_url
from migrations.roles import ensure_roles

# Any constant serves, as long as nothing else in the database locks on it.
_ADVISORY_LOCK = 4_716_220_251
_WAIT_FOR_OTHERS = "5min"
# A migration that waits longer for a table would make everyone else wait behind it.
_LOCK_TIMEOUT = "10s"
_FILE_TEMPLATE = "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
# Alembic keeps the migration under way in module globals.
_one_thread = Lock()


def upgrade(url: str) -> None:
    """Create the roles and apply the missing migrations; a second call changes nothing."""
    engine = create_engine(normalized_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        _lock(connection)
        ensure_roles(connection)
        connection.exec_driver_sql(f"SET ROLE {OWNER_ROLE}")
        connection.commit()
        with _one_thread:
            command.upgrade(configuration(connection), "head")


def revise(url: str, message: str) -> None:
    """Write the migration that brings the database's schema to that of the models, to be edited."""
    engine = create_engine(normalized_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        config = configuration(connection)
        config.set_main_option("file_template", _FILE_TEMPLATE)
        command.revision(config, message, autogenerate=True)


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> None:
    """Take a lock that lasts until the connection closes, however the migration ends."""
    connection.exec_driver_sql(f"SET lock_timeout = '{_WAIT_FOR_OTHERS}'")
    connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.commit()
