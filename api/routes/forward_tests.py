"""Forward tests: start, watch, control."""

from uuid import UUID

from fastapi import APIRouter, Response

from api.dependencies import CurrentUser, InjectedServices
from api.errors import NotFound
from api.idempotency import IdempotencyKey
from api.schemas.arena import (
    ActiveSession,
    ActiveSessions,
    ForwardAnswer,
    ForwardOut,
    ForwardStartAnswer,
    ForwardStoppedAnswer,
    PausedAnswer,
    ResumedAnswer,
    StartedForward,
    StartForward,
    StopTest,
)
from api.schemas.errors import documented
from db.models.sessions import UNFINISHED
from db.repositories.sessions import SessionRepository

router = APIRouter(
    prefix="/api/arena/forward", tags=["forward tests"], responses=documented(401, 403, 503)
)

_ACCEPTED = 202


@router.post("/start", status_code=201, responses=documented(404, 409, 422))
async def start_forward_test(
    services: InjectedServices,
    user: CurrentUser,
    wanted: StartForward,
    key: IdempotencyKey = None,
) -> ForwardStartAnswer:
    """Start a forward test; watch it on `websocket_url`."""
    stored = await services.forward_tests.start(user, wanted, key=key)
    url = f"{services.config.websocket_url}/ws/forward/{stored.id}"
    started = StartedForward.model_validate(
        stored.model_dump() | {"status": "running", "websocket_url": url}
    )
    return ForwardStartAnswer(session=started, message="Forward test started")


@router.get("/active")
async def list_active_forward_tests(
    services: InjectedServices, user: CurrentUser
) -> ActiveSessions:
    """The user's forward tests that have not ended, the newest first."""
    async with services.database.for_user(user.id) as session:
        active = await SessionRepository(session).active(type="forward")
    return ActiveSessions(sessions=[ActiveSession.of(each) for each in active])


@router.get("/{session_id:uuid}", responses=documented(404, 422))
async def get_forward_test(
    services: InjectedServices, user: CurrentUser, session_id: UUID
) -> ForwardAnswer:
    async with services.database.for_user(user.id) as session:
        found = await SessionRepository(session).status(session_id, type="forward")
    if found is None:
        raise NotFound("session")
    is_live = found.status in UNFINISHED
    progress = await services.temporal.progress(session_id, "forward") if is_live else None
    return ForwardAnswer(session=ForwardOut.of(found, progress))


@router.post("/{session_id}/pause", responses=documented(404, 409, 422))
async def pause_forward_test(
    services: InjectedServices, user: CurrentUser, session_id: UUID
) -> PausedAnswer:
    """Take no more decisions; candles, stops and limits go on."""
    since = await services.controls.pause(user.id, session_id, "forward")
    return PausedAnswer(session_id=session_id, paused_at=since)


@router.post("/{session_id}/resume", responses=documented(404, 409, 422))
async def resume_forward_test(
    services: InjectedServices, user: CurrentUser, session_id: UUID
) -> ResumedAnswer:
    await services.controls.resume(user.id, session_id, "forward")
    return ResumedAnswer(session_id=session_id)


@router.post(
    "/{session_id}/stop",
    responses=documented(404, 409, 422) | {_ACCEPTED: {"model": ForwardStoppedAnswer}},
)
async def stop_forward_test(
    services: InjectedServices,
    user: CurrentUser,
    session_id: UUID,
    response: Response,
    wanted: StopTest | None = None,
) -> ForwardStoppedAnswer:
    """Stop and wait ten seconds for the result; 202 when it takes longer."""
    closes = wanted is None or wanted.close_position
    stopped = await services.controls.stop(
        user.id, session_id, close_position=closes, type="forward"
    )
    if stopped.status == "running":
        response.status_code = _ACCEPTED
    return ForwardStoppedAnswer(
        session_id=session_id,
        status=stopped.status,
        result_id=stopped.result_id,
        final_pnl=stopped.final_pnl_pct,
        position_closed=stopped.position_closed,
    )
