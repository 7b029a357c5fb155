"""Alembic's environment: one open connection, held by `migrations.run`, as the owner role."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeDecorator

from db.models import Base


def _render_item(kind: str, item: Any, context_: AutogenContext) -> str | Literal[False]:
    """Write the plain type into migrations, which must not change when the models do."""
    if kind == "type" and isinstance(item, TypeDecorator) and item.__module__.startswith("db."):
        context_.imports.add("import sqlalchemy as sa")
        return f"sa.{item.impl_instance!r}".replace(", asdecimal=False", "").replace(
            "asdecimal=False", ""
        )
    return False


def _migrate() -> None:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Base.metadata,
        compare_server_default=True,
        render_item=_render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


_migrate()
