"""Starting, watching and controlling tests."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import override

from api.schemas.base import Filters, Finite, RequestBody, Shape, Text
from api.wire import progress_pct
from db.models.sessions import SessionStatus
from events.durations import display_duration
from trading.candles import Timeframe, parse_asset
from workflows.messages import Progress
from workflows.policies import Speed

DatePreset = Literal["7d", "30d", "90d", "bull", "crash", "custom"]
PublicStatus = Literal["initializing", "running", "paused", "completed", "failed"]

_NOT_YET = "council mode is not available yet; send council_mode: false"


_ONE_DAY = timedelta(days=1)
_YEARS = range(1970, 2200)


def _moment(text: str) -> str:
    try:
        is_known = datetime.fromisoformat(text).year in _YEARS
    except ValueError:
        raise ValueError("must be a date (2025-01-31) or an ISO 8601 date and time") from None
    if not is_known:
        raise ValueError(f"must lie between {_YEARS[0]} and {_YEARS[-1]}")
    return text


def _or_absent(default: float) -> BeforeValidator:
    """Front ends send null for what they leave out."""
    return BeforeValidator(lambda given: default if given is None else given)


Asset = Annotated[Text, AfterValidator(parse_asset), Field(examples=["btc-usdt", "BTC/USDT"])]
TimeframeName = Annotated[Text, AfterValidator(Timeframe.parse), Field(examples=["1h"])]
Moment = Annotated[Text, AfterValidator(_moment), Field(examples=["2025-01-31"])]


class StartTest(RequestBody):
    """What backtests and forward tests share."""

    agent_id: UUID
    asset: Asset
    timeframe: TimeframeName
    starting_capital: Annotated[Finite, Field(ge=100, le=1_000_000)] = 10_000.0
    safety_mode: bool | None = Field(None, description="Absent: as the user's settings say.")
    allow_leverage: bool | None = Field(None, description="Absent: as the user's settings say.")
    decision_mode: Literal["every_candle", "every_n_candles"] = "every_candle"
    decision_interval_candles: Annotated[int, _or_absent(1), Field(ge=1, le=10_000)] = 1
    fee_bps: Annotated[Finite, Field(ge=0, le=1_000)] = 10.0
    slippage_bps: Annotated[Finite, Field(ge=0, le=1_000)] = 5.0
    fill_timing: Literal["next_open", "close"] = "next_open"
    intrabar: Literal["pessimistic", "optimistic"] = "pessimistic"
    blind: bool = False
    max_cost_usd: Annotated[Finite, Field(gt=0, le=100_000)] | None = None
    ai_summary: bool = Field(
        False,
        description="The agent's model sums the finished test up, in one more call: `ai_summary` "
        "of the result, a moment after it. Null where that fails or would exceed `max_cost_usd`.",
    )
    data_source: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    council_mode: bool = False
    council_models: list[Any] | None = None
    council_chairman_model: str | None = None

    @model_validator(mode="after")
    def _refuse_council(self) -> Self:
        if self.council_mode:
            raise ValueError(_NOT_YET)
        return self


class StartBacktest(StartTest):
    date_preset: DatePreset | None = None
    start_date: Moment | None = None
    end_date: Moment | None = Field(None, description="A date alone includes that day.")
    playback_speed: Speed | None = Field(None, description="Absent: as the user's settings say.")
    indicator_readiness_threshold: Annotated[Finite, _or_absent(0.0), Field(ge=0, le=100)] = 0.0

    @model_validator(mode="after")
    def _need_dates(self) -> Self:
        if self.date_preset in {None, "custom"} and not (self.start_date and self.end_date):
            raise ValueError("start_date and end_date are needed without a date preset")
        return self


class StartForward(StartTest):
    email_notifications: bool = False
    auto_stop_on_loss: bool = False
    auto_stop_loss_pct: Annotated[Finite, _or_absent(10.0), Field(gt=0, le=100)] = 10.0


class PreviewCandle(Shape):
    timestamp: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class StartedSession(Shape):
    id: UUID
    status: Literal["initializing"] = "initializing"
    agent_id: UUID
    agent_name: str
    asset: str
    timeframe: str
    mode: str
    starting_capital: float
    safety_mode: bool
    allow_leverage: bool
    total_candles: int
    start_date: datetime
    end_date: datetime
    date_preset: DatePreset | None
    playback_speed: Speed
    decision_mode: str
    decision_interval_candles: int
    first_decision_candle: int
    fee_bps: float
    slippage_bps: float
    fill_timing: str
    intrabar: str
    blind: bool
    max_cost_usd: float | None
    ai_summary: bool
    data_source: str | None
    websocket_url: str = Field(examples=["ws://127.0.0.1:5000/ws/backtest/0197…"])
    workflow_id: str
    preview_candles: list[PreviewCandle]
    estimated_cost_usd: float | None = Field(
        examples=[0.031],
        description="What the model calls are likely to cost: decision candles * (prompt tokens * "
        "their price + reply tokens * theirs). 0 for a free model; null while the price or the "
        "candles are unknown.",
    )


class StartedForward(Shape):
    id: UUID
    status: Literal["running"] = "running"
    agent_id: UUID
    agent_name: str
    asset: str
    timeframe: str
    mode: str
    starting_capital: float
    safety_mode: bool
    allow_leverage: bool
    decision_mode: str
    decision_interval_candles: int
    fee_bps: float
    slippage_bps: float
    fill_timing: str
    intrabar: str
    blind: bool
    max_cost_usd: float | None
    ai_summary: bool
    email_notifications: bool
    auto_stop_on_loss: bool
    auto_stop_loss_pct: float | None
    websocket_url: str = Field(examples=["ws://127.0.0.1:5000/ws/forward/0197…"])
    workflow_id: str


class ForwardStartAnswer(Shape):
    session: StartedForward
    message: str


class StartAnswer(Shape):
    session: StartedSession
    message: str


class OpenPosition(Shape):
    type: Literal["long", "short"]
    entry_price: float
    size: float
    leverage: float
    stop_loss: float | None
    take_profit: float | None
    unrealized_pnl: float
    opened_at: datetime


class SessionError(Shape):
    error_code: str
    message: str


class SessionOut(Shape):
    """A test as it stands: the database's account, with the running workflow's laid over it."""

    id: UUID
    type: Literal["backtest", "forward"]
    status: PublicStatus
    agent_id: UUID | None
    agent_name: str
    asset: str
    timeframe: str
    mode: str
    playback_speed: Speed
    current_candle: int
    total_candles: int
    progress_pct: float
    elapsed_seconds: float
    end_reason: str | None
    pause_reason: str | None
    starting_capital: float
    current_equity: float
    current_pnl_pct: float
    max_drawdown_pct: float
    trades_count: int
    win_rate: float
    open_position: OpenPosition | None
    decisions_count: int
    cost_usd: float
    tokens: int
    started_at: datetime | None
    paused_at: datetime | None
    completed_at: datetime | None
    result_id: UUID | None
    error: SessionError | None

    @classmethod
    def of(cls, session: SessionStatus, progress: Progress | None) -> Self:
        is_live = session.status in {"initializing", "running", "paused"}
        live = progress if is_live else None
        candle = max(session.current_candle, live.current_candle if live else 0)
        equity = live.equity if live and live.equity is not None else session.current_equity
        pnl = live.pnl_pct if live and live.pnl_pct is not None else session.current_pnl_pct
        return cls.model_validate(
            session.model_dump(exclude={"error"})
            | {
                "status": public_status(session, live),
                "pause_reason": live.pause_reason if live else session.pause_reason,
                "playback_speed": live.speed if live else session.playback_speed,
                "current_candle": candle,
                "progress_pct": progress_pct(candle, session.total_candles),
                "elapsed_seconds": elapsed_seconds(session),
                "current_equity": session.starting_capital if equity is None else equity,
                "current_pnl_pct": pnl or 0.0,
                "max_drawdown_pct": 0.0 - abs(session.max_drawdown_pct or 0.0),
                "win_rate": win_rate(session),
                "error": _error(session),
            }
        )


class SessionAnswer(Shape):
    session: SessionOut


class ForwardOut(SessionOut):
    """A forward test as it stands; its candles have no end, and so no total."""

    next_candle_at: datetime | None
    next_candle_eta: float | None = Field(description="Seconds.")
    missed_candles: int
    paused_candles: int
    late_decisions: int
    uptime_pct: float = Field(description="The share of candles that were met as they closed.")

    @classmethod
    @override
    def of(cls, session: SessionStatus, progress: Progress | None) -> Self:
        base = SessionOut.of(session, progress).model_dump()
        counts = session.model_dump(include={"missed_candles", "paused_candles", "late_decisions"})
        return cls.model_validate(
            base | counts | _ahead(progress) | {"uptime_pct": _uptime(session)}
        )


class ForwardAnswer(Shape):
    session: ForwardOut


class ActiveSession(Shape):
    id: UUID
    agent_id: UUID | None
    agent_name: str
    asset: str
    timeframe: str
    status: PublicStatus
    started_at: datetime | None
    duration_display: str = Field(examples=["4h 23m"])
    progress_pct: float
    current_pnl_pct: float
    trades_count: int
    win_rate: float

    @classmethod
    def of(cls, session: SessionStatus) -> Self:
        return cls.model_validate(
            session.model_dump()
            | {
                "status": public_status(session, None),
                "duration_display": display_duration(elapsed_seconds(session)),
                "progress_pct": progress_pct(session.current_candle, session.total_candles),
                "current_pnl_pct": session.current_pnl_pct or 0.0,
                "win_rate": win_rate(session),
            }
        )


class ActiveSessions(Shape):
    sessions: list[ActiveSession]


class PausedAnswer(Shape):
    session_id: UUID
    status: Literal["paused"] = "paused"
    paused_at: datetime


class ResumedAnswer(Shape):
    session_id: UUID
    status: Literal["running"] = "running"


class SpeedChange(RequestBody):
    speed: Speed


class SpeedAnswer(Shape):
    session_id: UUID
    speed: Speed


class StopTest(RequestBody):
    close_position: bool = True


class StoppedAnswer(Shape):
    """`result_id` is null while the test is still on its way to its result (202)."""

    session_id: UUID
    status: Literal["completed", "running", "failed"]
    result_id: UUID | None
    final_pnl: float | None


class ForwardStoppedAnswer(StoppedAnswer):
    position_closed: bool


class CleanupQuery(Filters):
    session_type: Literal["backtest", "forward", "all"] = "all"


class CleanedUp(Shape):
    deleted_sessions: int
    stopped_in_memory: Literal[0] = Field(
        0, description="No test lives in the memory of this server: there is none to stop there."
    )
    message: str = Field(examples=["2 sessions removed"])
    session_type: Literal["backtest", "forward", "all"]


def _ahead(progress: Progress | None) -> dict[str, Any]:
    if progress is None or progress.next_candle_at is None:
        return {"next_candle_at": None, "next_candle_eta": None}
    at = datetime.fromtimestamp(progress.next_candle_at, tz=UTC)
    eta = max(0.0, (at - datetime.now(tz=UTC)).total_seconds())
    return {"next_candle_at": at, "next_candle_eta": eta}


def _uptime(session: SessionStatus) -> float:
    met = session.cursor - session.missed_candles
    return met / session.cursor * 100 if session.cursor else 100.0


def public_status(session: SessionStatus, live: Progress | None) -> str:
    """Return the status that leaves the server."""
    match session.status:
        case "configuring" | "initializing":
            return "initializing"
        case "stopped":
            return "completed" if session.result_id else "failed"
        case "running" | "paused":
            return live.status if live else session.status
        case ended:
            return ended


def elapsed_seconds(session: SessionStatus) -> float:
    """Return the time from the start to the end, or to now."""
    if session.started_at is None:
        return 0.0
    return ((session.completed_at or datetime.now(tz=UTC)) - session.started_at).total_seconds()


def win_rate(session: SessionStatus) -> float:
    return session.trades_won / session.trades_count * 100 if session.trades_count else 0.0


def instant_of(moment: str, *, is_end: bool) -> datetime:
    """Read a date or a date and time as an instant, UTC unless it says otherwise.

    A date alone is its first moment, or, as an end, the midnight after it.
    """
    parsed = datetime.fromisoformat(moment)
    at = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    is_date = len(moment) <= len(date.min.isoformat())
    return (at + _ONE_DAY if is_date and is_end else at).astimezone(UTC)


def _error(session: SessionStatus) -> SessionError | None:
    if session.error is None:
        return None
    return SessionError(
        error_code=str(session.error.get("error_code", "INTERNAL_ERROR")),
        message=str(session.error.get("message", "The test failed.")),
    )
