"""What a step leaves behind: its row, its events and its trades, made of the core's own values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from activities.contexts import SessionContext
from db.market_frames import MarketFrame
from db.repositories.session_trades import TradeRow
from db.repositories.stepping import CursorMove, SteppedCandle
from db.repositories.steps import NewStep, Numbering, StoredStep
from events.payloads import (
    candle_closed_payload,
    candle_payload,
    open_position_payload,
    override_payload,
    position_closed_payload,
    position_opened_payload,
    rejection_payload,
    session_stats_payload,
    stats_payload,
    trade_id,
    was_missed,
)
from events.records import StepRecord, count_events, step_events
from events.shapes import SessionStats
from events.types import Event
from trading.candles import Candle
from trading.orders import ExitType, Position, Trade
from trading.simulation import Sighting, SimulationState, Step

STATE = TypeAdapter(SimulationState)
SIGHTING = TypeAdapter(Sighting)
# What NUMERIC(12,6) holds. A figure beyond it is shown as the limit instead of failing a step.
_PERCENT_LIMIT = 999_999.0

_EXIT_REASONS = {
    ExitType.TAKE_PROFIT: "The target was reached.",
    ExitType.STOP_LOSS: "The stop was reached.",
    ExitType.MANUAL: "The test was stopped by its owner.",
    ExitType.LIQUIDATION: "The margin was used up and the position liquidated.",
    ExitType.GUARD: "A loss limit ended the test.",
    ExitType.END_OF_TEST: "The test ended with the position open.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCandle:
    """How a forward test met a candle: too late, while it was paused, or to decide on it."""

    missed: bool = False
    paused: bool = False
    ai_evaluating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A candle that was stepped, and what came of it."""

    step: Step
    candle: Candle
    live: LiveCandle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """The agent's own words for the orders that this transaction fills, by candle of decision."""

    by_candle: Mapping[int, str]

    def of(self, candle: int | None) -> str:
        return "" if candle is None else self.by_candle.get(candle, "")

    def of_exit(self, trade: Trade) -> str:
        return self.of(trade.exit_decided_candle) or _EXIT_REASONS.get(trade.exit_type, "")


def deciding_candles(steps: Sequence[Step]) -> set[int]:
    """The candles whose decisions these steps filled."""
    opened = {step.opened.decided_candle for step in steps if step.opened}
    closed = {step.closed.exit_decided_candle for step in steps if step.closed}
    return opened | {candle for candle in closed if candle is not None}


def happenings(
    step: Step, close: float, session_id: UUID, reasons: Reasons, *, index: int | None = None
) -> list[dict[str, Any]]:
    """The step's events besides its candle and its stats, in the order in which they happened.

    `index` is the candle, where it is not the one that was just stepped.
    """
    found: list[dict[str, Any]] = []
    if step.rejected:
        index = step.candle_index if index is None else index
        rejected = rejection_payload(step.rejected, candle_index=index)
        found.append({"event": "order_rejected", "data": rejected})
    if step.opened:
        opened = position_opened_payload(
            step.opened,
            session_id=session_id,
            unrealized_pnl=step.opened.unrealized_pnl(close) if step.state.position else 0.0,
            reasoning=reasons.of(step.opened.decided_candle),
        )
        found.append({"event": "position_opened", "data": opened})
    if step.closed:
        closed = position_closed_payload(
            step.closed, session_id=session_id, reasoning=reasons.of_exit(step.closed)
        )
        found.append({"event": "position_closed", "data": closed})
    return found


def cursor_move(context: SessionContext, epoch: int, outcomes: Sequence[Outcome]) -> CursorMove:
    """The move of the cursor over `outcomes`, with the figures as of the last of them."""
    last = outcomes[-1]
    state = last.step.state
    return CursorMove(
        session_id=context.session_id,
        epoch=epoch,
        start=outcomes[0].step.candle_index,
        stop=last.step.candle_index + 1,
        equity=state.equity,
        pnl_pct=clamped_percent(state.equity / context.rules.starting_capital - 1),
        max_drawdown_pct=-clamped_percent(state.max_drawdown),
        open_position=open_position_payload(state.position, last.candle.close),
        missed=sum(each.live is not None and each.live.missed for each in outcomes),
        paused=sum(each.live is not None and each.live.paused for each in outcomes),
    )


def clamped_percent(fraction: float) -> float:
    return max(-_PERCENT_LIMIT, min(_PERCENT_LIMIT, fraction * 100))


def stepped_candles(
    context: SessionContext, outcomes: Sequence[Outcome], reasons: Reasons
) -> list[SteppedCandle]:
    """Consecutive steps as they are stored; only the last one carries the state."""
    last = outcomes[-1]
    return [
        _stepped(context, outcome, reasons, carries_state=outcome is last) for outcome in outcomes
    ]


def _stepped(
    context: SessionContext, outcome: Outcome, reasons: Reasons, *, carries_state: bool
) -> SteppedCandle:
    step, candle = outcome.step, outcome.candle
    found = [
        *_closed_candle(outcome),
        *happenings(step, candle.close, context.session_id, reasons),
    ]
    return SteppedCandle(
        candle_number=step.candle_index,
        open_time=candle.open_time,
        equity=step.equity,
        drawdown=step.drawdown,
        event_count=count_events(found, "step"),
        stats=stats_payload(
            step.state, context.rules, close=candle.close, total_candles=context.total_candles
        ),
        events=found,
        state=STATE.dump_json(step.state) if carries_state else None,
    )


def _closed_candle(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome.live is None:
        return []
    payload = candle_closed_payload(
        outcome.candle, index=outcome.step.candle_index, **asdict(outcome.live)
    )
    return [{"event": "candle_closed", "data": payload}]


def stored_rows(candles: Sequence[SteppedCandle], numbering: Numbering) -> list[StoredStep]:
    """The rows as they now stand in the database."""
    rows, offset = [], 0
    for candle in candles:
        first_seq = numbering.first_seq + offset
        rows.append(
            StoredStep(
                candle_number=candle.candle_number,
                phase="step",
                ordinal=0,
                first_seq=first_seq,
                last_seq=first_seq + candle.event_count - 1,
                happened_at=numbering.at(offset),
                stats={**candle.stats, **session_stats(numbering, offset)},
                events=candle.events,
            )
        )
        offset += candle.event_count
    return rows


def session_stats(numbering: Numbering, offset: int) -> SessionStats:
    """The part of an event's stats that the session's row knows, as its write found it."""
    return session_stats_payload(
        status=numbering.status,
        elapsed_seconds=numbering.elapsed_seconds(offset),
        cost_usd=numbering.cost_usd,
    )


def row_events(context: SessionContext, row: StoredStep, frame: MarketFrame) -> list[Event]:
    """The events of a step's row, whether it was just written or is read back."""
    index = row.candle_number
    candle = candle_payload(
        frame.candles.candle(index),
        frame.values(index),
        index=index,
        total=context.total_candles,
        missed=was_missed(row.events),
    )
    record = StepRecord(
        candle_number=index,
        phase="step",
        first_seq=row.first_seq,
        happened_at=row.happened_at,
        events=row.events,
        stats=row.stats,
    )
    return step_events(record, candle)


def plain_events(row: NewStep | StoredStep, phase: str) -> list[Event]:
    """The events of a decision's or a control's row."""
    record = StepRecord(
        candle_number=row.candle_number,
        phase="decision" if phase == "decision" else "control",
        first_seq=row.first_seq,
        happened_at=row.happened_at,
        events=row.events,
    )
    return step_events(record, None)


def trade_rows(session_id: UUID, step: Step, reasons: Reasons) -> list[TradeRow]:
    """The rows of the trades that a step opened and closed, in that order."""
    opened, closed = step.opened, step.closed
    return [
        *([opened_trade(session_id, opened, reasons)] if opened else []),
        *([closed_trade(session_id, closed, reasons)] if closed else []),
    ]


def opened_trade(
    session_id: UUID, position: Position, reasons: Reasons, *, sighting: Sighting | None = None
) -> TradeRow:
    """The row of a trade whose position was just opened, in a forming candle if there is one."""
    return TradeRow(
        id=trade_id(session_id, position.trade_number),
        trade_number=position.trade_number,
        type=position.side.value,
        entry_price=position.entry_price,
        entry_time=position.entry_time,
        entry_candle=position.entry_candle,
        decided_candle=position.decided_candle,
        entry_reasoning=reasons.of(position.decided_candle),
        size=position.size,
        leverage=position.leverage,
        margin=position.margin,
        fees=position.entry_fee,
        slippage_cost=position.entry_slippage,
        stop_loss=position.stop_price,
        take_profit=position.target_price,
        liquidation_price=position.liquidation_price,
        overrides=[override_payload(each) for each in position.overrides],
        sighting=None if sighting is None else SIGHTING.dump_python(sighting),
    )


def closed_trade(
    session_id: UUID, trade: Trade, reasons: Reasons, *, sighting: Sighting | None = None
) -> TradeRow:
    """The row of a trade that is over, in a forming candle if there is a sighting of one."""
    return TradeRow(
        id=trade_id(session_id, trade.trade_number),
        trade_number=trade.trade_number,
        type=trade.side.value,
        entry_price=trade.entry_price,
        entry_time=trade.entry_time,
        entry_candle=trade.entry_candle,
        decided_candle=trade.decided_candle,
        entry_reasoning=reasons.of(trade.decided_candle),
        size=trade.size,
        leverage=trade.leverage,
        margin=trade.margin,
        fees=trade.fees,
        slippage_cost=trade.slippage_cost,
        stop_loss=trade.stop_price,
        take_profit=trade.target_price,
        liquidation_price=None,
        overrides=[override_payload(each) for each in trade.overrides],
        exit_price=trade.exit_price,
        exit_time=trade.exit_time,
        exit_candle=trade.exit_candle,
        exit_decided_candle=trade.exit_decided_candle,
        exit_type=trade.exit_type.value,
        exit_reasoning=reasons.of_exit(trade),
        gross_pnl=trade.gross_pnl,
        pnl_amount=trade.pnl_amount,
        pnl_pct=clamped_percent(trade.pnl_fraction),
        ambiguous=trade.ambiguous,
        sighting=None if sighting is None else SIGHTING.dump_python(sighting),
    )
