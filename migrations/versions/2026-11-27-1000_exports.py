# ruff: noqa: N999 - migrations are named by their date
"""Exports of accounts, and who may see which of them."""

from alembic import op

from migrations.security import own, protect, touch_updated_at

revision: str = "2026_11_27_1000"
down_revision: str | None = "2026_11_23_0900"
branch_labels: str | None = None
depends_on: str | None = None

TABLE = """
CREATE TABLE exports (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    workflow_id VARCHAR NOT NULL,
    include JSONB NOT NULL,
    format VARCHAR NOT NULL,
    status VARCHAR DEFAULT 'processing' NOT NULL,
    progress_pct NUMERIC(12, 6) DEFAULT 0 NOT NULL,
    object_key VARCHAR,
    size_bytes BIGINT,
    expires_at TIMESTAMP WITH TIME ZONE,
    error VARCHAR,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_exports PRIMARY KEY (id),
    CONSTRAINT ck_exports_format CHECK (format IN ('zip', 'json')),
    CONSTRAINT ck_exports_status CHECK (status IN ('processing', 'ready', 'failed', 'expired')),
    CONSTRAINT fk_exports_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT uq_exports_workflow_id UNIQUE (workflow_id),
    CONSTRAINT uq_exports_object_key UNIQUE (object_key)
);
CREATE UNIQUE INDEX uq_exports_processing ON exports (user_id) WHERE status = 'processing';
CREATE INDEX ix_exports_user_id_created_at ON exports (user_id, created_at);
CREATE INDEX ix_exports_kept ON exports (expires_at)
    WHERE status <> 'processing' AND object_key IS NOT NULL;
"""


def upgrade() -> None:
    for statement in (TABLE, *touch_updated_at(["exports"]), *protect("exports", reads=own())):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE exports")
