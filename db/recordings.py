"""What a finished test recorded, as the values that the fold takes and makes."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database
from db.market_frames import OPEN_END
from db.models.sessions import SessionRecord
from db.repositories.candles import CandleRepository, CandleSpan
from db.repositories.finished_sessions import (
    ClosedTrade,
    FinishedSessionRepository,
    RecordedDecision,
)
from db.repositories.recordings import OpenTrade, RecordingRepository, ToldDecision
from db.repositories.steps import StepRepository
from trading.candles import CandleSeries
from trading.decisions import Action, Decision, OrderTerms
from trading.orders import ExitType, Position, Side, Trade
from trading.parity import Recording
from trading.simulation import Rules, Sighting

_DECISIONS_PER_PAGE = 200
_BEFORE_ALL = -1
_RULES = TypeAdapter(Rules)
_SIGHTING = TypeAdapter(Sighting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What the database has of a test, as it came."""

    window: CandleSeries
    closed: Sequence[ClosedTrade]
    left_open: Sequence[OpenTrade]
    decisions: Sequence[RecordedDecision]
    curve: Sequence[tuple[int, float]]
    seen: Sequence[Sequence[Any]]
    ending_equity: float
    live_prices: Mapping[int, float]


async def load_recording(session: AsyncSession, record: SessionRecord) -> Recording:
    """Read what a test with a result recorded; without its data set there are no candles."""
    finished, recordings = FinishedSessionRepository(session), RecordingRepository(session)
    rows = _Rows(
        window=await _window(session, record),
        closed=await finished.trades(record.id),
        left_open=await recordings.open_trades(record.id),
        decisions=await finished.decisions(record.id),
        curve=await StepRepository(session).equity_curve(record.id),
        seen=await recordings.seen_candles(record.id, record.type),
        ending_equity=await recordings.ending_equity(record.id),
        live_prices=await recordings.live_prices(record.id),
    )
    # Beside the event loop: a long test has tens of thousands of decisions.
    return await asyncio.to_thread(_recording, record, rows)


async def told_decisions(
    database: Database, user_id: UUID, session_id: UUID
) -> AsyncIterator[Sequence[ToldDecision]]:
    """All decisions of a test, page by page, each read in a transaction of its own."""
    after = _BEFORE_ALL
    while True:
        async with database.for_user(user_id) as session:
            page = await RecordingRepository(session).told_after(
                session_id, after, limit=_DECISIONS_PER_PAGE
            )
        if not page:
            return
        yield page
        after = page[-1].candle_number


def _recording(record: SessionRecord, rows: _Rows) -> Recording:
    return Recording(
        candles=rows.window.slice(0, record.cursor),
        window=rows.window,
        fingerprint=record.data_fingerprint,
        decisions={each.candle_number: recorded_decision(each) for each in rows.decisions},
        sightings=sightings_of(rows.closed, rows.left_open),
        rules=_RULES.validate_python(record.rules),
        ending=_ending(record),
        trades=[trade_of(each) for each in rows.closed],
        left_open=[_position_of(each) for each in rows.left_open],
        open_times=np.array([time for time, _ in rows.curve], dtype=np.int64),
        equity=np.array([value for _, value in rows.curve], dtype=np.float64),
        ending_equity=rows.ending_equity,
        seen_at=np.array([row[0] for row in rows.seen], dtype=np.int64),
        seen=CandleSeries.from_rows([row[1:] for row in rows.seen]),
        live_prices=rows.live_prices,
    )


async def _window(session: AsyncSession, record: SessionRecord) -> CandleSeries:
    """A backtest's whole window; of a live data set, which grows, what was stepped.

    Nothing is ever put before or between candles that a test was stepped through.
    """
    if record.data_set_id is None or record.start_date is None:
        return CandleSeries.from_candles([])
    start_ms, last_open, limit = int(record.start_date.timestamp() * 1000), OPEN_END, record.cursor
    rules = _RULES.validate_python(record.rules)
    if record.type == "backtest" and record.end_date is not None:
        last_open = int(record.end_date.timestamp() * 1000) - rules.timeframe_ms
        limit = max(record.total_candles, record.cursor)
    span = CandleSpan(start_ms=start_ms, end_ms=last_open, limit=limit)
    return await CandleRepository(session).load(record.data_set_id, span)


def _ending(record: SessionRecord) -> ExitType | None:
    if record.end_reason != "stopped":
        return ExitType.END_OF_TEST
    return ExitType.MANUAL if record.stop_close_position else None


def sightings_of(
    closed: Sequence[ClosedTrade], left_open: Sequence[OpenTrade] = ()
) -> dict[int, Sighting]:
    """What was seen of the candles in which trades ended, as far as those were forming.

    And of the candle in which a position was filled that is still open.
    """
    ended = {trade.exit_candle: trade.sighting for trade in closed}
    begun = {trade.entry_candle: trade.sighting for trade in left_open}
    return {
        candle: _SIGHTING.validate_python(sighting)
        for candle, sighting in (ended | begun).items()
        if sighting is not None
    }


def recorded_decision(row: RecordedDecision) -> Decision:
    """A stored decision as the fold takes it."""
    terms = (row.order_data or {}).get("terms")
    return Decision(action=Action(row.decision), order=OrderTerms(**terms) if terms else None)


def trade_of(row: ClosedTrade) -> Trade:
    """A closed trade as the fold makes it, without its overrides."""
    return Trade(
        trade_number=row.trade_number,
        side=Side(row.type),
        entry_price=row.entry_price,
        entry_time=row.entry_time,
        entry_candle=row.entry_candle,
        decided_candle=row.decided_candle,
        exit_price=row.exit_price,
        exit_time=row.exit_time,
        exit_candle=row.exit_candle,
        exit_type=ExitType(row.exit_type),
        exit_decided_candle=row.exit_decided_candle,
        size=row.size,
        leverage=row.leverage,
        margin=row.margin,
        fees=row.fees,
        slippage_cost=row.slippage_cost,
        gross_pnl=row.gross_pnl,
        pnl_amount=row.pnl_amount,
        pnl_fraction=row.pnl_amount / row.margin if row.margin else 0.0,
        stop_price=row.stop_loss,
        target_price=row.take_profit,
        ambiguous=row.ambiguous,
    )


def _position_of(row: OpenTrade) -> Position:
    return Position(
        trade_number=row.trade_number,
        side=Side(row.type),
        entry_price=row.entry_price,
        entry_time=row.entry_time,
        entry_candle=row.entry_candle,
        decided_candle=row.decided_candle,
        size=row.size,
        leverage=row.leverage,
        margin=row.margin,
        entry_fee=row.fees,
        entry_slippage=row.slippage_cost,
        stop_price=row.stop_loss,
        target_price=row.take_profit,
        liquidation_price=row.liquidation_price,
    )
