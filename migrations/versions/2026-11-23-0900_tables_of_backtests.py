# ruff: noqa: N999 - migrations are named by their date
"""The tables of backtests, and who may see which of their rows."""

from alembic import op

from migrations.security import child_of, own, protect, reserve, touch_updated_at

revision: str = "2026_11_23_0900"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

TABLES = """
CREATE TABLE users (
    id UUID NOT NULL,
    clerk_id VARCHAR NOT NULL,
    email VARCHAR,
    first_name VARCHAR,
    last_name VARCHAR,
    username VARCHAR,
    image_url VARCHAR,
    timezone VARCHAR DEFAULT 'UTC' NOT NULL,
    plan VARCHAR DEFAULT 'free' NOT NULL,
    is_active BOOLEAN DEFAULT true NOT NULL,
    clerk_updated_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT ck_users_plan CHECK (plan IN ('free', 'pro', 'enterprise')),
    CONSTRAINT uq_users_clerk_id UNIQUE (clerk_id),
    CONSTRAINT uq_users_username UNIQUE (username)
);
CREATE UNIQUE INDEX uq_users_email_active ON users (email) WHERE is_active;

CREATE TABLE api_keys (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    provider VARCHAR DEFAULT 'openrouter' NOT NULL,
    label VARCHAR,
    key_prefix VARCHAR NOT NULL,
    is_default BOOLEAN DEFAULT false NOT NULL,
    status VARCHAR DEFAULT 'untested' NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE,
    last_validated_at TIMESTAMP WITH TIME ZONE,
    encrypted_key VARCHAR NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT ck_api_keys_provider CHECK (provider IN ('openrouter')),
    CONSTRAINT ck_api_keys_status CHECK (status IN ('valid', 'invalid', 'untested')),
    CONSTRAINT fk_api_keys_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id);
CREATE UNIQUE INDEX uq_api_keys_default ON api_keys (user_id) WHERE is_default;

CREATE TABLE data_sets (
    id UUID NOT NULL,
    user_id UUID,
    asset VARCHAR NOT NULL,
    timeframe VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    content_sha256 VARCHAR NOT NULL,
    first_open_time TIMESTAMP WITH TIME ZONE,
    last_open_time TIMESTAMP WITH TIME ZONE,
    candle_count INTEGER DEFAULT 0 NOT NULL,
    gaps INTEGER DEFAULT 0 NOT NULL,
    covered TSTZMULTIRANGE DEFAULT '{}'::tstzmultirange NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_data_sets PRIMARY KEY (id),
    CONSTRAINT fk_data_sets_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX ix_data_sets_asset_timeframe ON data_sets (asset, timeframe);
CREATE UNIQUE INDEX uq_data_sets_content ON data_sets (user_id, asset, timeframe, source,
        content_sha256) NULLS NOT DISTINCT;

CREATE TABLE idempotency_keys (
    user_id UUID NOT NULL,
    key VARCHAR NOT NULL,
    request_hash VARCHAR NOT NULL,
    status_code INTEGER,
    response JSONB,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (user_id, key),
    CONSTRAINT fk_idempotency_keys_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE
);
CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE user_settings (
    user_id UUID NOT NULL,
    theme VARCHAR DEFAULT 'dark' NOT NULL,
    accent_color VARCHAR DEFAULT 'cyan' NOT NULL,
    sidebar_collapsed BOOLEAN DEFAULT false NOT NULL,
    chart_grid_lines BOOLEAN DEFAULT true NOT NULL,
    chart_crosshair BOOLEAN DEFAULT true NOT NULL,
    chart_candle_colors VARCHAR DEFAULT 'green-red' NOT NULL,
    email_notifications JSONB NOT NULL,
    inapp_notifications JSONB NOT NULL,
    default_asset VARCHAR DEFAULT 'BTC/USDT' NOT NULL,
    default_timeframe VARCHAR DEFAULT '1h' NOT NULL,
    default_capital NUMERIC DEFAULT 10000 NOT NULL,
    default_playback_speed VARCHAR DEFAULT 'normal' NOT NULL,
    safety_mode_default BOOLEAN DEFAULT true NOT NULL,
    allow_leverage_default BOOLEAN DEFAULT false NOT NULL,
    max_position_size_pct NUMERIC(12, 6) DEFAULT 50 NOT NULL,
    max_leverage INTEGER DEFAULT 5 NOT NULL,
    max_loss_per_trade_pct NUMERIC(12, 6) DEFAULT 5 NOT NULL,
    max_daily_loss_pct NUMERIC(12, 6) DEFAULT 10 NOT NULL,
    max_total_drawdown_pct NUMERIC(12, 6) DEFAULT 20 NOT NULL,
    id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_user_settings PRIMARY KEY (id),
    CONSTRAINT ck_user_settings_theme CHECK (theme IN ('dark', 'light', 'system')),
    CONSTRAINT ck_user_settings_accent_color CHECK (accent_color IN ('cyan', 'purple', 'green',
        'amber')),
    CONSTRAINT ck_user_settings_default_playback_speed CHECK (default_playback_speed IN ('slow',
        'normal', 'fast', 'instant')),
    CONSTRAINT ck_user_settings_max_position_size_pct CHECK (max_position_size_pct BETWEEN 1
        AND 100),
    CONSTRAINT ck_user_settings_max_leverage CHECK (max_leverage BETWEEN 1 AND 10),
    CONSTRAINT ck_user_settings_max_loss_per_trade_pct
        CHECK (max_loss_per_trade_pct BETWEEN 0 AND 100),
    CONSTRAINT ck_user_settings_max_daily_loss_pct CHECK (max_daily_loss_pct BETWEEN 0 AND 100),
    CONSTRAINT ck_user_settings_max_total_drawdown_pct
        CHECK (max_total_drawdown_pct BETWEEN 0 AND 100),
    CONSTRAINT uq_user_settings_user_id UNIQUE (user_id),
    CONSTRAINT fk_user_settings_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE
);

CREATE TABLE agents (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    api_key_id UUID,
    name VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    current_version INTEGER DEFAULT 1 NOT NULL,
    is_archived BOOLEAN DEFAULT false NOT NULL,
    tests_run INTEGER DEFAULT 0 NOT NULL,
    best_pnl NUMERIC(12, 6),
    total_profitable_tests INTEGER DEFAULT 0 NOT NULL,
    avg_win_rate NUMERIC(12, 6),
    avg_drawdown NUMERIC(12, 6),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_agents PRIMARY KEY (id),
    CONSTRAINT ck_agents_mode CHECK (mode IN ('monk', 'omni')),
    CONSTRAINT fk_agents_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT fk_agents_api_key_id FOREIGN KEY(api_key_id) REFERENCES api_keys (id)
        ON DELETE SET NULL
);
CREATE INDEX ix_agents_api_key_id ON agents (api_key_id);
CREATE INDEX ix_agents_user_id_created_at ON agents (user_id, created_at);
CREATE UNIQUE INDEX uq_agents_name_living ON agents (user_id, name) WHERE NOT is_archived;

CREATE TABLE candles (
    data_set_id UUID NOT NULL,
    open_time TIMESTAMP WITH TIME ZONE NOT NULL,
    open NUMERIC NOT NULL,
    high NUMERIC NOT NULL,
    low NUMERIC NOT NULL,
    close NUMERIC NOT NULL,
    volume NUMERIC NOT NULL,
    CONSTRAINT pk_candles PRIMARY KEY (data_set_id, open_time),
    CONSTRAINT ck_candles_prices CHECK (low > 0 AND low <= least(open, close)
        AND high >= greatest(open, close) AND high < 'Infinity'),
    CONSTRAINT ck_candles_volume CHECK (volume >= 0 AND volume < 'Infinity'),
    CONSTRAINT fk_candles_data_set_id FOREIGN KEY(data_set_id) REFERENCES data_sets (id)
        ON DELETE CASCADE
);

CREATE TABLE webhook_deliveries (
    svix_id VARCHAR NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (svix_id)
);
CREATE INDEX ix_webhook_deliveries_received_at ON webhook_deliveries (received_at);

CREATE TABLE watch_candles (
    source VARCHAR NOT NULL,
    asset VARCHAR NOT NULL,
    minute TIMESTAMP WITH TIME ZONE NOT NULL,
    open NUMERIC NOT NULL,
    high NUMERIC NOT NULL,
    low NUMERIC NOT NULL,
    close NUMERIC NOT NULL,
    CONSTRAINT pk_watch_candles PRIMARY KEY (source, asset, minute),
    CONSTRAINT ck_watch_candles_prices CHECK (low > 0 AND low <= least(open, close)
        AND high >= greatest(open, close) AND high < 'Infinity')
);

CREATE TABLE agent_versions (
    id UUID NOT NULL,
    agent_id UUID NOT NULL,
    version INTEGER NOT NULL,
    mode VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    indicators TEXT[] NOT NULL,
    custom_indicators JSONB DEFAULT '[]' NOT NULL,
    strategy_prompt VARCHAR NOT NULL,
    content_hash VARCHAR NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_agent_versions PRIMARY KEY (id),
    CONSTRAINT ck_agent_versions_mode CHECK (mode IN ('monk', 'omni')),
    CONSTRAINT uq_agent_versions_agent_id_version UNIQUE (agent_id, version),
    CONSTRAINT fk_agent_versions_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
        ON DELETE CASCADE
);

CREATE TABLE trading_sessions (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    agent_id UUID,
    agent_version_id UUID,
    agent_name VARCHAR NOT NULL,
    workflow_id VARCHAR NOT NULL,
    epoch INTEGER DEFAULT 0 NOT NULL,
    owner_run_id VARCHAR,
    cursor INTEGER DEFAULT 0 NOT NULL,
    last_seq BIGINT DEFAULT 0 NOT NULL,
    last_event_at TIMESTAMP WITH TIME ZONE,
    data_set_id UUID,
    data_source VARCHAR,
    data_fingerprint VARCHAR,
    rules JSONB NOT NULL,
    type VARCHAR NOT NULL,
    status VARCHAR DEFAULT 'configuring' NOT NULL,
    mode VARCHAR NOT NULL,
    asset VARCHAR NOT NULL,
    timeframe VARCHAR NOT NULL,
    starting_capital NUMERIC NOT NULL,
    safety_mode BOOLEAN DEFAULT true NOT NULL,
    allow_leverage BOOLEAN DEFAULT false NOT NULL,
    date_preset VARCHAR,
    start_date TIMESTAMP WITH TIME ZONE,
    end_date TIMESTAMP WITH TIME ZONE,
    playback_speed VARCHAR DEFAULT 'normal' NOT NULL,
    decision_mode VARCHAR DEFAULT 'every_candle' NOT NULL,
    decision_interval_candles INTEGER DEFAULT 1 NOT NULL,
    first_decision_candle INTEGER DEFAULT 0 NOT NULL,
    warm_up_candles INTEGER DEFAULT 0 NOT NULL,
    indicator_readiness_threshold NUMERIC(12, 6) DEFAULT 0 NOT NULL,
    fee_bps NUMERIC DEFAULT 10 NOT NULL,
    slippage_bps NUMERIC DEFAULT 5 NOT NULL,
    fill_timing VARCHAR DEFAULT 'next_open' NOT NULL,
    intrabar VARCHAR DEFAULT 'pessimistic' NOT NULL,
    blind BOOLEAN DEFAULT false NOT NULL,
    max_cost_usd NUMERIC,
    email_notifications BOOLEAN DEFAULT false NOT NULL,
    auto_stop_on_loss BOOLEAN DEFAULT false NOT NULL,
    auto_stop_loss_pct NUMERIC(12, 6),
    total_candles INTEGER DEFAULT 0 NOT NULL,
    current_candle INTEGER DEFAULT 0 NOT NULL,
    current_equity NUMERIC,
    current_pnl_pct NUMERIC(12, 6),
    max_drawdown_pct NUMERIC(12, 6),
    elapsed_seconds NUMERIC DEFAULT 0 NOT NULL,
    open_position JSONB,
    next_candle_at TIMESTAMP WITH TIME ZONE,
    missed_candles INTEGER DEFAULT 0 NOT NULL,
    paused_candles INTEGER DEFAULT 0 NOT NULL,
    late_decisions INTEGER DEFAULT 0 NOT NULL,
    invalid_replies INTEGER DEFAULT 0 NOT NULL,
    possibly_paid_twice INTEGER DEFAULT 0 NOT NULL,
    cost_usd NUMERIC DEFAULT 0 NOT NULL,
    tokens BIGINT DEFAULT 0 NOT NULL,
    pause_reason VARCHAR,
    stop_close_position BOOLEAN,
    end_reason VARCHAR,
    error JSONB,
    started_at TIMESTAMP WITH TIME ZONE,
    paused_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_trading_sessions PRIMARY KEY (id),
    CONSTRAINT ck_trading_sessions_type CHECK (type IN ('backtest', 'forward')),
    CONSTRAINT ck_trading_sessions_status CHECK (status IN ('configuring', 'initializing',
        'running', 'paused', 'completed', 'failed', 'stopped')),
    CONSTRAINT ck_trading_sessions_mode CHECK (mode IN ('monk', 'omni')),
    CONSTRAINT ck_trading_sessions_date_preset CHECK (date_preset IN ('7d', '30d', '90d', 'bull',
        'crash', 'custom')),
    CONSTRAINT ck_trading_sessions_playback_speed CHECK (playback_speed IN ('slow', 'normal',
        'fast', 'instant')),
    CONSTRAINT ck_trading_sessions_decision_mode CHECK (decision_mode IN ('every_candle',
        'every_n_candles')),
    CONSTRAINT ck_trading_sessions_fill_timing CHECK (fill_timing IN ('next_open', 'close')),
    CONSTRAINT ck_trading_sessions_intrabar CHECK (intrabar IN ('pessimistic', 'optimistic')),
    CONSTRAINT fk_trading_sessions_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_trading_sessions_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
        ON DELETE SET NULL,
    CONSTRAINT fk_trading_sessions_agent_version_id FOREIGN KEY(agent_version_id)
        REFERENCES agent_versions (id) ON DELETE SET NULL,
    CONSTRAINT uq_trading_sessions_workflow_id UNIQUE (workflow_id),
    CONSTRAINT fk_trading_sessions_data_set_id FOREIGN KEY(data_set_id)
        REFERENCES data_sets (id) ON DELETE SET NULL
);
CREATE INDEX ix_trading_sessions_agent_id ON trading_sessions (agent_id);
CREATE INDEX ix_trading_sessions_agent_version_id ON trading_sessions (agent_version_id);
CREATE INDEX ix_trading_sessions_data_set_id ON trading_sessions (data_set_id);
CREATE INDEX ix_trading_sessions_live ON trading_sessions (status) WHERE status
        IN ('initializing', 'running', 'paused');
CREATE INDEX ix_trading_sessions_holding ON trading_sessions (asset) WHERE open_position IS NOT NULL
        AND status IN ('running', 'paused');
CREATE INDEX ix_trading_sessions_user_id_status ON trading_sessions (user_id, status);

CREATE TABLE decisions (
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    candle_number INTEGER NOT NULL,
    timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    candle_data JSONB NOT NULL,
    indicator_values JSONB NOT NULL,
    thought_type VARCHAR DEFAULT 'decision' NOT NULL,
    reasoning VARCHAR NOT NULL,
    decision VARCHAR NOT NULL,
    confidence NUMERIC(12, 6),
    order_data JSONB,
    overrides JSONB DEFAULT '[]' NOT NULL,
    trade_id UUID,
    prompt_hash VARCHAR NOT NULL,
    model_requested VARCHAR NOT NULL,
    model_used VARCHAR,
    tokens_prompt INTEGER DEFAULT 0 NOT NULL,
    tokens_completion INTEGER DEFAULT 0 NOT NULL,
    cost_usd NUMERIC DEFAULT 0 NOT NULL,
    latency_ms INTEGER,
    attempts INTEGER DEFAULT 1 NOT NULL,
    invalid_reply BOOLEAN DEFAULT false NOT NULL,
    live_price NUMERIC,
    late BOOLEAN DEFAULT false NOT NULL,
    prompt_text BYTEA,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_decisions PRIMARY KEY (id),
    CONSTRAINT uq_decisions_session_id_candle_number UNIQUE (session_id, candle_number),
    CONSTRAINT ck_decisions_thought_type CHECK (thought_type IN ('analysis', 'decision',
        'execution')),
    CONSTRAINT ck_decisions_decision CHECK (decision IN ('long', 'short', 'hold', 'close')),
    CONSTRAINT fk_decisions_session_id FOREIGN KEY(session_id)
        REFERENCES trading_sessions (id) ON DELETE CASCADE
);

CREATE TABLE model_calls (
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    candle_number INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    epoch INTEGER DEFAULT 0 NOT NULL,
    status VARCHAR DEFAULT 'started' NOT NULL,
    attempts INTEGER DEFAULT 1 NOT NULL,
    request_hash VARCHAR,
    raw_reply VARCHAR,
    usage JSONB,
    cost_usd NUMERIC,
    generation_id VARCHAR,
    model_used VARCHAR,
    latency_ms INTEGER,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_model_calls PRIMARY KEY (id),
    CONSTRAINT uq_model_calls_session_id_candle_number_call_no UNIQUE (session_id, candle_number,
        call_no),
    CONSTRAINT ck_model_calls_status CHECK (status IN ('started', 'refused', 'done')),
    CONSTRAINT fk_model_calls_session_id FOREIGN KEY(session_id)
        REFERENCES trading_sessions (id) ON DELETE CASCADE
);

CREATE TABLE steps (
    session_id UUID NOT NULL,
    candle_number INTEGER NOT NULL,
    phase VARCHAR NOT NULL,
    ordinal INTEGER DEFAULT 0 NOT NULL,
    control_id VARCHAR,
    open_time TIMESTAMP WITH TIME ZONE,
    equity NUMERIC,
    drawdown NUMERIC,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    happened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stats JSONB,
    events JSONB DEFAULT '[]' NOT NULL,
    state JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_steps PRIMARY KEY (session_id, candle_number, phase, ordinal),
    CONSTRAINT ck_steps_phase CHECK (phase IN ('step', 'decision', 'control')),
    CONSTRAINT fk_steps_session_id FOREIGN KEY(session_id) REFERENCES trading_sessions (id)
        ON DELETE CASCADE
);
CREATE UNIQUE INDEX uq_steps_session_id_control_id ON steps (session_id,
        control_id) WHERE control_id IS NOT NULL;
CREATE UNIQUE INDEX uq_steps_session_id_last_seq ON steps (session_id, last_seq);

CREATE TABLE test_results (
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    user_id UUID NOT NULL,
    agent_id UUID,
    agent_version_id UUID,
    agent_name VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    asset VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    timeframe VARCHAR NOT NULL,
    start_date TIMESTAMP WITH TIME ZONE NOT NULL,
    end_date TIMESTAMP WITH TIME ZONE NOT NULL,
    duration_seconds NUMERIC NOT NULL,
    total_trades INTEGER NOT NULL,
    winning_trades INTEGER NOT NULL,
    losing_trades INTEGER NOT NULL,
    total_pnl_amount NUMERIC NOT NULL,
    total_pnl_pct NUMERIC(12, 6) NOT NULL,
    win_rate NUMERIC(12, 6),
    max_drawdown_pct NUMERIC(12, 6) NOT NULL,
    sharpe_ratio NUMERIC,
    profit_factor NUMERIC,
    starting_capital NUMERIC NOT NULL,
    ending_capital NUMERIC NOT NULL,
    avg_trade_pnl NUMERIC,
    best_trade_pnl NUMERIC,
    worst_trade_pnl NUMERIC,
    avg_holding_seconds NUMERIC,
    gross_pnl NUMERIC DEFAULT 0 NOT NULL,
    fees NUMERIC DEFAULT 0 NOT NULL,
    slippage_cost NUMERIC DEFAULT 0 NOT NULL,
    cost_usd NUMERIC DEFAULT 0 NOT NULL,
    tokens BIGINT DEFAULT 0 NOT NULL,
    metrics JSONB NOT NULL,
    config JSONB NOT NULL,
    equity_curve JSONB NOT NULL,
    buy_and_hold_curve JSONB DEFAULT '[]' NOT NULL,
    total_candles INTEGER DEFAULT 0 NOT NULL,
    gaps INTEGER DEFAULT 0 NOT NULL,
    ambiguous_candles INTEGER DEFAULT 0 NOT NULL,
    optimistic_pnl_pct NUMERIC(12, 6),
    missed_candles INTEGER DEFAULT 0 NOT NULL,
    paused_candles INTEGER DEFAULT 0 NOT NULL,
    late_decisions INTEGER DEFAULT 0 NOT NULL,
    invalid_replies INTEGER DEFAULT 0 NOT NULL,
    possibly_paid_twice INTEGER DEFAULT 0 NOT NULL,
    blind BOOLEAN DEFAULT false NOT NULL,
    low_sample BOOLEAN DEFAULT false NOT NULL,
    open_position_at_end BOOLEAN DEFAULT false NOT NULL,
    end_reason VARCHAR,
    ai_summary VARCHAR,
    data_source VARCHAR,
    data_fingerprint VARCHAR,
    is_profitable BOOLEAN GENERATED ALWAYS AS (total_pnl_pct >= 0
        AND total_trades > 0) STORED NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_test_results PRIMARY KEY (id),
    CONSTRAINT ck_test_results_type CHECK (type IN ('backtest', 'forward')),
    CONSTRAINT ck_test_results_mode CHECK (mode IN ('monk', 'omni')),
    CONSTRAINT ck_test_results_max_drawdown_pct CHECK (max_drawdown_pct >= 0),
    CONSTRAINT uq_test_results_session_id UNIQUE (session_id),
    CONSTRAINT fk_test_results_session_id FOREIGN KEY(session_id)
        REFERENCES trading_sessions (id),
    CONSTRAINT fk_test_results_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_test_results_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
        ON DELETE SET NULL,
    CONSTRAINT fk_test_results_agent_version_id FOREIGN KEY(agent_version_id)
        REFERENCES agent_versions (id) ON DELETE SET NULL
);
CREATE INDEX ix_test_results_agent_id_created_at ON test_results (agent_id, created_at);
CREATE INDEX ix_test_results_agent_version_id ON test_results (agent_version_id);
CREATE INDEX ix_test_results_user_id_created_at ON test_results (user_id, created_at, id);

CREATE TABLE trades (
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    trade_number INTEGER NOT NULL,
    type VARCHAR NOT NULL,
    entry_price NUMERIC NOT NULL,
    entry_time TIMESTAMP WITH TIME ZONE NOT NULL,
    entry_candle INTEGER NOT NULL,
    decided_candle INTEGER NOT NULL,
    entry_reasoning VARCHAR,
    exit_price NUMERIC,
    exit_time TIMESTAMP WITH TIME ZONE,
    exit_candle INTEGER,
    exit_decided_candle INTEGER,
    exit_type VARCHAR,
    exit_reasoning VARCHAR,
    size NUMERIC NOT NULL,
    leverage NUMERIC DEFAULT 1 NOT NULL,
    margin NUMERIC NOT NULL,
    fees NUMERIC DEFAULT 0 NOT NULL,
    slippage_cost NUMERIC DEFAULT 0 NOT NULL,
    gross_pnl NUMERIC,
    pnl_amount NUMERIC,
    pnl_pct NUMERIC(12, 6),
    stop_loss NUMERIC,
    take_profit NUMERIC,
    liquidation_price NUMERIC,
    ambiguous BOOLEAN DEFAULT false NOT NULL,
    overrides JSONB DEFAULT '[]' NOT NULL,
    sighting JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_trades PRIMARY KEY (id),
    CONSTRAINT uq_trades_session_id_trade_number UNIQUE (session_id, trade_number),
    CONSTRAINT ck_trades_type CHECK (type IN ('long', 'short')),
    CONSTRAINT ck_trades_exit_type CHECK (exit_type IN ('take_profit', 'stop_loss', 'signal',
        'manual', 'liquidation', 'guard', 'end_of_test')),
    CONSTRAINT fk_trades_session_id FOREIGN KEY(session_id) REFERENCES trading_sessions (id)
        ON DELETE CASCADE
);

CREATE TABLE activity_log (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    activity_type VARCHAR NOT NULL,
    agent_id UUID,
    agent_name VARCHAR,
    session_id UUID,
    result_id UUID,
    description VARCHAR NOT NULL,
    pnl NUMERIC(12, 6),
    metadata JSONB DEFAULT '{}' NOT NULL,
    dedup_key VARCHAR,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_activity_log PRIMARY KEY (id),
    CONSTRAINT ck_activity_log_activity_type CHECK (activity_type IN ('test_started',
        'test_completed', 'test_failed', 'agent_created', 'agent_updated', 'agent_deleted',
        'certificate_generated')),
    CONSTRAINT fk_activity_log_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_activity_log_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
        ON DELETE SET NULL,
    CONSTRAINT fk_activity_log_session_id FOREIGN KEY(session_id)
        REFERENCES trading_sessions (id) ON DELETE CASCADE,
    CONSTRAINT fk_activity_log_result_id FOREIGN KEY(result_id) REFERENCES test_results (id)
        ON DELETE CASCADE
);
CREATE INDEX ix_activity_log_agent_id ON activity_log (agent_id);
CREATE INDEX ix_activity_log_result_id ON activity_log (result_id);
CREATE INDEX ix_activity_log_session_id ON activity_log (session_id);
CREATE INDEX ix_activity_log_user_id_created_at ON activity_log (user_id, created_at);
CREATE UNIQUE INDEX uq_activity_log_dedup ON activity_log (user_id, activity_type, session_id,
        dedup_key) NULLS NOT DISTINCT WHERE dedup_key IS NOT NULL;

CREATE TABLE notifications (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    type VARCHAR NOT NULL,
    category VARCHAR NOT NULL,
    title VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    action_url VARCHAR,
    session_id UUID,
    result_id UUID,
    is_read BOOLEAN DEFAULT false NOT NULL,
    read_at TIMESTAMP WITH TIME ZONE,
    cleared_at TIMESTAMP WITH TIME ZONE,
    email_state VARCHAR,
    emailed_at TIMESTAMP WITH TIME ZONE,
    dedup_key VARCHAR,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_notifications PRIMARY KEY (id),
    CONSTRAINT ck_notifications_type CHECK (type IN ('info', 'success', 'warning', 'error')),
    CONSTRAINT ck_notifications_email_state CHECK (email_state IN ('sending', 'sent', 'not_sent',
        'refused')),
    CONSTRAINT fk_notifications_user_id FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_notifications_session_id FOREIGN KEY(session_id)
        REFERENCES trading_sessions (id) ON DELETE CASCADE,
    CONSTRAINT fk_notifications_result_id FOREIGN KEY(result_id) REFERENCES test_results (id)
        ON DELETE CASCADE
);
CREATE INDEX ix_notifications_result_id ON notifications (result_id);
CREATE INDEX ix_notifications_session_id ON notifications (session_id);
CREATE INDEX ix_notifications_unread ON notifications (user_id) WHERE NOT is_read
        AND cleared_at IS NULL;
CREATE INDEX ix_notifications_user_id_created_at ON notifications (user_id, created_at);
CREATE UNIQUE INDEX uq_notifications_dedup ON notifications (user_id, category, session_id,
        dedup_key) NULLS NOT DISTINCT WHERE dedup_key IS NOT NULL;
"""

# Rewritten at every candle: room in each page lets an update stay within it, without index work.
STORAGE = "ALTER TABLE trading_sessions SET (fillfactor = 70)"

TOUCH = """
CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END $$
"""

TOUCHED = (
    "users",
    "user_settings",
    "api_keys",
    "agents",
    "trading_sessions",
    "trades",
    "model_calls",
    "data_sets",
)

AGENT_REFERENCES = {"api_key_id": "api_keys"}
SESSION_REFERENCES = {
    "agent_id": "agents",
    "agent_version_id": "agent_versions",
    "data_set_id": "data_sets",
}
RESULT_REFERENCES = {
    "session_id": "trading_sessions",
    "agent_id": "agents",
    "agent_version_id": "agent_versions",
}
NOTICE_REFERENCES = {"session_id": "trading_sessions", "result_id": "test_results"}
ACTIVITY_REFERENCES = {**NOTICE_REFERENCES, "agent_id": "agents"}

# The plan, the activity flag and the identity of a user are the system's to change.
USER_GRANTS = (
    "SELECT, UPDATE (email, first_name, last_name, username, image_url, timezone, updated_at)"
)
APPEND_ONLY = "SELECT, INSERT"


def upgrade() -> None:
    connection = op.get_bind()
    for statement in (TABLES, STORAGE, TOUCH, *touch_updated_at(TOUCHED), *_security()):
        connection.exec_driver_sql(statement)


def _security() -> list[str]:
    return [*_users_security(), *_market_security(), *_session_security()]


def _users_security() -> list[str]:
    return [
        *protect("users", reads=own("id"), grants=USER_GRANTS),
        *protect("user_settings", reads=own()),
        *protect("api_keys", reads=own()),
        *protect("agents", reads=own(), references=AGENT_REFERENCES),
        *protect("agent_versions", reads=child_of("agents", "agent_id"), grants=APPEND_ONLY),
        *protect("idempotency_keys", reads=own()),
        *protect("notifications", reads=own(), references=NOTICE_REFERENCES),
        *protect("activity_log", reads=own(), references=ACTIVITY_REFERENCES),
        *reserve("webhook_deliveries"),
    ]


def _market_security() -> list[str]:
    readable = child_of("data_sets", "data_set_id", also="parent.user_id IS NULL")
    return [
        *protect(
            "data_sets",
            reads=f"{own()} OR user_id IS NULL",
            writes=own(),
            grants="SELECT, INSERT, DELETE",
        ),
        *protect(
            "candles",
            reads=readable,
            writes=child_of("data_sets", "data_set_id"),
            grants=APPEND_ONLY,
        ),
        *reserve("watch_candles"),
    ]


def _session_security() -> list[str]:
    mine = child_of("trading_sessions", "session_id")
    return [
        *protect("trading_sessions", reads=own(), references=SESSION_REFERENCES),
        *protect("test_results", reads=own(), references=RESULT_REFERENCES),
        *protect("trades", reads=mine),
        *protect("decisions", reads=mine),
        *protect("model_calls", reads=mine),
        *protect("steps", reads=mine),
    ]


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first migration: drop the database")
