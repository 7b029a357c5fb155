"""Makes a backtest: its candles, its rules and its row, then the workflow that runs it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from api.config import ApiConfig
from api.data_sets import (
    FIXED_PRESETS,
    MOVING_PRESETS,
    TimeRange,
    choose_data_set,
    newest_range,
    no_candles,
)
from api.errors import Conflict, Invalid, NotFound
from api.idempotency import check_same, claim_of
from api.schemas.arena import StartBacktest, instant_of
from api.session_starts import (
    check_room,
    interval_of,
    living,
    rules_of,
    start_workflow,
    stored_rules,
)
from db.engine import Database
from db.identifiers import new_id
from db.market_frames import FrameKey, MarketFrame, MarketFrames, stored_formulas
from db.models.agents import AgentRecord
from db.models.candles import DataSetRecord
from db.models.sessions import NewSession, SessionRecord
from db.models.users import UserRecord, UserSettingsRecord
from db.repositories.agents import AgentRepository
from db.repositories.data_sets import DataSetRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.running_sessions import RunningSessionRepository
from db.repositories.sessions import SessionRepository
from db.repositories.users import UserRepository
from trading.candles import Timeframe
from trading.indicators import plan_indicators
from workflows.runtime import Temporal, workflow_id

# The largest window that one session steps through.
MAX_CANDLES = 500_000
_PERCENT = 100

_WHERE = ("body", "start_date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a start is made from, read in one transaction."""

    agent: AgentRecord
    settings: UserSettingsRecord
    data_set: DataSetRecord
    range: TimeRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A session that is ready to be stored, and the candles it will run on."""

    session: NewSession
    frame: MarketFrame


class Backtests:
    """Starts backtests."""

    def __init__(
        self, *, config: ApiConfig, database: Database, frames: MarketFrames, temporal: Temporal
    ) -> None:
        self._config = config
        self._database = database
        self._frames = frames
        self._temporal = temporal

    async def start(
        self, user: UserRecord, wanted: StartBacktest, *, key: str | None = None
    ) -> tuple[SessionRecord, MarketFrame]:
        """Commit the session's row, then start its workflow; return the row and its candles.

        The `key` of an earlier request leads to the session that it started. Raises ApiError: no
        such agent, no candles, nothing to decide on, too many tests, or Temporal away, in which
        case the row stays and the test starts later.
        """
        claim = None if key is None else claim_of(user.id, key, wanted)
        while True:  # a request that is overtaken by its twin finds the twin's session
            if claim is not None and (earlier := await self._earlier(claim)):
                return earlier
            if started := await self._start(user, wanted, claim):
                return started

    async def _start(
        self, user: UserRecord, wanted: StartBacktest, claim: IdempotencyClaim | None
    ) -> tuple[SessionRecord, MarketFrame] | None:
        """None when a request with the same key has started its session meanwhile."""
        prepared = await self._prepare(user, wanted)
        async with self._database.for_user(user.id) as session:
            keys = IdempotencyRepository(session)
            if claim is not None and await keys.claim(claim) is not None:
                return None
            sessions = SessionRepository(session)
            check_room(self._config, user, await sessions.count_active(user.id))
            # It may have been archived or deleted while the candles were read.
            living(await AgentRepository(session).lock(wanted.agent_id))
            stored = await sessions.add(prepared.session)
            if claim is not None:
                started = {"session_id": str(stored.id)}
                await keys.answer(user.id, claim.key, status_code=201, response=started)
        await start_workflow(self._temporal, stored)
        return stored, prepared.frame

    async def _earlier(self, claim: IdempotencyClaim) -> tuple[SessionRecord, MarketFrame] | None:
        """The session that a request with the same key has started."""
        async with self._database.for_user(claim.user_id) as session:
            record = await IdempotencyRepository(session).find(claim)
            if record is None:
                return None
            check_same(claim, record)
            session_id = UUID((record.response or {})["session_id"])
            stored = await SessionRepository(session).get(session_id)
            settings = await RunningSessionRepository(session).settings(session_id)
        if stored is None or settings is None:
            raise NotFound("session")
        return stored, await self._frames.get(claim.user_id, FrameKey.of_session(settings))

    async def _prepare(self, user: UserRecord, wanted: StartBacktest) -> Prepared:
        timeframe = Timeframe.parse(wanted.timeframe)
        basis = await self._read_basis(user.id, wanted, timeframe)
        key = _frame_key(basis, timeframe)
        frame = await self._frames.get(user.id, key)
        if not len(frame):
            raise no_candles(_WHERE)
        # What the agent sees decides when it is ready: a formula may know no value of a real price.
        seen = await self._frames.get(user.id, key.as_blind()) if wanted.blind else frame
        first = seen.first_ready(wanted.indicator_readiness_threshold / _PERCENT)
        if first is None:
            raise _never_ready()
        fingerprint = await asyncio.to_thread(frame.candles.fingerprint)
        session = _new_session(user.id, wanted, basis, timeframe).model_copy(
            update={
                "start_date": _moment(int(frame.candles.open_time[0])),
                "end_date": _last_close(frame, timeframe),
                "warm_up_candles": key.warm_up,
                "total_candles": len(frame),
                "first_decision_candle": first,
                "data_fingerprint": fingerprint,
            }
        )
        return Prepared(session=session, frame=frame)

    async def _read_basis(
        self, user_id: UUID, wanted: StartBacktest, timeframe: Timeframe
    ) -> Basis:
        async with self._database.for_user(user_id) as session:
            agent = await AgentRepository(session).get(wanted.agent_id)
            settings = await UserRepository(session).settings(user_id)
            candidates = await DataSetRepository(session).candidates(
                wanted.asset, timeframe, source=wanted.data_source
            )
        agent = living(agent)
        if agent.api_key_id is None:
            raise Conflict("Give the agent an API key before it is tested.", code="NO_API_KEY")
        range_ = _range(wanted, candidates, timeframe)
        data_set = choose_data_set(candidates, timeframe, range_)
        if data_set is None:
            raise no_candles(_WHERE)
        return Basis(agent=agent, settings=settings, data_set=data_set, range=range_)


def _range(
    wanted: StartBacktest, candidates: Sequence[DataSetRecord], timeframe: Timeframe
) -> TimeRange:
    preset = wanted.date_preset or "custom"
    if preset in MOVING_PRESETS:
        if not candidates:
            raise no_candles(_WHERE)
        return newest_range(candidates, timeframe, MOVING_PRESETS[preset])
    if preset in FIXED_PRESETS:
        return TimeRange.of_days(*FIXED_PRESETS[preset])
    if wanted.start_date is None or wanted.end_date is None:
        raise Invalid("start_date and end_date are needed.", ["body", "start_date"])
    chosen = TimeRange(
        start=instant_of(wanted.start_date, is_end=False),
        end=instant_of(wanted.end_date, is_end=True),
    )
    if chosen.end <= chosen.start:
        raise Invalid("end_date must be after start_date.", ["body", "end_date"])
    if (chosen.end - chosen.start).total_seconds() * 1000 / timeframe.milliseconds > MAX_CANDLES:
        raise Invalid(f"A test may have {MAX_CANDLES} candles.", ["body", "start_date"])
    return chosen


def _frame_key(basis: Basis, timeframe: Timeframe) -> FrameKey:
    custom = stored_formulas(basis.agent.custom_indicators)
    plan = plan_indicators(basis.agent.indicators, custom)
    return FrameKey(
        data_set_id=basis.data_set.id,
        start_ms=basis.range.start_ms,
        end_ms=basis.range.end_ms,
        timeframe=timeframe,
        warm_up=plan.warm_up,
        identifiers=plan.identifiers,
        custom=custom,
    )


def _new_session(
    user_id: UUID, wanted: StartBacktest, basis: Basis, timeframe: Timeframe
) -> NewSession:
    """The row as far as request, agent and settings decide it."""
    agent, settings = basis.agent, basis.settings
    session_id = new_id()
    rules = rules_of(wanted, agent, settings, timeframe)
    return NewSession(
        id=session_id,
        user_id=user_id,
        agent_id=agent.id,
        agent_version_id=agent.agent_version_id,
        agent_name=agent.name,
        workflow_id=workflow_id(session_id),
        data_set_id=basis.data_set.id,
        data_source=basis.data_set.source,
        rules=stored_rules(rules),
        type="backtest",
        status="initializing",
        mode=agent.mode,
        asset=wanted.asset,
        timeframe=timeframe.value,
        starting_capital=wanted.starting_capital,
        safety_mode=rules.safety_mode,
        allow_leverage=rules.allow_leverage,
        date_preset=wanted.date_preset,
        start_date=basis.range.start,
        end_date=basis.range.end,
        playback_speed=wanted.playback_speed or settings.default_playback_speed,
        decision_mode=wanted.decision_mode,
        decision_interval_candles=interval_of(wanted),
        indicator_readiness_threshold=wanted.indicator_readiness_threshold,
        fee_bps=wanted.fee_bps,
        slippage_bps=wanted.slippage_bps,
        fill_timing=wanted.fill_timing,
        intrabar=wanted.intrabar,
        blind=wanted.blind,
        max_cost_usd=wanted.max_cost_usd,
    )


def _last_close(frame: MarketFrame, timeframe: Timeframe) -> datetime:
    """The end that later candles of a growing data set cannot move."""
    close_ms = int(frame.candles.open_time[-1]) + timeframe.milliseconds
    return _moment(close_ms)


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)


def _never_ready() -> Invalid:
    return Invalid(
        "The indicators never reach this readiness in the chosen range: choose a longer range, "
        "shorter indicators or a lower indicator_readiness_threshold.",
        ["body", "indicator_readiness_threshold"],
    )
