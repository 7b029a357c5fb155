"""What Prometheus reads."""

import secrets
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from api.dependencies import InjectedServices
from api.errors import Unauthorized

router = APIRouter(tags=["health"])

_operator = HTTPBearer(
    scheme_name="MetricsToken", auto_error=False, description="The installation's METRICS_TOKEN."
)
# A model would be documented as text, as the answer is.
_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {401: _ERROR, 404: _ERROR, 500: _ERROR}


@router.get("/metrics", response_class=PlainTextResponse, responses=_ERRORS)
async def read_metrics(
    services: InjectedServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_operator)],
) -> Response:
    """This process's metrics for Prometheus; 404 where the installation has no METRICS_TOKEN."""
    wanted = services.config.metrics_token
    if wanted is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    given = "" if credentials is None else credentials.credentials
    if not secrets.compare_digest(given.encode(), wanted.encode()):
        raise Unauthorized("Send the metrics token as `Authorization: Bearer …`.")
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
