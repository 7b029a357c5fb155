"""Exports: ask for a file with what the account holds, and take it away."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.dependencies import CurrentUser, InjectedServices, Services
from api.exports import expired, file_name
from api.idempotency import IdempotencyKey
from api.schemas.errors import documented
from api.schemas.exports import ExportOut, ExportRequest, ExportStarted
from api.signed_links import LinkQuery
from db.models import ExportRecord
from integrations.errors import ObjectNotFound
from integrations.storage.objects import ObjectStream

router = APIRouter(prefix="/api/export", tags=["export"])

_SIGNED_IN = documented(401, 403, 503)
_FILE_TYPES: dict[str, Any] = {"application/zip": {}, "application/json": {}}
_MEDIA_TYPES = {"zip": "application/zip", "json": "application/json"}


@router.post("", status_code=202, responses=_SIGNED_IN | documented(409, 422))
async def start_export(
    services: InjectedServices,
    user: CurrentUser,
    wanted: ExportRequest,
    key: IdempotencyKey = None,
) -> ExportStarted:
    """Ask for a file with parts of the account; `GET /api/export/{id}` says when it is there."""
    return await services.exports.start(user.id, wanted, key=key)


@router.get("/{export_id}", responses=_SIGNED_IN | documented(404, 422))
async def get_export(services: InjectedServices, user: CurrentUser, export_id: UUID) -> ExportOut:
    return await services.exports.get(user.id, export_id)


@router.get(
    "/{export_id}/download",
    response_class=StreamingResponse,
    responses=documented(403, 404, 410, 422, 503)
    | {200: {"description": "The file.", "content": _FILE_TYPES}},
)
async def download_export(
    services: InjectedServices,
    request: Request,
    export_id: UUID,
    link: Annotated[LinkQuery, Query()],
) -> StreamingResponse:
    """Download the file of `download_url`, which carries the signature that takes a token's place.

    In CSV, texts that a spreadsheet would run as a formula have an apostrophe before them.
    """
    services.links.check(request.method, request.url.path, link)
    export, stream = await _found(services, export_id)
    return StreamingResponse(
        stream.content, media_type=_MEDIA_TYPES[export.format], headers=_headers(export, stream)
    )


@router.head("/{export_id}/download", include_in_schema=False)
async def describe_export(
    services: InjectedServices,
    request: Request,
    export_id: UUID,
    link: Annotated[LinkQuery, Query()],
) -> Response:
    """What GET would send with the file."""
    services.links.check(request.method, request.url.path, link)
    export, stream = await _found(services, export_id)
    return Response(media_type=_MEDIA_TYPES[export.format], headers=_headers(export, stream))


async def _found(services: Services, export_id: UUID) -> tuple[ExportRecord, ObjectStream]:
    export = await services.exports.downloadable(export_id)
    try:
        return export, await services.storage.stream(export.object_key or "")
    except ObjectNotFound:
        raise expired() from None


def _headers(export: ExportRecord, stream: ObjectStream) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{file_name(export)}"',
        "Content-Length": str(stream.size_bytes),
        # Whoever has the address has the file: it is to stay in no cache on the way.
        "Cache-Control": "private, no-store",
    }
