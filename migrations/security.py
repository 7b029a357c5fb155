"""Row-level security as SQL. Released migrations call these: add functions, change none."""

from collections.abc import Mapping, Sequence

_OWNER, _APP, _SYSTEM = "alphalab_owner", "alphalab_app", "alphalab_system"

# A scalar subselect is evaluated once per statement, a bare function call once per row. After a
# transaction that set it, the setting is an empty string and not null.
USER = "(SELECT nullif(current_setting('app.user_id', true), '')::uuid)"


def protect(
    table: str,
    *,
    reads: str,
    writes: str | None = None,
    references: Mapping[str, str] | None = None,
    grants: str = "SELECT, INSERT, UPDATE, DELETE",
) -> list[str]:
    """Statements that hold the app role to the rows for which `reads` is true.

    `writes` is the condition for changing a row, where it differs. `references` maps columns to
    the tables they point to: what is written must point to rows that its writer can see. The
    system role passes by row-level security; the owner, for whom there is no policy, sees nothing.
    """
    mine = writes or reads
    valid = " AND ".join([f"({mine})", *_visible(table, references or {})])
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"GRANT {grants} ON {table} TO {_APP}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {_SYSTEM}",
        f"CREATE POLICY reads ON {table} FOR SELECT TO {_APP} USING ({reads})",
        f"CREATE POLICY inserts ON {table} FOR INSERT TO {_APP} WITH CHECK ({valid})",
        f"CREATE POLICY updates ON {table} FOR UPDATE TO {_APP}"
        f" USING ({mine}) WITH CHECK ({valid})",
        f"CREATE POLICY deletes ON {table} FOR DELETE TO {_APP} USING ({mine})",
    ]


def reserve(table: str) -> list[str]:
    """Statements that keep a table for the system alone: it holds nothing of any user's."""
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {_SYSTEM}",
    ]


def own(column: str = "user_id") -> str:
    """The row is the user's."""
    return f"{column} = {USER}"


def child_of(parent: str, column: str, *, also: str = "false") -> str:
    """The row's parent is the user's, or `also` is true of it."""
    return (
        f"EXISTS (SELECT 1 FROM {parent} parent"  # noqa: S608 - constants of migrations
        f" WHERE parent.id = {column} AND (parent.user_id = {USER} OR {also}))"
    )


def touch_updated_at(tables: Sequence[str]) -> list[str]:
    """Statements that keep `updated_at` by a trigger."""
    return [
        f"CREATE TRIGGER touch_{table} BEFORE UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION touch_updated_at()"
        for table in tables
    ]


def _visible(table: str, references: Mapping[str, str]) -> list[str]:
    """Foreign keys are checked past row-level security: they alone would accept, and thereby
    confirm, another user's ids.
    """
    return [
        f"({table}.{column} IS NULL"  # noqa: S608 - as above
        f" OR EXISTS (SELECT 1 FROM {other} seen WHERE seen.id = {table}.{column}))"
        for column, other in references.items()
    ]


def published(table: str, column: str) -> list[str]:
    """Statements that let functions of the owner see, and change, the one row that they name.

    They name it by the setting `app.` and the column; without it the owner sees nothing.
    """
    named = f"{column} = (SELECT nullif(current_setting('app.{column}', true), ''))"
    return [
        f"CREATE POLICY finds ON {table} FOR SELECT TO {_OWNER} USING ({named})",
        f"CREATE POLICY counts ON {table} FOR UPDATE TO {_OWNER} USING ({named})",
    ]
