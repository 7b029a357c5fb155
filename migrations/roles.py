"""The three roles: they belong to the whole cluster, so that several databases share them."""

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.engine import APP_ROLE, OWNER_ROLE, SYSTEM_ROLE

_BYPASSES = {OWNER_ROLE: False, APP_ROLE: False, SYSTEM_ROLE: True}
_ATTEMPTS = 5
# Another database of the cluster is being migrated: duplicate object, unique violation,
# "tuple concurrently updated".
_RACES = {"42710", "23505", "XX000"}


class RoleMisconfigured(RuntimeError):
    """A role of that name exists, but not with the rights that isolation rests on."""


def ensure_roles(connection: Connection) -> None:
    """Create what is missing and let the current login act as each role. Commits."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            for role, bypasses in _BYPASSES.items():
                _ensure_role(connection, role, bypasses_row_security=bypasses)
            _open_schema(connection)
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            if attempt == _ATTEMPTS or getattr(error.orig, "sqlstate", None) not in _RACES:
                raise
        else:
            return


def _ensure_role(connection: Connection, role: str, *, bypasses_row_security: bool) -> None:
    found = connection.exec_driver_sql(
        "SELECT rolbypassrls, rolsuper FROM pg_roles WHERE rolname = %s", (role,)
    ).one_or_none()
    if found is None:
        bypass = "BYPASSRLS" if bypasses_row_security else "NOBYPASSRLS"
        connection.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN {bypass}")
    elif tuple(found) != (bypasses_row_security, False):
        raise RoleMisconfigured(
            f"role {role} must be no superuser and have BYPASSRLS {bypasses_row_security}"
        )
    may_become = connection.exec_driver_sql(
        "SELECT pg_has_role(session_user, %s, 'SET')", (role,)
    ).scalar_one()
    if not may_become:
        connection.exec_driver_sql(f"GRANT {role} TO session_user WITH INHERIT FALSE, SET TRUE")


def _open_schema(connection: Connection) -> None:
    may_create = connection.exec_driver_sql(
        "SELECT has_schema_privilege(%s, 'public', 'CREATE')", (OWNER_ROLE,)
    ).scalar_one()
    if not may_create:
        connection.exec_driver_sql(f"GRANT CREATE, USAGE ON SCHEMA public TO {OWNER_ROLE}")
