"""The one shape of every error answer, and how each failure becomes one.

ApiError (an HTTPException, so that it passes through the framework untouched)
├── NotFound         404 <THING>_NOT_FOUND, also for what belongs to somebody else
│   └── UnknownCertificate  and that it is not verified
├── Unauthorized     401, with WWW-Authenticate
├── Forbidden        403
├── Conflict         409 and its kinds
├── Invalid          422, naming where
├── TooManyRequests  429 RATE_LIMITED, with Retry-After
└── Unavailable      503 UPSTREAM_UNAVAILABLE
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope
from typing_extensions import override

from integrations.errors import IntegrationError
from trading.errors import InvalidCandles, InvalidFormula, TradingError

Location = Sequence[str | int]

# What others fail with when they are away, or too busy to answer.
UNREACHABLE = (
    IntegrationError,
    OperationalError,
    InterfaceError,
    PoolTimeout,
    RedisError,
    ConnectionError,
    TimeoutError,
)

_logger = structlog.get_logger(__name__)

_CODES = {
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    410: "GONE",
    413: "REQUEST_TOO_LARGE",
    422: "VALIDATION_ERROR",
    429: "RATE_LIMITED",
    503: "UPSTREAM_UNAVAILABLE",
}

_UNREADABLE = "The request body cannot be read."

_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not answer to that method.",
    413: "The request body is too large.",
}


class JsonResponse(Response):
    """JSON as the standard has it: no NaN, no infinity."""

    media_type = "application/json"

    @override
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class ApiError(HTTPException):
    """An answer other than success, with a sentence a person can act on."""

    def __init__(
        self,
        status_code: int,
        error_code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, detail, headers)
        self.error_code = error_code
        self.errors = errors
        # What the answer says beside what every error says.
        self.facts: Mapping[str, Any] = {}


class NotFound(ApiError):
    """There is no such thing, or it belongs to somebody else."""

    def __init__(self, thing: str) -> None:
        code = f"{thing.upper().replace(' ', '_')}_NOT_FOUND"
        super().__init__(404, code, f"No such {thing}.")


class UnknownCertificate(NotFound):
    """Nobody was given a certificate with this code."""

    def __init__(self) -> None:
        super().__init__("certificate")
        self.facts = {"verified": False}


class Unauthorized(ApiError):
    """Nobody is signed in."""

    def __init__(self, detail: str) -> None:
        super().__init__(401, "UNAUTHORIZED", detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """Somebody is signed in, but may not."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, "FORBIDDEN", detail)


class AccountDeactivated(Forbidden):
    """The user has been shut out."""

    def __init__(self) -> None:
        super().__init__("This account is deactivated.")


class Conflict(ApiError):
    """The request does not fit the state that things are in."""

    def __init__(self, detail: str, *, code: str = "CONFLICT") -> None:
        super().__init__(409, code, detail)


class Invalid(ApiError):
    """A value is wrong; `location` says where, as validation errors do."""

    def __init__(
        self, detail: str, location: Location = (), *, code: str = "VALIDATION_ERROR"
    ) -> None:
        errors = [{"loc": list(location), "msg": detail}]
        super().__init__(422, code, detail, errors=errors)


class TooManyRequests(ApiError):
    """Somebody asks more often than everybody may."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            429,
            "RATE_LIMITED",
            f"Too many requests. Try again in {retry_after_s} s.",
            headers={"Retry-After": str(retry_after_s)},
        )


class Unavailable(ApiError):
    """Something this service depends on does not answer."""

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        headers = None if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
        super().__init__(503, "UPSTREAM_UNAVAILABLE", detail, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(TradingError, _answer_trading_error)
    for unreachable in UNREACHABLE:
        app.add_exception_handler(unreachable, _answer_unreachable)


def error_response(error: HTTPException, request_id: str) -> JsonResponse:
    """Return the answer that stands for `error`."""
    body: dict[str, Any] = {
        "detail": _detail(error),
        "error_code": getattr(error, "error_code", None) or _code(error.status_code),
        "status_code": error.status_code,
        "request_id": request_id,
    }
    body |= getattr(error, "facts", {})
    if error.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        body["errors"] = getattr(error, "errors", None) or []
    return JsonResponse(body, error.status_code, dict(error.headers or {}))


def internal_error() -> ApiError:
    return ApiError(
        500,
        "INTERNAL_ERROR",
        "Something went wrong on our side. Quote the request_id when you report it.",
    )


def unavailable(error: Exception) -> Unavailable:
    """Say that something does not answer; `error` is one of `UNREACHABLE`."""
    if isinstance(error, IntegrationError):
        return Unavailable(str(error), retry_after=getattr(error, "retry_after", None))
    _logger.warning("dependency_unreachable", error=type(error).__name__)
    name = "database" if isinstance(error, SQLAlchemyError) else "service"
    return Unavailable(f"A {name} we depend on does not answer. Try again soon.")


def translate_trading_error(error: TradingError, location: Location = ()) -> Invalid:
    """Say what is wrong with a formula, an indicator, an asset, a timeframe or a candle file."""
    where = list(location)
    if isinstance(error, InvalidFormula):
        where.append(error.column)
    if isinstance(error, InvalidCandles) and error.line is not None:
        where.append(error.line)
    return Invalid(str(error), where)


def _detail(error: HTTPException) -> str:
    if isinstance(error, ApiError):
        return error.detail
    return _SENTENCES.get(error.status_code) or str(error.detail)


def _code(status_code: int) -> str:
    return _CODES.get(status_code) or HTTPStatus(status_code).name


def _respond(request: Request, error: HTTPException) -> JsonResponse:
    return error_response(error, request.state.request_id)


async def _answer_http_exception(request: Request, error: Exception) -> JsonResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the framework's signature
    if error.status_code == HTTPStatus.BAD_REQUEST:  # the framework's word for such a body
        error = Invalid(_UNREADABLE, ["body"])
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request.app.routes, request.scope)))}
    return _respond(request, error)


def _methods_of(routes: Iterable[BaseRoute], scope: Scope) -> set[str]:
    """Every method that the address answers to; the framework names those of one route."""
    found: set[str] = set()
    for route in routes:
        if (included := getattr(route, "original_router", None)) is not None:
            found |= _methods_of(included.routes, scope)
        elif route.matches(scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found


async def _answer_validation_error(request: Request, error: Exception) -> JsonResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = [{"loc": list(each["loc"]), "msg": _message(each)} for each in error.errors()]
    return _respond(request, ApiError(422, "VALIDATION_ERROR", _summary(problems), errors=problems))


def _message(problem: Mapping[str, Any]) -> str:
    match problem:
        case {"type": "json_invalid", "ctx": {"error": reason}, "loc": (_, position)}:
            return f"The body is not JSON: {reason} at character {position}"
        case {"type": "too_short", "input": str(), "ctx": {"min_length": shortest}}:
            return f"must have at least {shortest} character{'s' if shortest > 1 else ''}"
        case {"type": "too_long", "input": str(), "ctx": {"max_length": longest}}:
            return f"must have at most {longest} characters"
        case _:
            return str(problem["msg"]).removeprefix("Value error, ")


def _summary(problems: Sequence[Mapping[str, Any]]) -> str:
    if not problems:
        return "The request is not valid."
    parts = problems[0]["loc"][1:]
    # The place of a fault in the JSON itself is a character, not a field.
    path = "" if parts and isinstance(parts[0], int) else ".".join(str(part) for part in parts)
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path}: {problems[0]['msg']}{more}" if path else f"{problems[0]['msg']}{more}"


async def _answer_trading_error(request: Request, error: Exception) -> JsonResponse:
    assert isinstance(error, TradingError)  # noqa: S101
    return _respond(request, translate_trading_error(error))


async def _answer_unreachable(request: Request, error: Exception) -> JsonResponse:
    return _respond(request, unavailable(error))
