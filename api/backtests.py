"""Makes a backtest: its candles, its rules and its row, then the workflow that runs it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from api.config import ApiConfig
from api.cost_estimates import CostEstimates
from api.data_sets import (
    FIXED_PRESETS,
    TimeRange,
    choose_data_set,
    covering_data_set,
    newest_range,
    no_candles,
)
from api.errors import Conflict, Invalid, NotFound
from api.idempotency import claim_of
from api.schemas.arena import StartBacktest, instant_of
from api.session_starts import (
    add_once,
    check_room,
    earlier_start,
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
from db.models.sessions import MOVING_PRESETS, NewSession, SessionRecord
from db.models.users import UserRecord, UserSettingsRecord
from db.repositories.agents import AgentRepository
from db.repositories.data_sets import DataSetRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.running_sessions import RunningSessionRepository, SessionSettings
from db.repositories.sessions import SessionRepository
from db.repositories.users import UserRepository
from db.session_windows import NeverReady, NoCandles, SessionWindow, session_window
from trading.candles import Timeframe
from trading.indicators import IndicatorPlan, plan_indicators
from workflows.runtime import Temporal, workflow_id

# The largest window that one session steps through.
MAX_CANDLES = 500_000
# How long an answer waits for candles that have to be fetched; the test does not need it.
START_PATIENCE_S = 5.0
_ASK_AGAIN_S = 0.1
_PERCENT = 100

_WHERE = ("body", "start_date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a start is made from; without a data set the range has to be fetched."""

    agent: AgentRecord
    settings: UserSettingsRecord
    data_set: DataSetRecord | None
    range: TimeRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A session that was stored; its candles and likely cost, if the candles are there already."""

    session: SessionRecord
    frame: MarketFrame | None
    estimated_cost_usd: float | None = None


class Backtests:
    """Starts backtests."""

    def __init__(
        self,
        *,
        config: ApiConfig,
        database: Database,
        frames: MarketFrames,
        temporal: Temporal,
        costs: CostEstimates,
    ) -> None:
        self._config = config
        self._database = database
        self._frames = frames
        self._temporal = temporal
        self._costs = costs

    async def start(
        self, user: UserRecord, wanted: StartBacktest, *, key: str | None = None
    ) -> Started:
        """Commit the session's row, then start its workflow; return the row and its candles.

        Candles that have to be fetched are waited for a little. The `key` of an earlier request
        leads to the session that it started. Raises ApiError: no such agent, no candles, nothing to
        decide on, too many tests, or Temporal away, in which case the row stays and the test starts
        later.
        """
        claim = None if key is None else claim_of(user.id, key, wanted)
        while True:  # a request that is overtaken by its twin finds the twin's session
            if claim is not None and (earlier := await earlier_start(self._database, claim)):
                return await self._with_candles(user.id, earlier)
            if stored := await self._stored(user, wanted, claim):
                await start_workflow(self._temporal, stored)
                return await self._with_candles(user.id, stored.id)

    async def _stored(
        self, user: UserRecord, wanted: StartBacktest, claim: IdempotencyClaim | None
    ) -> SessionRecord | None:
        """None when a request with the same key has started its session meanwhile."""
        new = await self._new(user, wanted)
        async with self._database.for_user(user.id) as session:
            keys = IdempotencyRepository(session)
            if claim is not None and await keys.claim(claim) is not None:
                return None
            sessions = SessionRepository(session)
            check_room(self._config, user, await sessions.count_active(user.id))
            # It may have been archived or deleted while the candles were read.
            living(await AgentRepository(session).lock(wanted.agent_id))
            return await add_once(session, new, claim)

    async def _with_candles(self, user_id: UUID, session_id: UUID) -> Started:
        """The session as it stands once its candles are there, or waiting for them gets long."""
        until = time.monotonic() + START_PATIENCE_S
        while True:
            async with self._database.for_user(user_id) as session:
                stored = await SessionRepository(session).get(session_id)
                settings = await RunningSessionRepository(session).settings(session_id)
            if stored is None:
                raise NotFound("session")
            if settings is not None:
                return await self._started(stored, settings)
            if stored.status != "initializing" or time.monotonic() > until:
                return Started(session=stored, frame=None)
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _started(self, stored: SessionRecord, settings: SessionSettings) -> Started:
        frame = await self._frames.get(stored.user_id, FrameKey.of_session(settings))
        return Started(
            session=stored,
            frame=frame,
            estimated_cost_usd=await self._costs.of_backtest(stored.id, settings, frame),
        )

    async def _new(self, user: UserRecord, wanted: StartBacktest) -> NewSession:
        timeframe = Timeframe.parse(wanted.timeframe)
        basis = await self._read_basis(user.id, wanted, timeframe)
        new = _new_session(user.id, wanted, basis, timeframe)
        if basis.data_set is None:
            plan = _plan(basis.agent)
            waiting = {"warm_up_candles": plan.warm_up, "data_source": self._config.market_source}
            return new.model_copy(update=waiting)
        window = await self._window(user.id, wanted, _frame_key(basis, basis.data_set, timeframe))
        chosen = {"data_set_id": basis.data_set.id, "data_source": basis.data_set.source}
        return new.model_copy(update=asdict(window) | chosen)

    async def _window(self, user_id: UUID, wanted: StartBacktest, key: FrameKey) -> SessionWindow:
        readiness = wanted.indicator_readiness_threshold / _PERCENT
        try:
            return await session_window(
                self._frames, user_id, key, blind=wanted.blind, readiness=readiness
            )
        except NoCandles:
            raise no_candles(_WHERE) from None
        except NeverReady:
            raise _never_ready() from None

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
        # What a history has, and lacks, the workflow finds out.
        whole = [each for each in candidates if not each.is_history]
        is_fetched = self._config.market_source is not None and wanted.data_source in {
            None,
            self._config.market_source,
        }
        choose = _chosen_or_fetched if is_fetched else _chosen
        data_set, range_ = choose(wanted, whole, timeframe)
        return Basis(agent=agent, settings=settings, data_set=data_set, range=range_)


def _chosen(
    wanted: StartBacktest, candidates: Sequence[DataSetRecord], timeframe: Timeframe
) -> tuple[DataSetRecord, TimeRange]:
    """The set that has the range, or most of it."""
    range_ = _range(wanted, candidates, timeframe)
    data_set = choose_data_set(candidates, timeframe, range_)
    if data_set is None:
        raise no_candles(_WHERE)
    return data_set, range_


def _chosen_or_fetched(
    wanted: StartBacktest, candidates: Sequence[DataSetRecord], timeframe: Timeframe
) -> tuple[DataSetRecord | None, TimeRange]:
    """The set that has all of the range; without one the range is fetched."""
    days = MOVING_PRESETS.get(wanted.date_preset or "")
    if days is None:
        range_ = _range(wanted, candidates, timeframe)
        return covering_data_set(candidates, timeframe, range_), range_
    # A set that is followed live ends where it was left, not at the newest candle.
    whole = [each for each in candidates if not each.grows]
    if whole:
        newest = newest_range(whole, timeframe, days)
        if (data_set := covering_data_set(whole, timeframe, newest)) is not None:
            return data_set, newest
    return None, TimeRange.until_now(timeframe, days)


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


def _plan(agent: AgentRecord) -> IndicatorPlan:
    return plan_indicators(agent.indicators, stored_formulas(agent.custom_indicators))


def _frame_key(basis: Basis, data_set: DataSetRecord, timeframe: Timeframe) -> FrameKey:
    plan = _plan(basis.agent)
    return FrameKey(
        data_set_id=data_set.id,
        start_ms=basis.range.start_ms,
        end_ms=basis.range.end_ms,
        timeframe=timeframe,
        warm_up=plan.warm_up,
        identifiers=plan.identifiers,
        custom=plan.custom,
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
        ai_summary=wanted.ai_summary,
    )


def _never_ready() -> Invalid:
    return Invalid(
        "The indicators never reach this readiness in the chosen range: choose a longer range, "
        "shorter indicators or a lower indicator_readiness_threshold.",
        ["body", "indicator_readiness_threshold"],
    )
