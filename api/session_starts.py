"""What starts of backtests and of forward tests share."""

from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from api.config import ApiConfig
from api.errors import AccountDeactivated, Conflict, NotFound, Unavailable
from api.idempotency import check_same
from api.schemas.arena import StartTest
from db.engine import Database
from db.models.agents import AgentRecord
from db.models.sessions import NewSession, SessionRecord
from db.models.users import UserRecord, UserSettingsRecord
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.sessions import SessionRepository
from trading.candles import Timeframe
from trading.rules import FillTiming, Intrabar, Mode, Rules
from workflows.runtime import Temporal, TemporalUnreachable

_BASIS_POINTS = 10_000
_PERCENT = 100

_RULES = TypeAdapter(Rules)


def check_room(config: ApiConfig, user: UserRecord, active: int | None) -> None:
    """Raise a Conflict where the user's plan allows no more tests at once.

    And AccountDeactivated where `active` is None: the user was shut out during the request.
    """
    if active is None:
        raise AccountDeactivated
    allowed = config.active_tests_allowed(user.plan)
    if allowed is not None and active >= allowed:
        raise Conflict(
            f"Your plan allows {allowed} tests at once. Stop one or wait for it to end.",
            code="TOO_MANY_ACTIVE_TESTS",
        )


async def earlier_start(database: Database, claim: IdempotencyClaim) -> UUID | None:
    """The session that a request with the same key has started. Raises where it asked otherwise."""
    async with database.for_user(claim.user_id) as session:
        record = await IdempotencyRepository(session).find(claim)
    if record is None:
        return None
    check_same(claim, record)
    return UUID((record.response or {})["session_id"])


async def add_once(
    session: AsyncSession, new: NewSession, claim: IdempotencyClaim | None
) -> SessionRecord:
    """Store a session, and which one it is under the key that was claimed for it."""
    stored = await SessionRepository(session).add(new)
    if claim is not None:
        await IdempotencyRepository(session).answer(
            claim.user_id, claim.key, status_code=201, response={"session_id": str(stored.id)}
        )
    return stored


async def start_workflow(temporal: Temporal, session: SessionRecord) -> None:
    """Start the workflow of a stored session, which otherwise starts by itself later."""
    try:
        await temporal.start_again(session)
    except TemporalUnreachable:
        raise Unavailable(
            f"The test {session.id} was stored, but the engine that runs tests does not "
            "answer. It starts by itself as soon as the engine is back."
        ) from None


def living(agent: AgentRecord | None) -> AgentRecord:
    """The agent, unless it is gone or archived."""
    if agent is None or agent.is_archived:
        raise NotFound("agent")
    return agent


def rules_of(
    wanted: StartTest,
    agent: AgentRecord,
    settings: UserSettingsRecord,
    timeframe: Timeframe,
    *,
    auto_stop_loss: float | None = None,
) -> Rules:
    """Every number the simulation reads; later changes of the settings change nothing."""
    return Rules(
        starting_capital=wanted.starting_capital,
        timeframe_ms=timeframe.milliseconds,
        mode=Mode(agent.mode),
        fee_rate=wanted.fee_bps / _BASIS_POINTS,
        slippage_rate=wanted.slippage_bps / _BASIS_POINTS,
        fill_timing=FillTiming(wanted.fill_timing),
        intrabar=Intrabar(wanted.intrabar),
        safety_mode=_chosen(wanted.safety_mode, settings.safety_mode_default),
        allow_leverage=_chosen(wanted.allow_leverage, settings.allow_leverage_default),
        max_leverage=float(settings.max_leverage),
        max_position_size=settings.max_position_size_pct / _PERCENT,
        max_loss_per_trade=settings.max_loss_per_trade_pct / _PERCENT,
        max_daily_loss=_limit(settings.max_daily_loss_pct),
        max_total_drawdown=_limit(settings.max_total_drawdown_pct),
        auto_stop_loss=auto_stop_loss,
    )


def interval_of(wanted: StartTest) -> int:
    return 1 if wanted.decision_mode == "every_candle" else wanted.decision_interval_candles


def _chosen(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _limit(percent: float) -> float | None:
    """A limit of zero switches the guard off: otherwise it would end every test at once."""
    return percent / _PERCENT or None


def read_rules(stored: dict[str, Any]) -> Rules:
    """The rules that a session's row keeps."""
    return _RULES.validate_python(stored)


def stored_rules(rules: Rules) -> dict[str, Any]:
    """The rules as a session's row keeps them."""
    stored: dict[str, Any] = _RULES.dump_python(rules, mode="json")
    return stored
