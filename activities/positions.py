"""A forward test's position between two closes: filled as soon as the open is known, and ended."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.contexts import SessionContext, SessionContexts
from activities.failures import activity_failures, market_failures, superseded
from activities.heartbeats import heartbeating
from activities.live_candles import LiveCandles, series_of
from activities.prices import PriceFeeds, Touch
from activities.step_rows import (
    STATE,
    Reasons,
    closed_trade,
    deciding_candles,
    happenings,
    opened_trade,
    plain_events,
)
from db.engine import Database
from db.repositories.forward_sessions import Filled, ForwardSessionRepository
from db.repositories.running_sessions import RunningSessionRepository
from db.repositories.session_trades import SessionTradeRepository
from db.repositories.steps import NewStep, StepRepository, StoredStep
from events.payloads import open_position_payload, trade_id
from events.publisher import EventPublisher
from trading.candles import Candle
from trading.schedule import opened_at, patience
from trading.simulation import Sighting, SimulationState, Step, fill_at_open, watch

# Where the clock runs fast, asking again at once would be a busy loop.
_SHORTEST_WAIT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FillInput:
    """A session whose order waits for the open of the candle that forms."""

    session_id: str
    user_id: str
    epoch: int
    state: SimulationState


@dataclass(frozen=True, slots=True, kw_only=True)
class FillResult:
    """The state after the fill; `retry_after` (seconds) where the open is not known yet."""

    state: SimulationState
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveInput:
    """A session whose position was touched."""

    session_id: str
    user_id: str
    epoch: int
    state: SimulationState
    touch: Touch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """What happened to a position before its candle closed; `key` makes it happen once."""

    key: str
    epoch: int
    index: int
    price: float
    step: Step
    sighting: Sighting


class PositionActivities:
    """Fills and ends positions while a candle forms."""

    def __init__(
        self,
        database: Database,
        contexts: SessionContexts,
        publisher: EventPublisher,
        live: LiveCandles,
        feeds: PriceFeeds,
    ) -> None:
        self._database = database
        self._contexts = contexts
        self._publisher = publisher
        self._live = live
        self._feeds = feeds

    @activity.defn
    async def fill_order(self, input: FillInput) -> FillResult:
        """Fill the order at the open of the forming candle; once that is closed, its step does."""
        with activity_failures(), market_failures(), heartbeating():
            context = await self._contexts.get(input.session_id, input.user_id)
            state, order = input.state, input.state.pending
            now = await self._live.now_ms()
            if order is None or opened_at(now, context.rules.timeframe_ms) > order.decided_time:
                return FillResult(state=state)
            forming = await self._live.forming(series_of(context))
            if forming is None or forming.open_time != order.decided_time:
                wait_ms = patience(now - order.decided_time) / max(await self._live.speed(), 1e-9)
                return FillResult(state=state, retry_after=max(wait_ms / 1000, _SHORTEST_WAIT_S))
            return FillResult(state=await self._fill(context, input, forming))

    async def _fill(
        self, context: SessionContext, input: FillInput, forming: Candle
    ) -> SimulationState:
        step = fill_at_open(input.state, forming, context.rules)
        if step.opened is not None:
            await self._feeds.want(self._live.source, context.settings.asset)
        filled = _Event(
            key=f"fill-{input.state.next_candle}",
            epoch=input.epoch,
            index=input.state.next_candle,
            price=forming.close,
            step=step,
            sighting=Sighting(opened_at=forming.open_time, opening=forming.open),
        )
        return await self._store(context, filled)

    @activity.defn
    async def leave_position(self, input: LeaveInput) -> SimulationState:
        """End the position by the minute that reached its stop, target or liquidation price."""
        with activity_failures():
            context = await self._contexts.get(input.session_id, input.user_id)
            state, touch = input.state, input.touch
            step = watch(state, touch.minute, context.rules, opened_at=touch.opened_at)
            if step is None:
                return state
            left = _Event(
                key=f"leave-{touch.trade_number}",
                epoch=input.epoch,
                index=state.next_candle,
                price=touch.minute.close,
                step=step,
                sighting=Sighting(opened_at=touch.opened_at, minute=touch.minute),
            )
            return await self._store(context, left)

    async def _store(self, context: SessionContext, event: _Event) -> SimulationState:
        async with self._database.for_user(context.user_id) as session:
            row, state = await _write(session, context, event)
        if row is not None:
            await self._publisher.publish(context.session_id, plain_events(row, "control"))
        return state


async def _write(
    session: AsyncSession, context: SessionContext, event: _Event
) -> tuple[NewStep | StoredStep | None, SimulationState]:
    """Store what happened, or find it stored; None where nothing happened that anybody hears of."""
    locked = await RunningSessionRepository(session).lock(context.session_id)
    if locked is None or locked.epoch != event.epoch:
        raise superseded(str(context.session_id))
    steps = StepRepository(session)
    if (stored := await steps.control(context.session_id, event.key)) is not None:
        latest = await steps.latest_state(context.session_id)
        return stored, STATE.validate_json(latest or "")
    if locked.status not in {"running", "paused"}:
        raise superseded(str(context.session_id))  # it ended while this attempt was under way
    reasons = await _reasons(session, context.session_id, event.step)
    found = happenings(event.step, event.price, context.session_id, reasons, index=event.index)
    if not found:
        return None, event.step.state
    row = await _number(steps, context, event, found)
    await _put_trades(session, context.session_id, event, reasons)
    ordinal = await steps.next_ordinal(context.session_id, event.index)
    await steps.insert(
        context.session_id, [row], phase="control", ordinal=ordinal, control_id=event.key
    )
    return row, event.step.state


async def _number(
    steps: StepRepository, context: SessionContext, event: _Event, found: list[dict[str, Any]]
) -> NewStep:
    numbering = await steps.number_events(
        context.session_id, epoch=event.epoch, cursor=event.index, events=len(found)
    )
    if numbering is None:
        raise superseded(str(context.session_id))
    return NewStep(
        candle_number=event.index,
        first_seq=numbering.first_seq,
        last_seq=numbering.first_seq + len(found) - 1,
        happened_at=numbering.first_at,
        events=found,
        state=STATE.dump_json(event.step.state),
    )


async def _put_trades(
    session: AsyncSession, session_id: UUID, event: _Event, reasons: Reasons
) -> None:
    step, trades = event.step, SessionTradeRepository(session)
    if step.closed is not None:
        row = closed_trade(session_id, step.closed, reasons, sighting=event.sighting)
        await trades.put(session_id, row)
    if step.opened is not None:
        opened = opened_trade(session_id, step.opened, reasons, sighting=event.sighting)
        await trades.put(session_id, opened)
    traded = step.opened or step.closed
    await ForwardSessionRepository(session).fill(
        session_id,
        Filled(
            open_position=open_position_payload(step.state.position, event.price),
            decided_candle=None if event.sighting.opening is None else event.index - 1,
            trade_id=None if traded is None else trade_id(session_id, traded.trade_number),
            live_price=event.price,
        ),
    )


async def _reasons(session: AsyncSession, session_id: UUID, step: Step) -> Reasons:
    running = RunningSessionRepository(session)
    return Reasons(
        by_candle={
            candle: await running.reasoning(session_id, candle)
            for candle in deciding_candles([step])
        }
    )
