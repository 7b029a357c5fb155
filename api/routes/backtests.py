"""Backtests: start, watch, control."""

from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from fastapi import APIRouter, Response

from api.backtests import Started
from api.dependencies import CurrentUser, InjectedServices, Services
from api.errors import NotFound
from api.idempotency import IdempotencyKey
from api.schemas.arena import (
    ActiveSession,
    ActiveSessions,
    PausedAnswer,
    PreviewCandle,
    ResumedAnswer,
    SessionAnswer,
    SessionOut,
    SpeedAnswer,
    SpeedChange,
    StartAnswer,
    StartBacktest,
    StartedSession,
    StoppedAnswer,
    StopTest,
)
from api.schemas.errors import documented
from db.models.sessions import UNFINISHED
from db.repositories.sessions import SessionRepository

router = APIRouter(
    prefix="/api/arena/backtest", tags=["backtests"], responses=documented(401, 403, 503)
)

PREVIEW_CANDLES = 500
_ACCEPTED = 202


@router.post("/start", status_code=201, responses=documented(404, 409, 422))
async def start_backtest(
    services: InjectedServices,
    user: CurrentUser,
    wanted: StartBacktest,
    key: IdempotencyKey = None,
) -> StartAnswer:
    """Start a backtest; watch it on `websocket_url`.

    Candles that have to be fetched are waited for some seconds. A test whose candles take longer
    begins later, and fails if there are none; until then `total_candles` is 0, and the dates are
    those that were asked for.
    """
    started = await services.backtests.start(user, wanted, key=key)
    return StartAnswer(session=_started(services, started), message="Backtest started")


@router.get("/active")
async def list_active(services: InjectedServices, user: CurrentUser) -> ActiveSessions:
    """The user's backtests that have not ended, the newest first."""
    async with services.database.for_user(user.id) as session:
        active = await SessionRepository(session).active(type="backtest")
    return ActiveSessions(sessions=[ActiveSession.of(each) for each in active])


@router.get("/{session_id:uuid}", responses=documented(404, 422))
async def get_backtest(
    services: InjectedServices, user: CurrentUser, session_id: UUID
) -> SessionAnswer:
    """How a backtest stands."""
    async with services.database.for_user(user.id) as session:
        found = await SessionRepository(session).status(session_id, type="backtest")
    if found is None:
        raise NotFound("session")
    is_live = found.status in UNFINISHED
    progress = await services.temporal.progress(session_id) if is_live else None
    return SessionAnswer(session=SessionOut.of(found, progress))


@router.post("/{session_id}/pause", responses=documented(404, 409, 422))
async def pause(services: InjectedServices, user: CurrentUser, session_id: UUID) -> PausedAnswer:
    """Pause within one candle; pausing a paused test changes nothing."""
    since = await services.controls.pause(user.id, session_id, "backtest")
    return PausedAnswer(session_id=session_id, paused_at=since)


@router.post("/{session_id}/resume", responses=documented(404, 409, 422))
async def resume(services: InjectedServices, user: CurrentUser, session_id: UUID) -> ResumedAnswer:
    await services.controls.resume(user.id, session_id, "backtest")
    return ResumedAnswer(session_id=session_id)


@router.post("/{session_id}/speed", responses=documented(404, 409, 422))
async def change_speed(
    services: InjectedServices, user: CurrentUser, session_id: UUID, change: SpeedChange
) -> SpeedAnswer:
    await services.controls.set_speed(user.id, session_id, change.speed)
    return SpeedAnswer(session_id=session_id, speed=change.speed)


@router.post(
    "/{session_id}/stop",
    responses=documented(404, 409, 422) | {_ACCEPTED: {"model": StoppedAnswer}},
)
async def stop(
    services: InjectedServices,
    user: CurrentUser,
    session_id: UUID,
    response: Response,
    wanted: StopTest | None = None,
) -> StoppedAnswer:
    """Stop and wait ten seconds for the result; 202 when it takes longer."""
    stopped = await services.controls.stop(
        user.id,
        session_id,
        close_position=wanted is None or wanted.close_position,
        type="backtest",
    )
    if stopped.status == "running":
        response.status_code = _ACCEPTED
    return StoppedAnswer(
        session_id=session_id,
        status=stopped.status,
        result_id=stopped.result_id,
        final_pnl=stopped.final_pnl_pct,
    )


def _started(services: Services, started: Started) -> StartedSession:
    session = started.session
    candles = () if started.frame is None else started.frame.candles
    return StartedSession.model_validate(
        session.model_dump()
        | {
            "status": "initializing",  # as the first answer said, however often it is asked for
            "websocket_url": f"{services.config.websocket_url}/ws/backtest/{session.id}",
            "estimated_cost_usd": started.estimated_cost_usd,
            "preview_candles": [
                PreviewCandle(
                    timestamp=datetime.fromtimestamp(candle.open_time / 1000, tz=UTC),
                    open=candle.open,
                    high=candle.high,
                    low=candle.low,
                    close=candle.close,
                    volume=candle.volume,
                )
                for candle in islice(candles, PREVIEW_CANDLES)
            ],
        }
    )
