"""Makes a forward test: its rules and its row, then the workflow that runs it."""

from uuid import UUID

from api.config import ApiConfig
from api.errors import Conflict, Invalid, NotFound, Unavailable
from api.idempotency import claim_of
from api.schemas.arena import StartForward
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
from db.market_frames import stored_formulas
from db.models.agents import AgentRecord
from db.models.sessions import NewSession, SessionRecord
from db.models.users import UserRecord, UserSettingsRecord
from db.repositories.agents import AgentRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.sessions import SessionRepository
from db.repositories.users import UserRepository
from trading.candles import Timeframe
from trading.indicators import plan_indicators
from workflows.runtime import Temporal, workflow_id

_PERCENT = 100


class ForwardTests:
    """Starts forward tests."""

    def __init__(self, *, config: ApiConfig, database: Database, temporal: Temporal) -> None:
        self._config = config
        self._database = database
        self._temporal = temporal

    async def start(
        self, user: UserRecord, wanted: StartForward, *, key: str | None = None
    ) -> SessionRecord:
        """Commit the session's row, then start its workflow; return the row.

        The `key` of an earlier request leads to the session that it started. Raises ApiError: no
        such agent, no profitable backtest of it, too many tests, no source of live prices, or
        Temporal away, in which case the row stays and the test starts later.
        """
        if not self._config.has_live_market:
            raise Unavailable("This installation has no source of live prices.")
        claim = None if key is None else claim_of(user.id, key, wanted)
        while True:  # a request that is overtaken by its twin finds the twin's session
            if claim is not None and (earlier := await earlier_start(self._database, claim)):
                return await self._found(user, earlier)
            if stored := await self._stored(user, wanted, claim):
                await start_workflow(self._temporal, stored)
                return stored

    async def _stored(
        self, user: UserRecord, wanted: StartForward, claim: IdempotencyClaim | None
    ) -> SessionRecord | None:
        async with self._database.for_user(user.id) as session:
            keys, sessions = IdempotencyRepository(session), SessionRepository(session)
            if claim is not None and await keys.claim(claim) is not None:
                return None
            check_room(self._config, user, await sessions.count_active(user.id))
            agent = living(await AgentRepository(session).lock(wanted.agent_id))
            await _check_gate(sessions, agent)
            settings = await UserRepository(session).settings(user.id)
            new = _new_session(user.id, wanted, agent, settings)
            return await add_once(session, new, claim)

    async def _found(self, user: UserRecord, session_id: UUID) -> SessionRecord:
        async with self._database.for_user(user.id) as session:
            stored = await SessionRepository(session).get(session_id)
        if stored is None:
            raise NotFound("session")
        return stored


async def _check_gate(sessions: SessionRepository, agent: AgentRecord) -> None:
    if agent.api_key_id is None:
        raise Conflict("Give the agent an API key before it is tested.", code="NO_API_KEY")
    if not await sessions.has_profitable_backtest(agent.id):
        raise Conflict(
            "A forward test needs a profitable backtest of this agent with at least one trade.",
            code="NO_PROFITABLE_BACKTEST",
        )


def _new_session(
    user_id: UUID, wanted: StartForward, agent: AgentRecord, settings: UserSettingsRecord
) -> NewSession:
    if wanted.fill_timing != "next_open":
        raise Invalid(
            "A forward test fills at the next open: the close has passed when it is known.",
            ["body", "fill_timing"],
        )
    timeframe, session_id = Timeframe.parse(wanted.timeframe), new_id()
    plan = plan_indicators(agent.indicators, stored_formulas(agent.custom_indicators))
    stop_at = wanted.auto_stop_loss_pct / _PERCENT if wanted.auto_stop_on_loss else None
    rules = rules_of(wanted, agent, settings, timeframe, auto_stop_loss=stop_at)
    return NewSession(
        id=session_id,
        user_id=user_id,
        agent_id=agent.id,
        agent_version_id=agent.agent_version_id,
        agent_name=agent.name,
        workflow_id=workflow_id(session_id, "forward"),
        rules=stored_rules(rules),
        type="forward",
        status="initializing",
        mode=agent.mode,
        asset=wanted.asset,
        timeframe=timeframe.value,
        starting_capital=wanted.starting_capital,
        safety_mode=rules.safety_mode,
        allow_leverage=rules.allow_leverage,
        decision_mode=wanted.decision_mode,
        decision_interval_candles=interval_of(wanted),
        warm_up_candles=plan.warm_up,
        fee_bps=wanted.fee_bps,
        slippage_bps=wanted.slippage_bps,
        fill_timing=wanted.fill_timing,
        intrabar=wanted.intrabar,
        blind=wanted.blind,
        max_cost_usd=wanted.max_cost_usd,
        ai_summary=wanted.ai_summary,
        email_notifications=wanted.email_notifications,
        auto_stop_on_loss=wanted.auto_stop_on_loss,
        auto_stop_loss_pct=wanted.auto_stop_loss_pct if wanted.auto_stop_on_loss else None,
    )
