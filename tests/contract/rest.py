"""What the contract's REST page promises of each call, written from that page.

Keys are `METHOD /path` with `{}` for each parameter. Calls that the page names and this server does
not have yet are here as well, and in `NOT_YET`.
"""

from dataclasses import dataclass

from tests.contract.words import (
    ANYTHING,
    COUNT,
    EPOCH_MS,
    FLAG,
    ID,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    Schema,
    a_list,
    a_map,
    also,
    ascending,
    at_most,
    maybe,
    obj,
    one_of,
    without,
)


@dataclass(frozen=True, slots=True)
class Promise:
    """The answer to a call that goes well; a schema of None is an answer that is no JSON.

    `unfinished` is what a 202 says where another status is the rule.
    """

    schema: Schema | None
    statuses: tuple[int, ...] = (200,)
    unfinished: Schema | None = None

    def schema_of(self, status: int) -> Schema | None:
        return self.schema if status != 202 or self.unfinished is None else self.unfinished


ERROR = also(
    obj(detail=TEXT, error_code={"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$"}),
    status_code={"type": "integer", "minimum": 400, "maximum": 599},
    request_id=TEXT,
)
INVALID = also(ERROR, errors=a_list(obj(loc=a_list(ANYTHING), msg=TEXT)))
MESSAGE = obj(message=TEXT)
REACHABILITY = one_of("ok", "down")
PAGINATION = obj(page=COUNT, limit=COUNT, total=COUNT, total_pages=COUNT)

USER = obj(
    id=ID,
    clerk_id=TEXT,
    email=maybe(TEXT),
    first_name=maybe(TEXT),
    last_name=maybe(TEXT),
    username=maybe(TEXT),
    image_url=maybe(TEXT),
    timezone=TEXT,
    plan=TEXT,
    created_at=TIME,
)
SETTINGS = obj(
    theme=one_of("dark", "light", "system"),
    accent_color=one_of("cyan", "purple", "green", "amber"),
    sidebar_collapsed=FLAG,
    chart_grid_lines=FLAG,
    chart_crosshair=FLAG,
    chart_candle_colors=ANYTHING,
    email_notifications=obj(
        test_completed=FLAG,
        trade_executed=FLAG,
        daily_summary=FLAG,
        stop_loss_hit=FLAG,
        marketing=FLAG,
    ),
    inapp_notifications=obj(show_toasts=FLAG, sound_effects=FLAG, desktop_notifications=FLAG),
    default_asset=TEXT,
    default_timeframe=TEXT,
    default_capital=NUMBER,
    default_playback_speed=TEXT,
    safety_mode_default=FLAG,
    allow_leverage_default=FLAG,
    max_position_size_pct={"type": "number", "minimum": 1, "maximum": 100},
    max_leverage={"type": "number", "minimum": 1, "maximum": 10},
    max_loss_per_trade_pct=maybe(NUMBER),
    max_daily_loss_pct=maybe(NUMBER),
    max_total_drawdown_pct=maybe(NUMBER),
)
KEY = obj(
    id=ID,
    provider=TEXT,
    label=maybe(TEXT),
    key_prefix={"type": "string", "pattern": "^sk-or-v1-•+$"},
    is_default=FLAG,
    status=one_of("valid", "invalid", "untested"),
    last_used_at=maybe(TIME),
    last_validated_at=maybe(TIME),
    used_by=a_list(TEXT),
    created_at=TIME,
)
AGENT = obj(
    id=ID,
    name=TEXT,
    mode=one_of("monk", "omni"),
    model=TEXT,
    api_key_id=maybe(ID),
    api_key_masked=maybe(TEXT),
    indicators=a_list(TEXT),
    custom_indicators=a_list(obj(name=TEXT, formula=TEXT)),
    strategy_prompt=TEXT,
    version=COUNT,
    tests_run=COUNT,
    best_pnl=maybe(NUMBER),
    total_profitable_tests=COUNT,
    avg_win_rate=maybe(NUMBER),
    avg_drawdown=maybe(NUMBER),
    is_archived=FLAG,
    created_at=TIME,
    updated_at=TIME,
)
AGENT_ANSWER = obj(agent=AGENT, message=TEXT)
MODEL = obj(
    id=TEXT,
    name=TEXT,
    provider=TEXT,
    description=maybe(TEXT),
    context_window=maybe(COUNT),
    capabilities=a_list(TEXT),
    tags=a_list(TEXT),
    is_multimodal=FLAG,
    is_free=FLAG,
    structured_data=FLAG,
    price_prompt=maybe(NUMBER),
    price_completion=maybe(NUMBER),
)
AGENT_STATS = obj(
    total_tests=COUNT,
    profitable_tests=COUNT,
    profit_rate=maybe(NUMBER),
    best_pnl=maybe(NUMBER),
    worst_pnl=maybe(NUMBER),
    avg_pnl=maybe(NUMBER),
    avg_win_rate=maybe(NUMBER),
    avg_drawdown=maybe(NUMBER),
    total_trades=COUNT,
    best_sharpe=maybe(NUMBER),
    total_cost_usd=NUMBER,
    performance_by_asset=a_map(obj(tests=COUNT, avg_pnl=maybe(NUMBER))),
    by_version=a_list(
        obj(
            version={"type": "integer", "minimum": 1},
            tests_run=COUNT,
            profitable_tests=COUNT,
            best_pnl=maybe(NUMBER),
            avg_pnl=maybe(NUMBER),
        )
    ),
)

STATUS = one_of("initializing", "running", "paused", "completed", "failed")
SPEED = one_of("slow", "normal", "fast", "instant")
PREVIEW = obj(timestamp=TIME, open=NUMBER, high=NUMBER, low=NUMBER, close=NUMBER, volume=NUMBER)
STARTED = obj(
    id=ID,
    status=STATUS,
    agent_id=ID,
    agent_name=TEXT,
    asset={"type": "string", "pattern": "^[A-Z0-9]+/[A-Z0-9]+$"},
    timeframe=TEXT,
    total_candles=COUNT,
    start_date=maybe(TIME),
    end_date=maybe(TIME),
    date_preset=maybe(TEXT),
    playback_speed=SPEED,
    decision_mode=one_of("every_candle", "every_n_candles"),
    websocket_url={"type": "string", "pattern": "^wss?://.*/ws/backtest/"},
    workflow_id=TEXT,
    preview_candles=at_most(500, PREVIEW),
    estimated_cost_usd=maybe(NUMBER),
)
STARTED_FORWARD = obj(
    id=ID,
    status=one_of("running"),
    agent_id=ID,
    agent_name=TEXT,
    asset=TEXT,
    timeframe=TEXT,
    websocket_url={"type": "string", "pattern": "^wss?://.*/ws/forward/"},
)
HELD = obj(
    type=one_of("long", "short"),
    entry_price=NUMBER,
    size=NUMBER,
    leverage=NUMBER,
    stop_loss=maybe(NUMBER),
    take_profit=maybe(NUMBER),
    unrealized_pnl=NUMBER,
    opened_at=TIME,
)
SESSION = obj(
    id=ID,
    type=one_of("backtest", "forward"),
    status=STATUS,
    agent_id=maybe(ID),
    agent_name=TEXT,
    asset=TEXT,
    timeframe=TEXT,
    current_candle=COUNT,
    total_candles=COUNT,
    progress_pct={"type": "number", "minimum": 0, "maximum": 100},
    elapsed_seconds=NUMBER,
    end_reason=maybe(TEXT),
    current_equity=maybe(NUMBER),
    current_pnl_pct=maybe(NUMBER),
    max_drawdown_pct=maybe({"type": "number", "maximum": 0}),
    trades_count=COUNT,
    win_rate=maybe(NUMBER),
    open_position=maybe(HELD),
    decisions_count=COUNT,
    cost_usd=NUMBER,
    tokens=COUNT,
    started_at=maybe(TIME),
    paused_at=maybe(TIME),
    completed_at=maybe(TIME),
    result_id=maybe(ID),
    error=maybe(OBJECT),
)
FORWARD_SESSION = also(
    SESSION,
    next_candle_at=maybe(TIME),
    next_candle_eta=maybe(NUMBER),
    missed_candles=COUNT,
    uptime_pct=maybe(NUMBER),
)
ACTIVE = obj(
    sessions=a_list(
        obj(
            id=ID,
            agent_id=maybe(ID),
            agent_name=TEXT,
            asset=TEXT,
            status=STATUS,
            started_at=maybe(TIME),
            duration_display=TEXT,
            current_pnl_pct=maybe(NUMBER),
            trades_count=COUNT,
            win_rate=maybe(NUMBER),
        )
    )
)
PAUSED = obj(session_id=ID, status=one_of("paused"), paused_at=TIME)
RESUMED = obj(session_id=ID, status=one_of("running"))
STOPPED = obj(session_id=ID, status=one_of("completed"), result_id=ID, final_pnl=NUMBER)
# The contract has no word for a status before the result is there; the test still runs.
STOPPING = obj(
    session_id=ID, status=one_of("running"), result_id=one_of(None), final_pnl=one_of(None)
)

MAGNITUDE = {"type": "number", "minimum": 0}
SHARE_PCT = {"type": "number", "minimum": 0, "maximum": 100}
RESULT = obj(
    id=ID,
    type=one_of("backtest", "forward"),
    agent_id=maybe(ID),
    agent_name=TEXT,
    asset=TEXT,
    mode=one_of("monk", "omni"),
    timeframe=TEXT,
    created_at=TIME,
    duration_display=TEXT,
    total_trades=COUNT,
    total_pnl_pct=NUMBER,
    win_rate=maybe(NUMBER),
    max_drawdown_pct=MAGNITUDE,
    sharpe_ratio=maybe(NUMBER),
    profit_factor=maybe(NUMBER),
    is_profitable=FLAG,
    has_certificate=FLAG,
)
POINT = obj(time=EPOCH_MS, value=NUMBER, drawdown=NUMBER)
RESULT_DETAIL = also(
    RESULT,
    session_id=ID,
    model=TEXT,
    start_date=maybe(TIME),
    end_date=maybe(TIME),
    starting_capital=NUMBER,
    ending_capital=NUMBER,
    total_pnl_amount=NUMBER,
    winning_trades=COUNT,
    losing_trades=COUNT,
    avg_trade_pnl=maybe(NUMBER),
    best_trade_pnl=maybe(NUMBER),
    worst_trade_pnl=maybe(NUMBER),
    avg_holding_time_display=maybe(TEXT),
    costs=obj(fees=NUMBER, slippage=NUMBER, model_usd=maybe(NUMBER), gross_pnl=maybe(NUMBER)),
    config=OBJECT,
    equity_curve={**ascending(POINT, "time"), "maxItems": 1_000},
    buy_and_hold_curve=ascending(obj(time=EPOCH_MS, value=NUMBER), "time"),
    ambiguous_candles=COUNT,
    optimistic_pnl_pct=maybe(NUMBER),
    missed_candles=COUNT,
    blind=FLAG,
    ai_summary=maybe(TEXT),
    data_fingerprint=maybe(TEXT),
    open_position_at_end=FLAG,
    # Trading rules §8 define these and leave their names to the OpenAPI document.
    total_return_pct=maybe(NUMBER),
    cagr_pct=maybe(NUMBER),
    sortino_ratio=maybe(NUMBER),
    calmar_ratio=maybe(NUMBER),
    volatility_pct=maybe(MAGNITUDE),
    expectancy=maybe(NUMBER),
    sqn=maybe(NUMBER),
    kelly_pct=maybe(NUMBER),
    exposure_pct=maybe(SHARE_PCT),
    longest_drawdown_seconds=maybe(MAGNITUDE),
    buy_and_hold_return_pct=maybe(NUMBER),
    excess_return_pct=maybe(NUMBER),
    probabilistic_sharpe_pct=maybe(SHARE_PCT),
    daily_returns=COUNT,
    low_sample=FLAG,
)
TRADE = obj(
    id=ID,
    trade_number={"type": "integer", "minimum": 1},
    type=one_of("long", "short"),
    entry_price=NUMBER,
    entry_time=TIME,
    entry_candle=COUNT,
    exit_price=maybe(NUMBER),
    exit_time=maybe(TIME),
    exit_candle=maybe(COUNT),
    exit_type=maybe(TEXT),
    size=NUMBER,
    leverage=NUMBER,
    pnl_amount=maybe(NUMBER),
    pnl_pct=maybe(NUMBER),
    fees=NUMBER,
    duration_display=maybe(TEXT),
    stop_loss=maybe(NUMBER),
    take_profit=maybe(NUMBER),
    entry_reasoning=maybe(TEXT),
    exit_reasoning=maybe(TEXT),
)
THOUGHT = obj(
    ("indicators", "indicator_values"),
    id=ID,
    candle_number=COUNT,
    timestamp=TIME,
    candle_data=OBJECT,
    indicators=a_map(maybe(NUMBER)),
    indicator_values=OBJECT,
    thought_type=one_of("analysis", "decision", "execution"),
    reasoning=TEXT,
    decision=maybe(TEXT),
    confidence=maybe(NUMBER),
    order_data=maybe(OBJECT),
    trade_id=maybe(ID),
    model=maybe(TEXT),
    tokens=maybe(COUNT),
    cost_usd=maybe(NUMBER),
    latency_ms=maybe(NUMBER),
)
BY_TYPE = obj(count=COUNT, profitable=COUNT)
RESULTS_STATS = obj(
    total_tests=COUNT,
    profitable=COUNT,
    profitable_pct=maybe(NUMBER),
    best_result=maybe(NUMBER),
    worst_result=maybe(NUMBER),
    avg_pnl=maybe(NUMBER),
    by_type=obj(backtest=BY_TYPE, forward=BY_TYPE),
)
CERTIFICATE = obj(
    id=ID,
    result_id=ID,
    verification_code={"type": "string", "pattern": r"^ALX-\d{4}-\d{4}-[0-9A-Z]+$"},
    share_url=TEXT,
    pdf_url=TEXT,
    image_url=TEXT,
    qr_code_url=TEXT,
    agent_name=TEXT,
    model=TEXT,
    mode=TEXT,
    test_type=TEXT,
    asset=TEXT,
    pnl_pct=NUMBER,
    win_rate=maybe(NUMBER),
    total_trades=COUNT,
    max_drawdown_pct=MAGNITUDE,
    sharpe_ratio=maybe(NUMBER),
    duration_display=TEXT,
    test_period=TEXT,
    view_count=COUNT,
    issued_at=TIME,
    created_at=TIME,
)
# The contract has no word for one that is not there yet; the same call finds it later.
CERTIFYING = obj(
    status=one_of("processing"), result_id=ID, id=one_of(None), certificate=one_of(None)
)
CERTIFICATE_ANSWER = also(CERTIFICATE, certificate=CERTIFICATE)

NOTIFICATION = obj(
    id=ID,
    type=one_of("info", "success", "warning", "error"),
    category=TEXT,
    title=TEXT,
    message=TEXT,
    action_url=maybe(TEXT),
    session_id=maybe(ID),
    result_id=maybe(ID),
    is_read=FLAG,
    read_at=maybe(TIME),
    created_at=TIME,
)
CANDLE = obj(time=EPOCH_MS, open=NUMBER, high=NUMBER, low=NUMBER, close=NUMBER, volume=NUMBER)
INDICATORS = obj(
    data={
        "type": "array",
        "ascending": "time",
        "items": {
            "type": "object",
            "required": ["time"],
            "properties": {"time": EPOCH_MS},
            "additionalProperties": maybe(NUMBER),
        },
    }
)
CATALOG_ENTRY = obj(id=TEXT, name=TEXT, values=a_list(TEXT), min_history=ANYTHING, params=ANYTHING)
EXPORT = obj(
    export_id=ID,
    status=one_of("processing", "ready", "failed", "expired"),
    download_url=maybe(TEXT),
)

CONTRACT = {
    "GET /api/health": Promise(
        obj(status=one_of("ok"), service=one_of("alphalab-api"), version=TEXT)
    ),
    "GET /api/ready": Promise(
        obj(
            database=REACHABILITY,
            redis=REACHABILITY,
            temporal=REACHABILITY,
            worker={"anyOf": [COUNT, one_of("down")]},
        ),
        (200, 503),
    ),
    "GET /metrics": Promise(None),
    "POST /api/webhooks/clerk": Promise(ANYTHING),
    "POST /api/users/sync": Promise(obj(message=one_of("User created", "User updated"), user=USER)),
    "GET /api/users/me": Promise(obj(user=USER)),
    "PUT /api/users/me": Promise(obj(user=USER)),
    "GET /api/users/me/settings": Promise(obj(settings=SETTINGS)),
    "PUT /api/users/me/settings": Promise(obj(settings=SETTINGS)),
    "GET /api/api-keys": Promise(obj(api_keys=a_list(KEY))),
    "POST /api/api-keys": Promise(obj(api_key=KEY), (201,)),
    "GET /api/api-keys/{}": Promise(obj(api_key=KEY)),
    "PUT /api/api-keys/{}": Promise(obj(api_key=KEY)),
    "POST /api/api-keys/{}/validate": Promise(obj(valid=FLAG, status=TEXT)),
    "POST /api/api-keys/{}/set-default": Promise(obj(api_key=KEY)),
    "DELETE /api/api-keys/{}": Promise(obj(message=TEXT, affected_agents=a_list(ID))),
    "GET /api/agents": Promise(obj(agents=a_list(AGENT), total=COUNT)),
    "POST /api/agents": Promise(AGENT_ANSWER),
    "GET /api/agents/{}": Promise(also(AGENT, agent=AGENT)),
    "PUT /api/agents/{}": Promise(obj(agent=AGENT)),
    "DELETE /api/agents/{}": Promise(obj(message=one_of("Agent archived", "Agent deleted"), id=ID)),
    "POST /api/agents/{}/duplicate": Promise(AGENT_ANSWER, (201,)),
    "POST /api/agents/{}/restore": Promise(AGENT_ANSWER),
    "GET /api/agents/{}/stats": Promise(obj(stats=AGENT_STATS)),
    "GET /api/agents/{}/versions": Promise(
        obj(
            versions=a_list(
                obj(
                    version=COUNT,
                    created_at=TIME,
                    changed=a_list(TEXT),
                    tests_run=COUNT,
                    avg_pnl=maybe(NUMBER),
                )
            )
        )
    ),
    "GET /api/models": Promise(a_list(MODEL)),
    "POST /api/arena/backtest/start": Promise(obj(session=STARTED, message=TEXT), (201,)),
    "GET /api/arena/backtest/active": Promise(ACTIVE),
    "GET /api/arena/backtest/{}": Promise(obj(session=SESSION)),
    "POST /api/arena/backtest/{}/pause": Promise(PAUSED),
    "POST /api/arena/backtest/{}/resume": Promise(RESUMED),
    "POST /api/arena/backtest/{}/speed": Promise(obj(session_id=ID, speed=SPEED)),
    "POST /api/arena/backtest/{}/stop": Promise(STOPPED, (200, 202), STOPPING),
    "POST /api/arena/forward/start": Promise(obj(session=STARTED_FORWARD, message=TEXT), (201,)),
    "GET /api/arena/forward/active": Promise(ACTIVE),
    "GET /api/arena/forward/{}": Promise(obj(session=FORWARD_SESSION)),
    "POST /api/arena/forward/{}/pause": Promise(PAUSED),
    "POST /api/arena/forward/{}/resume": Promise(RESUMED),
    "POST /api/arena/forward/{}/stop": Promise(
        also(STOPPED, position_closed=FLAG), (200, 202), also(STOPPING, position_closed=FLAG)
    ),
    "DELETE /api/arena/cleanup": Promise(
        obj(deleted_sessions=COUNT, stopped_in_memory=COUNT, message=TEXT, session_type=maybe(TEXT))
    ),
    "GET /api/results": Promise(obj(results=at_most(50, RESULT), pagination=PAGINATION)),
    "GET /api/results/stats": Promise(obj(stats=RESULTS_STATS)),
    "GET /api/results/{}": Promise(obj(result=RESULT_DETAIL)),
    "GET /api/results/{}/trades": Promise(
        obj(
            trades=at_most(500, TRADE),
            summary=obj(
                total=COUNT,
                wins=COUNT,
                losses=COUNT,
                avg_win=maybe(NUMBER),
                avg_loss=maybe(NUMBER),
            ),
            pagination=PAGINATION,
        )
    ),
    "GET /api/results/{}/reasoning": Promise(
        obj(
            ("reasoning", "thoughts"),
            reasoning=at_most(1_000, THOUGHT),
            thoughts=ANYTHING,
            total_entries=COUNT,
            pagination=PAGINATION,
        )
    ),
    "GET /api/results/{}/export": Promise(None),
    # Named by the trading rules, not by the REST page.
    "GET /api/results/{}/parity": Promise(obj(parity=obj(equal=FLAG, differences=a_list(OBJECT)))),
    "POST /api/certificates": Promise(CERTIFICATE_ANSWER, (200, 201), unfinished=CERTIFYING),
    "GET /api/certificates/{}": Promise(CERTIFICATE_ANSWER),
    "GET /api/certificates/{}/pdf": Promise(None),
    "GET /api/certificates/{}/image": Promise(None),
    "GET /api/certificates/verify/{}": Promise(
        obj(
            verified=FLAG,
            certificate=without(CERTIFICATE, "id", "result_id"),
            proof=obj(
                canonical_sha256=TEXT,
                signature=TEXT,
                public_key=TEXT,
                trace_sha256=TEXT,
                recomputed=FLAG,
            ),
        )
    ),
    # Additions: the code that leads to the page, and all that a certificate was made of.
    "GET /api/certificates/{}/qr": Promise(None),
    "GET /api/certificates/{}/bundle": Promise(None),
    "GET /api/certificates/verify/{}/bundle": Promise(None),
    "GET /verify/{}": Promise(None),
    "GET /.well-known/alphalab-certificate-key": Promise(ANYTHING),
    "GET /api/dashboard/stats": Promise(
        obj(
            stats=obj(
                total_agents=COUNT,
                tests_run=COUNT,
                best_pnl=maybe(NUMBER),
                avg_win_rate=maybe(NUMBER),
                trends=obj(
                    agents_this_week=COUNT, tests_today=COUNT, win_rate_change=maybe(NUMBER)
                ),
                best_agent=maybe(obj(id=ID, name=TEXT)),
            )
        )
    ),
    "GET /api/dashboard/activity": Promise(
        obj(
            activity=a_list(
                obj(
                    id=ID,
                    type=one_of(
                        *("test_started", "test_completed", "test_failed"),
                        *("agent_created", "agent_updated", "agent_deleted"),
                        "certificate_generated",
                    ),
                    agent_name=maybe(TEXT),
                    description=TEXT,
                    pnl=maybe(NUMBER),
                    result_id=maybe(ID),
                    session_id=maybe(ID),
                    action_url=maybe(TEXT),
                    timestamp=TIME,
                )
            )
        )
    ),
    "GET /api/dashboard/quick-start": Promise(
        obj(
            steps=a_list(
                obj(
                    id=one_of("create_agent", "run_backtest", "get_certificate"),
                    label=TEXT,
                    description=TEXT,
                    is_complete=FLAG,
                    href=TEXT,
                    cta_text=TEXT,
                )
            ),
            progress_pct=NUMBER,
        )
    ),
    "GET /api/notifications": Promise(
        obj(notifications=a_list(NOTIFICATION), total=COUNT, unread_count=COUNT)
    ),
    "GET /api/notifications/unread-count": Promise(obj(count=COUNT)),
    "POST /api/notifications/{}/read": Promise(also(NOTIFICATION, message=TEXT)),
    "POST /api/notifications/mark-all-read": Promise(obj(message=TEXT, count=COUNT)),
    "DELETE /api/notifications/clear": Promise(obj(message=TEXT, count=COUNT)),
    "GET /api/data/assets": Promise(
        obj(assets=a_list(obj(id=TEXT, name=TEXT, icon=maybe(TEXT), available=FLAG)))
    ),
    "GET /api/data/timeframes": Promise(
        obj(timeframes=a_list(obj(id=TEXT, name=TEXT, minutes=COUNT)))
    ),
    "GET /api/data/presets": Promise(
        obj(
            date_presets=a_list(
                obj(
                    id=one_of("7d", "30d", "90d", "bull", "crash", "custom"),
                    name=TEXT,
                    description=TEXT,
                    days=maybe(COUNT),
                    start_date=maybe(TEXT),
                    end_date=maybe(TEXT),
                )
            ),
            playback_speeds=a_list(obj(id=SPEED, name=TEXT, ms=COUNT)),
        )
    ),
    "GET /api/data/candles": Promise(
        obj(candles={**ascending(CANDLE, "time"), "maxItems": 5_000}, count=COUNT)
    ),
    "GET /api/data/indicators": Promise(INDICATORS),
    "POST /api/data/indicators": Promise(INDICATORS),
    "GET /api/data/indicators/catalog": Promise(
        {"type": "object", "minProperties": 1, "additionalProperties": a_list(CATALOG_ENTRY)}
    ),
    "POST /api/data/candles/import": Promise(OBJECT, (201,)),
    "POST /api/export": Promise(also(EXPORT, estimated_size_mb=maybe(NUMBER)), (202,)),
    "GET /api/export/{}": Promise(
        also(
            EXPORT,
            progress_pct=NUMBER,
            expires_at=maybe(TIME),
            size_mb=maybe(NUMBER),
            error=maybe(TEXT),
        )
    ),
    "GET /api/export/{}/download": Promise(None),
}

# Calls that the server does not have yet; whoever adds one takes it out, and it is walked.
NOT_YET: set[str] = set()

# Calls that need a signed link and no token; without one they say nothing of what is there.
SIGNED = {"GET /api/export/{}/download"}

# Pages for people, refusals included.
PAGES = {"GET /verify/{}"}

# Calls that need no token.
PUBLIC = {
    *SIGNED,
    *("GET /api/health", "GET /api/ready", "GET /metrics", "POST /api/webhooks/clerk"),
    *("GET /api/certificates/verify/{}", "GET /api/certificates/verify/{}/bundle"),
    *("GET /verify/{}", "GET /api/models"),
    "GET /.well-known/alphalab-certificate-key",
}
