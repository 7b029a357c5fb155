# ruff: noqa: N999 - migrations are named by their date
"""Whether a test is to be summed up by its model."""

from alembic import op

revision: str = "2026_11_27_1500"
down_revision: str | None = "2026_11_27_1100"
branch_labels: str | None = None
depends_on: str | None = None

ASKED_FOR = "ALTER TABLE trading_sessions ADD COLUMN ai_summary BOOLEAN DEFAULT false NOT NULL"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(ASKED_FOR)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE trading_sessions DROP COLUMN ai_summary")
