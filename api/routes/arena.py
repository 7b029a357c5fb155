"""What concerns tests of both kinds."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import CurrentUser, InjectedServices
from api.schemas.arena import CleanedUp, CleanupQuery
from api.schemas.errors import documented
from api.session_cleanup import remove_unstarted

router = APIRouter(prefix="/api/arena", tags=["arena"], responses=documented(401, 403, 503))


@router.delete("/cleanup", responses=documented(422))
async def clean_up(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[CleanupQuery, Query()]
) -> CleanedUp:
    """Remove tests that were stored more than half a minute ago and have no workflow.

    Tests that run, have run or wait for a worker stay.
    """
    kind = None if wanted.session_type == "all" else wanted.session_type
    removed = await remove_unstarted(services.database, services.temporal, user.id, kind)
    return CleanedUp(
        deleted_sessions=removed,
        message=f"{removed} session{'' if removed == 1 else 's'} removed",
        session_type=wanted.session_type,
    )
