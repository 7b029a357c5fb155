"""Alembic's environment: one open connection, held by `migrations.run`, as the owner role."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeDecorator

from db.models import Base


def _render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write plain types into migrations, which must not change when the models do."""
    if kind != "type" or not isinstance(item, TypeDecorator):
        return False
    plain = repr(item.impl_instance)
    return f"sa.{plain}".replace(", asdecimal=False", "").replace("asdecimal=False", "")


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
