"""What each event says, under its clean names; percent and ISO times begin here."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any
from uuid import UUID, uuid5

from events.durations import display_clock
from events.prices import PriceTick
from events.shapes import (
    AppliedOverride,
    CandleClosed,
    CandleStepped,
    Countdown,
    DecisionFacts,
    DecisionTaken,
    EstimatedOrder,
    OpenPosition,
    OrderRejected,
    PositionClosed,
    PositionOpened,
    PositionUpdate,
    Price,
    PriceStatus,
    PriceUpdate,
    SessionStats,
    StepStats,
    Thinking,
)
from trading.candles import Candle
from trading.decisions import Decision, Override
from trading.marks import Holding, mark
from trading.orders import Position, Rejection, Side, Trade
from trading.simulation import Estimate, Rules, SimulationState

Payload = Mapping[str, Any]


def trade_id(session_id: UUID, trade_number: int) -> UUID:
    """The id of a session's trade: the same whenever its step is repeated."""
    return uuid5(session_id, f"trade-{trade_number}")


def result_id(session_id: UUID) -> UUID:
    """The id of a session's result, known before it exists."""
    return uuid5(session_id, "result")


def iso_of_ms(epoch_ms: int) -> str:
    """Return an epoch in milliseconds as ISO 8601 UTC with milliseconds and `Z`."""
    at = datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100


def candle_payload(
    candle: Candle,
    indicators: Mapping[str, float | None],
    *,
    index: int,
    total: int,
    missed: bool = False,
) -> CandleStepped:
    return {
        "candle_index": index,
        "total_candles": total,
        "open_time": candle.open_time,
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
        "indicators": indicators,
        "missed": missed,
    }


def candle_closed_payload(
    candle: Candle, *, index: int, missed: bool, paused: bool, ai_evaluating: bool
) -> CandleClosed:
    """A live candle that closed; `missed` when nobody was there to decide on it in time."""
    return {
        **candle_payload(candle, {}, index=index, total=0, missed=missed),
        "paused": paused,
        "ai_evaluating": ai_evaluating,
    }


def was_missed(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the events of a step's row say that its candle was missed."""
    return any(each["event"] == "candle_closed" and each["data"]["missed"] for each in found)


def thinking_payload(
    *, candle_index: int, text: str, delta: str, is_complete: bool, attempt: int
) -> Thinking:
    return {
        "candle_index": candle_index,
        "text": text,
        "delta": delta,
        "is_complete": is_complete,
        "attempt": attempt,
    }


def decision_payload(
    decision: Decision,
    *,
    candle_index: int,
    estimate: Estimate | None,
    overrides: Sequence[Override],
    facts: DecisionFacts,
) -> DecisionTaken:
    """The decision as the agent took it; prices and size are computed from this candle's close."""
    return {
        "candle_index": candle_index,
        "action": decision.action.value,
        "reasoning": decision.reasoning,
        "confidence": percent(decision.confidence),
        "order": None if estimate is None else _estimate_payload(decision, estimate),
        "overrides": [override_payload(each) for each in overrides],
        **facts,
    }


def _estimate_payload(decision: Decision, estimate: Estimate) -> EstimatedOrder:
    return {
        "type": decision.action.value,
        "entry_price": estimate.entry_price,
        "size": estimate.size,
        "leverage": estimate.leverage,
        "stop_loss": estimate.stop_price,
        "take_profit": estimate.target_price,
    }


def override_payload(override: Override) -> AppliedOverride:
    return {"rule": override.rule, "from": override.before, "to": override.after}


def rejection_payload(rejection: Rejection, *, candle_index: int) -> OrderRejected:
    return {
        "candle_index": candle_index,
        "reason": rejection.reason.value,
        "detail": rejection.detail,
    }


def position_opened_payload(
    position: Position, *, session_id: UUID, unrealized_pnl: float, reasoning: str
) -> PositionOpened:
    return {
        "trade_id": str(trade_id(session_id, position.trade_number)),
        "trade_number": position.trade_number,
        "type": position.side.value,
        "entry_price": position.entry_price,
        "size": position.size,
        "leverage": position.leverage,
        "stop_loss": position.stop_price,
        "take_profit": position.target_price,
        "entry_time": iso_of_ms(position.entry_time),
        "candle_index": position.entry_candle,
        "unrealized_pnl": unrealized_pnl,
        "overrides": [override_payload(each) for each in position.overrides],
        "reasoning": reasoning,
    }


def position_closed_payload(trade: Trade, *, session_id: UUID, reasoning: str) -> PositionClosed:
    return {
        "trade_id": str(trade_id(session_id, trade.trade_number)),
        "trade_number": trade.trade_number,
        "type": trade.side.value,
        "entry_price": trade.entry_price,
        "exit_price": trade.exit_price,
        "exit_type": trade.exit_type.value,
        "size": trade.size,
        "leverage": trade.leverage,
        "pnl_amount": trade.pnl_amount,
        "pnl_pct": percent(trade.pnl_fraction),
        "fees": trade.fees,
        "entry_time": iso_of_ms(trade.entry_time),
        "exit_time": iso_of_ms(trade.exit_time),
        "candle_index": trade.exit_candle,
        "stop_loss": trade.stop_price,
        "take_profit": trade.target_price,
        "reasoning": reasoning,
    }


def stats_payload(
    state: SimulationState,
    rules: Rules,
    *,
    close: float,
    total_candles: int,
) -> StepStats:
    """How the test stands after a step; drawdown is negative, as live figures are.

    With `session_stats_payload` it makes up the data of `stats_update`.
    """
    pnl = state.equity - rules.starting_capital
    return {
        "equity": state.equity,
        "pnl_amount": pnl,
        "pnl_pct": pnl / rules.starting_capital * 100,
        "trades_total": state.trades_total,
        "trades_won": state.trades_won,
        "trades_lost": state.trades_lost,
        "win_rate": state.trades_won / state.trades_total * 100 if state.trades_total else 0.0,
        "max_drawdown_pct": 0.0 - state.max_drawdown * 100,
        "current_position": open_position_payload(state.position, close),
        "current_candle": state.next_candle,
        "total_candles": total_candles,
    }


def session_stats_payload(*, status: str, elapsed_seconds: float, cost_usd: float) -> SessionStats:
    """What the session's row adds to its stats."""
    return {"status": status, "elapsed_seconds": elapsed_seconds, "cost_usd": cost_usd}


def open_position_payload(position: Position | None, close: float) -> OpenPosition | None:
    if position is None:
        return None
    return {
        "type": position.side.value,
        "entry_price": position.entry_price,
        "size": position.size,
        "leverage": position.leverage,
        "stop_loss": position.stop_price,
        "take_profit": position.target_price,
        "unrealized_pnl": position.unrealized_pnl(close),
        "opened_at": iso_of_ms(position.entry_time),
    }


def holding_of(shown: Mapping[str, Any]) -> Holding:
    """The position that `open_position_payload` or `position_opened_payload` shows."""
    return Holding(
        side=Side(shown["type"]),
        entry_price=shown["entry_price"],
        size=shown["size"],
        leverage=shown["leverage"],
        stop_price=shown["stop_loss"],
        target_price=shown["take_profit"],
    )


def price_payload(tick: PriceTick) -> Price:
    return {
        "asset": tick.asset,
        "price": tick.price,
        "bid": tick.bid,
        "ask": tick.ask,
        "change_24h": tick.change_24h,
        "high_24h": tick.high_24h,
        "low_24h": tick.low_24h,
        "volume_24h": tick.volume_24h,
        "timestamp": tick.timestamp,
    }


def price_status_payload(tick: PriceTick) -> PriceStatus:
    return {"asset": tick.asset, "status": tick.status, "timestamp": tick.timestamp}


def price_update_payload(tick: PriceTick) -> PriceUpdate:
    """The price as a forward test's watchers are told it."""
    return {
        "price": tick.price,
        "change_24h_pct": tick.change_24h,
        "volume_24h": tick.volume_24h,
        "timestamp": tick.timestamp,
    }


def position_update_payload(holding: Holding, price: float) -> PositionUpdate:
    """The open position at a price; the percentage is of its margin, distances are of the price."""
    marked = mark(holding, price)
    return {
        "current_price": price,
        "entry_price": holding.entry_price,
        "unrealized_pnl_amount": marked.unrealized_pnl,
        "unrealized_pnl_pct": percent(marked.pnl_fraction),
        "distance_to_sl_pct": percent(marked.stop_distance),
        "distance_to_tp_pct": percent(marked.target_distance),
    }


def countdown_payload(
    *, now_ms: int, next_close: int, next_decision: int | None, speed: float
) -> Countdown:
    """The time to the next close: in seconds of ours, and at the exchange.

    `next_decision` is the close at which the agent is asked next, None where it is not.
    """
    seconds = (next_close - now_ms) / 1000 / speed
    return {
        "seconds_remaining": round(seconds, 1),
        "next_candle_at": iso_of_ms(next_close),
        "display": display_clock(ceil(seconds)),
        "next_ai_intervention_minutes": (
            None if next_decision is None else max(0, ceil((next_decision - now_ms) / 60_000))
        ),
    }
