"""Results of finished tests."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import CurrentUser, InjectedServices
from api.errors import Conflict, NotFound
from api.result_files import result_file
from api.schemas.base import Pagination
from api.schemas.errors import documented
from api.schemas.parity import ParityAnswer, ParityOut
from api.schemas.results import (
    ExportQuery,
    ReasoningAnswer,
    ReasoningQuery,
    ResultAnswer,
    ResultDetail,
    ResultOut,
    ResultsAnswer,
    ResultsQuery,
    ResultStats,
    ResultStatsAnswer,
    Thought,
    TradeOut,
    TradesAnswer,
    TradesQuery,
    TradesSummary,
)
from db.models.results import ResultRecord
from db.recordings import load_recording
from db.repositories.decisions import DecisionRepository
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from db.repositories.trades import TradeRepository
from trading.parity import Recording, check_parity

router = APIRouter(prefix="/api/results", tags=["results"], responses=documented(401, 403, 503))

_FILE = "The file."
_FILE_TYPES: dict[str, Any] = {"application/json": {}, "text/csv": {}, "application/zip": {}}


@router.get("", responses=documented(422))
async def list_results(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[ResultsQuery, Query()]
) -> ResultsAnswer:
    """List results, the newest first."""
    async with services.database.for_user(user.id) as session:
        found, total = await ResultRepository(session).page(wanted.to_filter())
    return ResultsAnswer(
        results=[ResultOut.of(each) for each in found],
        pagination=Pagination.of(wanted.page, wanted.limit, total),
    )


@router.get("/stats")
async def result_stats(services: InjectedServices, user: CurrentUser) -> ResultStatsAnswer:
    """All of the user's results at a glance."""
    async with services.database.for_user(user.id) as session:
        figures = await ResultRepository(session).figures()
    return ResultStatsAnswer(stats=ResultStats.of(figures))


@router.get("/{result_id}", responses=documented(404, 422))
async def get_result(
    services: InjectedServices, user: CurrentUser, result_id: UUID
) -> ResultAnswer:
    async with services.database.for_user(user.id) as session:
        found = await _existing(session, result_id)
    return ResultAnswer(result=ResultDetail.of_record(found))


@router.get("/{result_id}/trades", responses=documented(404, 422))
async def list_trades(
    services: InjectedServices,
    user: CurrentUser,
    result_id: UUID,
    wanted: Annotated[TradesQuery, Query()],
) -> TradesAnswer:
    """List trades in their order; the summary is of all that match."""
    async with services.database.for_user(user.id) as session:
        result = await _existing(session, result_id)
        trades, summary, total = await TradeRepository(session).page(
            result.session_id, wanted.to_filter()
        )
    return TradesAnswer(
        trades=[TradeOut.of(trade) for trade in trades],
        summary=TradesSummary.of(summary),
        pagination=Pagination.of(wanted.page, wanted.limit, total),
    )


@router.get("/{result_id}/reasoning", responses=documented(404, 422))
async def list_reasoning(
    services: InjectedServices,
    user: CurrentUser,
    result_id: UUID,
    wanted: Annotated[ReasoningQuery, Query()],
) -> ReasoningAnswer:
    """List what the agent thought, candle by candle."""
    async with services.database.for_user(user.id) as session:
        result = await _existing(session, result_id)
        found, total = await DecisionRepository(session).page(result.session_id, wanted.to_filter())
    thoughts = [Thought.of(each) for each in found]
    return ReasoningAnswer(
        reasoning=thoughts,
        thoughts=thoughts,
        total_entries=total,
        pagination=Pagination.of(wanted.page, wanted.limit, total),
    )


@router.get(
    "/{result_id}/export",
    response_class=StreamingResponse,
    responses=documented(404, 422) | {200: {"description": _FILE, "content": _FILE_TYPES}},
)
async def export_result(
    services: InjectedServices,
    user: CurrentUser,
    result_id: UUID,
    wanted: Annotated[ExportQuery, Query()],
) -> StreamingResponse:
    """Download a result: JSON, one CSV, or a zip of several; equity is of every candle.

    In CSV, texts that a spreadsheet would run as a formula have an apostrophe before them.
    """
    async with services.database.for_user(user.id) as session:
        result = await _existing(session, result_id)
    file = result_file(services.database, result, wanted.format, wanted.parts)
    return StreamingResponse(
        file.content,
        media_type=file.media_type,
        headers={"Content-Disposition": f'attachment; filename="{file.name}"'},
    )


@router.get("/{result_id}/parity", responses=documented(404, 409, 422))
async def get_parity(
    services: InjectedServices, user: CurrentUser, result_id: UUID
) -> ParityAnswer:
    """Fold what the test recorded once more, and compare trades and equity to the last bit."""
    async with services.database.for_user(user.id) as session:
        result = await _existing(session, result_id)
        recording = await _recording(session, result.session_id)
    async with services.refolding:
        parity = await asyncio.to_thread(check_parity, recording)
    return ParityAnswer(parity=ParityOut.of(parity))


async def _recording(session: AsyncSession, session_id: UUID) -> Recording:
    record = await SessionRepository(session).get(session_id)
    if record is None:
        raise NotFound("session")
    if record.data_set_id is None:
        raise Conflict("The candles of this test have been deleted.", code="CANDLES_DELETED")
    return await load_recording(session, record)


async def _existing(session: AsyncSession, result_id: UUID) -> ResultRecord:
    found = await ResultRepository(session).get(result_id)
    if found is None:
        raise NotFound("result")
    return found
