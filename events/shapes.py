"""The shape of each event's data, which types what is sent and makes the AsyncAPI document.

These are the clean names; `api/wire.py` adds to them. Times are ISO 8601 in UTC, prices in quote
units, sizes in base units, leverage a factor, `_pct` percent.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from trading.decisions import Action
from trading.orders import ExitType, RejectionReason, Side
from trading.simulation import GuardReason


def one_of(values: Iterable[str]) -> Any:
    """Return the note of a text that is always one of `values`."""
    return Field(json_schema_extra={"enum": [str(value) for value in values]})


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
SideName = Annotated[str, one_of(Side)]
SourceStatus = Annotated[str, one_of(("live", "down"))]
SpeedName = Annotated[str, one_of(("slow", "normal", "fast", "instant"))]
StatusName = Annotated[str, one_of(("initializing", "running", "paused", "completed", "failed"))]
PauseReason = Annotated[
    str,
    one_of(
        ("user", "model_unavailable", "insufficient_credits", "no_api_key", "budget_reached"),
    ),
]


_Change = TypedDict("_Change", {"from": float | str | None, "to": float | str | None})


class AppliedOverride(_Change):
    """What the engine changed in an order, by which rule."""

    rule: str


class CandleStepped(TypedDict):
    """A candle that was stepped, and the indicators at it; `open_time` is in epoch ms.

    `total_candles` is 0 in forward tests, which have no end. `missed` is for them: nobody was there
    to decide on the candle in time.
    """

    candle_index: int
    total_candles: int
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    indicators: Mapping[str, float | None]
    missed: bool


class CandleClosed(CandleStepped):
    """A live candle that closed."""

    paused: bool
    ai_evaluating: bool


class Thinking(TypedDict):
    """The model's reasoning: `text` is all of it so far, `delta` what is new.

    A new `attempt` starts the text over.
    """

    candle_index: int
    text: str
    delta: str
    is_complete: bool
    attempt: int


class EstimatedOrder(TypedDict):
    """An order as it would fill at the close of the candle it was decided at."""

    type: SideName
    entry_price: float
    size: float
    leverage: float
    stop_loss: float | None
    take_profit: float | None


class DecisionCadence(TypedDict):
    """How often the agent is asked: at every candle, or once in `interval` candles."""

    mode: str
    interval: int


class DecisionFacts(TypedDict):
    """How a decision came about; `tokens` and `cost_usd` are of all calls that it took."""

    decision_context: DecisionCadence
    model: str
    tokens: int
    cost_usd: float
    latency_ms: int
    invalid_reply: bool
    late: bool


class DecisionTaken(DecisionFacts):
    """A decision as the agent took it; `confidence` is in percent."""

    candle_index: int
    action: Annotated[str, one_of(Action)]
    reasoning: str
    confidence: float | None
    order: EstimatedOrder | None
    overrides: list[AppliedOverride]


class OrderRejected(TypedDict):
    """An order that the rules refused, at its candle or at its decision."""

    candle_index: int
    reason: Annotated[str, one_of(RejectionReason)]
    detail: str


class PositionOpened(TypedDict):
    """An entry filled; `reasoning` is the agent's for the order."""

    trade_id: Id
    trade_number: int
    type: SideName
    entry_price: float
    size: float
    leverage: float
    stop_loss: float | None
    take_profit: float | None
    entry_time: Time
    candle_index: int
    unrealized_pnl: float
    overrides: list[AppliedOverride]
    reasoning: str


class PositionClosed(TypedDict):
    """An exit filled; `pnl_pct` is of the margin, net of fees."""

    trade_id: Id
    trade_number: int
    type: SideName
    entry_price: float
    exit_price: float
    exit_type: Annotated[str, one_of(ExitType)]
    size: float
    leverage: float
    pnl_amount: float
    pnl_pct: float | None
    fees: float
    entry_time: Time
    exit_time: Time
    candle_index: int
    stop_loss: float | None
    take_profit: float | None
    reasoning: str


class OpenPosition(TypedDict):
    """The position that a session holds, at the latest close."""

    type: SideName
    entry_price: float
    size: float
    leverage: float
    stop_loss: float | None
    take_profit: float | None
    unrealized_pnl: float
    opened_at: Time


class StepStats(TypedDict):
    """How a test stands after a step, as far as its simulation knows."""

    equity: float
    pnl_amount: float
    pnl_pct: float
    trades_total: int
    trades_won: int
    trades_lost: int
    win_rate: float
    max_drawdown_pct: float
    current_position: OpenPosition | None
    current_candle: int
    total_candles: int


class SessionStats(TypedDict):
    """What the session's row adds to its stats."""

    status: StatusName
    elapsed_seconds: float
    cost_usd: float


class Stats(StepStats, SessionStats):
    """How a test stands after a candle, and at the end; drawdown is negative."""


class SessionPaused(TypedDict):
    """A pause took effect."""

    paused_at: Time
    current_candle: int
    current_equity: float | None
    reason: PauseReason


class SessionResumed(TypedDict):
    """The test goes on."""

    resumed_at: Time


class SpeedChanged(TypedDict):
    """The test is played at another speed."""

    speed: SpeedName


class Trouble(TypedDict):
    """Something went wrong; what is not `recoverable` has ended the test."""

    error_code: str
    message: str
    candle_index: int | None
    recoverable: bool


class FinalStats(TypedDict):
    """How a test ended; drawdown is negative."""

    ending_capital: float
    total_pnl_pct: float
    total_trades: int
    winning_trades: int
    losing_trades: int
    win_rate: float | None
    max_drawdown_pct: float
    sharpe_ratio: float | None
    profit_factor: float | None
    duration_seconds: float
    duration_display: str


class SessionStopped(TypedDict):
    """A forward test was stopped by its owner."""

    stopped_at: Time
    reason: str
    position_closed: bool
    final_stats: FinalStats


class AutoStopped(TypedDict):
    """A forward test reached a limit; `threshold` and `actual` are in percent."""

    reason: Annotated[str, one_of(GuardReason)]
    threshold: float | None
    actual: float | None
    final_stats: FinalStats


class SessionCompleted(TypedDict):
    """The result is stored: the last event of a test."""

    session_id: Id
    result_id: Id
    final_stats: FinalStats
    is_profitable: bool
    can_generate_certificate: bool
    reason: str


class SessionConfig(TypedDict):
    """The settings that a test runs with; fees and slippage are in basis points."""

    total_candles: int
    asset: str
    timeframe: str
    mode: str
    starting_capital: float
    safety_mode: bool
    allow_leverage: bool
    decision_mode: str
    decision_interval_candles: int
    first_decision_candle: int
    fee_bps: float
    slippage_bps: float
    fill_timing: str
    intrabar: str
    blind: bool
    max_cost_usd: float | None
    data_source: str | None


class SessionInitialized(TypedDict):
    """The greeting: which test this is."""

    session_id: Id
    agent_name: str
    asset: str
    timeframe: str
    total_candles: int
    start_date: Time | None
    end_date: Time | None
    starting_capital: float
    playback_speed: SpeedName
    test_type: Annotated[str, one_of(("backtest", "forward"))]
    config: SessionConfig


class SessionStarted(TypedDict):
    """What a forward test says right after its greeting."""

    session_id: Id
    started_at: Time | None


class ReplayComplete(TypedDict):
    """Everything that was missed has been sent; what follows is live."""

    last_seq: int


class Heartbeat(TypedDict):
    """Sent every 30 seconds; a client may answer `pong`, and need not."""

    server_time: Time


class ActionAnswer(TypedDict, total=False):
    """What came of an action; `final_pnl` is in percent."""

    status: StatusName
    paused_at: Time
    result_id: Id | None
    final_pnl: float | None
    speed: SpeedName


class CommandAck(ActionAnswer):
    """An action was carried out, and what came of it."""

    action: str


class Price(TypedDict):
    """A price of an asset, the change in percent and the volume in base units; null is unknown."""

    asset: str
    price: float | None
    bid: float | None
    ask: float | None
    change_24h: float | None
    high_24h: float | None
    low_24h: float | None
    volume_24h: float | None
    timestamp: Time


class PriceStatus(TypedDict):
    """The source of prices went down, or is back."""

    asset: str
    status: SourceStatus
    timestamp: Time


class PriceUpdate(TypedDict):
    """A price as a forward test's watchers are told it."""

    price: float | None
    change_24h_pct: float | None
    volume_24h: float | None
    timestamp: Time


class PositionUpdate(TypedDict):
    """The open position at a price; `unrealized_pnl_pct` is of its margin.

    Distances are in percent of the price, negative beyond the level, null without one.
    """

    current_price: float
    entry_price: float
    unrealized_pnl_amount: float
    unrealized_pnl_pct: float | None
    distance_to_sl_pct: float | None
    distance_to_tp_pct: float | None


class Countdown(TypedDict):
    """The time to the next close, and to the next decision: null while there is none."""

    seconds_remaining: float
    next_candle_at: Time
    display: str
    next_ai_intervention_minutes: int | None


# Numbered events are stored, and replayed under their number.
DURABLE: Mapping[str, type] = MappingProxyType(
    {
        "candle": CandleStepped,
        "candle_closed": CandleClosed,
        "ai_thinking": Thinking,
        "ai_decision": DecisionTaken,
        "order_rejected": OrderRejected,
        "position_opened": PositionOpened,
        "position_closed": PositionClosed,
        "stats_update": Stats,
        "session_paused": SessionPaused,
        "session_resumed": SessionResumed,
        "speed_changed": SpeedChanged,
        "session_error": Trouble,
        "session_stopped": SessionStopped,
        "auto_stopped": AutoStopped,
        "session_completed": SessionCompleted,
    }
)
# What is only worth seeing live has no number.
PASSING: Mapping[str, type] = MappingProxyType(
    {
        "session_initialized": SessionInitialized,
        "session_started": SessionStarted,
        "replay_complete": ReplayComplete,
        "heartbeat": Heartbeat,
        "command_ack": CommandAck,
        "error": Trouble,
        "price": Price,
        "price_status": PriceStatus,
        "price_update": PriceUpdate,
        "position_update": PositionUpdate,
        "countdown_update": Countdown,
    }
)
SHAPES: Mapping[str, type] = MappingProxyType({**DURABLE, **PASSING})
