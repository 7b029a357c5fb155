"""The account of one test: what it holds, and how fills, exits and closes change it."""

from dataclasses import dataclass
from enum import StrEnum

from trading.candles import Candle
from trading.execution import Exit
from trading.orders import ExitType, PendingOrder, Position, Trade
from trading.risk import ROUNDING, Entry
from trading.rules import Rules

MILLISECONDS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a fill happened; `time` in epoch milliseconds."""

    time: int
    candle_index: int


class GuardReason(StrEnum):
    MAX_DRAWDOWN_EXCEEDED = "max_drawdown_exceeded"
    MAX_LOSS_EXCEEDED = "max_loss_exceeded"


@dataclass(slots=True, kw_only=True)
class SimulationState:
    """All that the next step needs of the past; a value, although it is not frozen.

    One is built per candle, and a frozen one of this width takes nine times as long. Nothing
    changes a state it was given: each step works on a copy of its own.

    `cash` is the capital and the net result of all closed trades, and
    `equity = cash + unrealised - entry fee of the open position`. Fees and slippage count when
    they are paid and `gross_pnl` when a trade is closed, so that without a position
    `equity = starting_capital + gross_pnl - fees_paid - slippage_paid`; with one, add
    `position.unrealized_pnl(close) + position.entry_slippage`.

    `day` is the UTC day number of the last candle's open and `day_start_equity` the equity at the
    end of the day before. `peak_before` is the highest equity before the last candle: what
    `peak_equity` goes back to when that candle's point is replaced. `trades_total` counts closed
    trades.
    """

    next_candle: int
    cash: float
    equity: float
    peak_equity: float
    peak_before: float
    drawdown: float
    max_drawdown: float
    position: Position | None
    pending: PendingOrder | None
    day: int | None
    day_start_equity: float
    daily_loss_reached: bool
    last_entry_time: int | None
    trades_total: int
    trades_won: int
    trades_lost: int
    fees_paid: float
    slippage_paid: float
    gross_pnl: float
    ambiguous_candles: int
    exposed_candles: int
    ended: GuardReason | None


def open_account(starting_capital: float) -> SimulationState:
    capital = float(starting_capital)
    return SimulationState(
        next_candle=0,
        cash=capital,
        equity=capital,
        peak_equity=capital,
        peak_before=capital,
        drawdown=0.0,
        max_drawdown=0.0,
        position=None,
        pending=None,
        day=None,
        day_start_equity=capital,
        daily_loss_reached=False,
        last_entry_time=None,
        trades_total=0,
        trades_won=0,
        trades_lost=0,
        fees_paid=0.0,
        slippage_paid=0.0,
        gross_pnl=0.0,
        ambiguous_candles=0,
        exposed_candles=0,
        ended=None,
    )


def copy_state(state: SimulationState) -> SimulationState:
    """A copy to work on. Plain assignments: the constructor takes five times as long."""
    copy = _new(SimulationState)
    copy.next_candle = state.next_candle
    copy.cash = state.cash
    copy.equity = state.equity
    copy.peak_equity = state.peak_equity
    copy.peak_before = state.peak_before
    copy.drawdown = state.drawdown
    copy.max_drawdown = state.max_drawdown
    copy.position = state.position
    copy.pending = state.pending
    copy.day = state.day
    copy.day_start_equity = state.day_start_equity
    copy.daily_loss_reached = state.daily_loss_reached
    copy.last_entry_time = state.last_entry_time
    copy.trades_total = state.trades_total
    copy.trades_won = state.trades_won
    copy.trades_lost = state.trades_lost
    copy.fees_paid = state.fees_paid
    copy.slippage_paid = state.slippage_paid
    copy.gross_pnl = state.gross_pnl
    copy.ambiguous_candles = state.ambiguous_candles
    copy.exposed_candles = state.exposed_candles
    copy.ended = state.ended
    return copy


_new = object.__new__


def enter(
    account: SimulationState,
    entry: Entry,
    order: PendingOrder,
    at: Moment,
    rules: Rules,
) -> Position:
    """Books the fill of an entry and returns the position."""
    position = Position(
        trade_number=account.trades_total + 1,
        side=entry.side,
        entry_price=entry.price,
        entry_time=at.time,
        entry_candle=at.candle_index,
        decided_candle=order.decided_candle,
        size=entry.size,
        leverage=entry.leverage,
        margin=entry.margin,
        entry_fee=rules.fee_rate * entry.price * entry.size,
        entry_slippage=abs(entry.price - entry.reference) * entry.size,
        stop_price=entry.stop_price,
        target_price=entry.target_price,
        liquidation_price=entry.liquidation_price,
        overrides=order.overrides + entry.overrides,
    )
    account.position = position
    account.last_entry_time = at.time
    account.fees_paid += position.entry_fee
    account.slippage_paid += position.entry_slippage
    return position


def leave(
    account: SimulationState,
    position: Position,
    exit_: Exit,
    at: Moment,
    rules: Rules,
    *,
    decided_candle: int | None = None,
) -> Trade:
    """Books the exit of the open position and returns the finished trade."""
    exit_slippage = abs(exit_.price - exit_.reference) * position.size
    realized = position.unrealized_pnl(exit_.price)
    net, exit_fee = _settle(position, exit_, realized, rules)
    slippage = position.entry_slippage + exit_slippage
    trade = Trade(
        trade_number=position.trade_number,
        side=position.side,
        entry_price=position.entry_price,
        entry_time=position.entry_time,
        entry_candle=position.entry_candle,
        decided_candle=position.decided_candle,
        exit_price=exit_.price,
        exit_time=at.time,
        exit_candle=at.candle_index,
        exit_type=exit_.exit_type,
        exit_decided_candle=decided_candle,
        size=position.size,
        leverage=position.leverage,
        margin=position.margin,
        fees=position.entry_fee + exit_fee,
        slippage_cost=slippage,
        gross_pnl=realized + slippage,
        pnl_amount=net,
        pnl_fraction=net / position.margin,
        stop_price=position.stop_price,
        target_price=position.target_price,
        ambiguous=exit_.ambiguous,
        overrides=position.overrides,
    )
    account.position = None
    account.cash += net
    account.fees_paid += exit_fee
    account.slippage_paid += exit_slippage
    _count(account, trade)
    return trade


def _settle(position: Position, exit_: Exit, realized: float, rules: Rules) -> tuple[float, float]:
    """The net result of the trade and the fee of its exit.

    A liquidation costs at most the margin; what the fees would take beyond it is forgiven.
    """
    fee = rules.fee_rate * exit_.price * position.size
    net = realized - position.entry_fee - fee
    if exit_.exit_type is ExitType.LIQUIDATION and net < -position.margin:
        return -position.margin, realized - position.entry_fee + position.margin
    return net, fee


def _count(account: SimulationState, trade: Trade) -> None:
    account.gross_pnl += trade.gross_pnl
    account.trades_total += 1
    if trade.pnl_amount > 0:
        account.trades_won += 1
    else:
        account.trades_lost += 1
    if trade.ambiguous:
        account.ambiguous_candles += 1


def mark(account: SimulationState, candle: Candle, rules: Rules) -> None:
    """Values the account at the candle's close: equity, peak, drawdown, the day's loss."""
    day = candle.open_time // MILLISECONDS_PER_DAY
    if day != account.day:
        account.day = day
        account.day_start_equity = account.equity
        account.daily_loss_reached = False
    position = account.position
    equity = account.cash
    if position is not None:
        equity += position.unrealized_pnl(candle.close) - position.entry_fee
        account.exposed_candles += 1
    account.peak_before = account.peak_equity
    _value(account, equity)
    limit = rules.max_daily_loss
    if limit is not None and has_lost(account.day_start_equity, equity, limit):
        account.daily_loss_reached = True


def remark(account: SimulationState) -> None:
    """Replaces the last candle's point after its position was closed at that candle's close."""
    account.peak_equity = account.peak_before
    _value(account, account.cash)


def _value(account: SimulationState, equity: float) -> None:
    account.equity = equity
    peak = account.peak_equity
    if equity >= peak:
        account.peak_equity = equity
        account.drawdown = 0.0
        return
    drawdown = account.drawdown = (peak - equity) / peak
    if drawdown > account.max_drawdown:  # noqa: PLR1730  # max() takes three times as long
        account.max_drawdown = drawdown


def has_lost(before: float, equity: float, limit: float) -> bool:
    """Whether equity has fallen by the fraction `limit` of what it was before.

    All is lost where there was nothing before. A trade that the risk cap cut to lose 1 % has
    lost 1 %, whatever rounding makes of it.
    """
    loss = (before - equity) / before if before > 0 else 1.0
    return loss >= limit - ROUNDING
