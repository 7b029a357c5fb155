"""What a finished test recorded, and the same test folded again from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from activities.step_rows import SIGHTING
from db.market_frames import OPEN_END
from db.models.sessions import SessionRecord
from db.repositories.candles import CandleRepository, CandleSpan
from db.repositories.finished_sessions import (
    ClosedTrade,
    FinishedSessionRepository,
    RecordedDecision,
)
from trading.candles import CandleSeries
from trading.decisions import Action, Decision, OrderTerms
from trading.orders import ExitType, Side, Trade
from trading.simulation import Replay, Rules, Sighting, replay

_RULES = TypeAdapter(Rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The candles, decisions and sightings of a test that has ended, and the trades it made."""

    candles: CandleSeries
    decisions: Mapping[int, Decision]
    sightings: Mapping[int, Sighting]
    rules: Rules
    ending: ExitType | None
    trades: Sequence[Trade]

    def refold(self) -> Replay:
        """The backtest of the same candles and decisions. Pure, and as slow as it is long."""
        return replay(
            self.candles,
            self.decisions,
            self.rules,
            ending=self.ending,
            sightings=self.sightings,
        )


async def load_recording(session: AsyncSession, record: SessionRecord) -> Recording:
    """Read what the test recorded; its data set is still there, or there are no candles."""
    finished = FinishedSessionRepository(session)
    closed = await finished.trades(record.id)
    return Recording(
        candles=await _candles(session, record),
        decisions={
            each.candle_number: recorded_decision(each)
            for each in await finished.decisions(record.id)
        },
        sightings=sightings_of(closed),
        rules=_RULES.validate_python(record.rules),
        ending=_ending(record),
        trades=[trade_of(each) for each in closed],
    )


async def _candles(session: AsyncSession, record: SessionRecord) -> CandleSeries:
    if record.data_set_id is None or record.start_date is None:
        return CandleSeries.from_candles([])
    start_ms = int(record.start_date.timestamp() * 1000)
    span = CandleSpan(start_ms=start_ms, end_ms=OPEN_END, limit=record.cursor)
    return await CandleRepository(session).load(record.data_set_id, span)


def _ending(record: SessionRecord) -> ExitType | None:
    if record.end_reason != "stopped":
        return ExitType.END_OF_TEST
    return ExitType.MANUAL if record.stop_close_position else None


def sightings_of(trades: Sequence[ClosedTrade]) -> dict[int, Sighting]:
    """What was seen of the candles in which trades ended, as far as those were forming."""
    return {
        trade.exit_candle: SIGHTING.validate_python(trade.sighting)
        for trade in trades
        if trade.sighting is not None
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
