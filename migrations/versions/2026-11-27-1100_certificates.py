# ruff: noqa: N999 - migrations are named by their date
"""Certificates, which whoever has a code may see, and where a test's decisions came from."""

from alembic import op

from migrations.security import own, protect, published

revision: str = "2026_11_27_1100"
down_revision: str | None = "2026_11_27_1000"
branch_labels: str | None = None
depends_on: str | None = None

TABLE = """
CREATE TABLE certificates (
    id UUID NOT NULL,
    result_id UUID NOT NULL,
    user_id UUID NOT NULL,
    verification_code VARCHAR NOT NULL,
    agent_name VARCHAR NOT NULL,
    agent_version INTEGER NOT NULL,
    model VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    test_type VARCHAR NOT NULL,
    asset VARCHAR NOT NULL,
    timeframe VARCHAR NOT NULL,
    period_start TIMESTAMP WITH TIME ZONE NOT NULL,
    period_end TIMESTAMP WITH TIME ZONE NOT NULL,
    pnl_pct NUMERIC(12, 6) NOT NULL,
    win_rate NUMERIC(12, 6),
    total_trades INTEGER NOT NULL,
    max_drawdown_pct NUMERIC(12, 6) NOT NULL,
    sharpe_ratio NUMERIC,
    seal VARCHAR NOT NULL,
    share_url VARCHAR NOT NULL,
    pdf_key VARCHAR NOT NULL,
    image_key VARCHAR NOT NULL,
    qr_key VARCHAR NOT NULL,
    bundle_key VARCHAR NOT NULL,
    includes_reasoning BOOLEAN NOT NULL,
    equity JSONB NOT NULL,
    engine_version VARCHAR NOT NULL,
    canonical JSONB NOT NULL,
    canonical_sha256 VARCHAR NOT NULL,
    signature VARCHAR NOT NULL,
    public_key_id VARCHAR NOT NULL,
    trace_sha256 VARCHAR NOT NULL,
    issued_at TIMESTAMP WITH TIME ZONE NOT NULL,
    view_count INTEGER DEFAULT 0 NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    revoked_reason VARCHAR,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_certificates PRIMARY KEY (id),
    CONSTRAINT ck_certificates_mode CHECK (mode IN ('monk', 'omni')),
    CONSTRAINT ck_certificates_test_type CHECK (test_type IN ('backtest', 'forward')),
    CONSTRAINT ck_certificates_seal CHECK (seal IN ('full', 'own_data', 'simulated')),
    CONSTRAINT uq_certificates_result_id UNIQUE (result_id),
    CONSTRAINT uq_certificates_verification_code UNIQUE (verification_code),
    CONSTRAINT fk_certificates_result_id FOREIGN KEY(result_id) REFERENCES test_results (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_certificates_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE
);
CREATE INDEX ix_certificates_user_id ON certificates (user_id);
"""

# The table's owner runs this function, and sees by it the row of one code and no other.
FIND = """
CREATE FUNCTION certificate_by_code(code text, is_view boolean) RETURNS SETOF certificates
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.verification_code', code, true);
    IF is_view THEN
        RETURN QUERY UPDATE certificates SET view_count = view_count + 1
            WHERE verification_code = code RETURNING *;
    ELSE
        RETURN QUERY SELECT * FROM certificates WHERE verification_code = code;
    END IF;
    PERFORM set_config('app.verification_code', '', true);
END $$;
REVOKE ALL ON FUNCTION certificate_by_code FROM PUBLIC;
GRANT EXECUTE ON FUNCTION certificate_by_code TO alphalab_app, alphalab_system;
"""

MODEL_SOURCE = """
ALTER TABLE {table} ADD COLUMN model_source VARCHAR;
ALTER TABLE {table} ADD CONSTRAINT ck_{table}_model_source
    CHECK (model_source IN ('openrouter', 'simulated'));
"""


def upgrade() -> None:
    connection = op.get_bind()
    statements = [
        TABLE,
        FIND,
        *protect(
            "certificates",
            reads=own(),
            references={"result_id": "test_results"},
            grants="SELECT, INSERT",
        ),
        *published("certificates", "verification_code"),
        *(MODEL_SOURCE.format(table=table) for table in ("trading_sessions", "test_results")),
    ]
    for statement in statements:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("certificates that were issued are not taken back by a migration")
