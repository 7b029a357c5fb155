"""What happens around every request: its id, its log line, the last catch, the limits."""

import re
from collections.abc import Mapping
from time import perf_counter
from uuid import uuid4

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from api.dependencies import claims_of, client_address
from api.errors import ApiError, TooManyRequests, Unauthorized, error_response, internal_error
from api.metrics import ApiMetrics, MetricsMiddleware
from api.rate_limits import Kind, RateLimits
from api.token_buckets import Take
from integrations.errors import IntegrationError

MIB = 1 << 20
MAX_BODY_BYTES = 1 * MIB
MAX_CANDLE_UPLOAD_BYTES = 64 * MIB

_ALLOWED_METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
_ALLOWED_HEADERS = ["Authorization", "Content-Type", "X-Frontend-URL", "Idempotency-Key"]
_EXPOSED_HEADERS = [
    "X-Request-ID",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Content-Disposition",
]

# Whoever watches over the installation must get through, and so must Clerk: what it sends is
# signed, and strangers at its address must not keep it from telling who was deleted.
_UNLIMITED = frozenset({"/api/health", "/api/ready", "/metrics", "/api/webhooks/clerk"})
_STARTS = frozenset({"/api/arena/backtest/start", "/api/arena/forward/start", "/api/export"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_logger = structlog.get_logger(__name__)


def install_middleware(
    app: FastAPI,
    *,
    cors_origins: tuple[str, ...],
    body_limits: Mapping[str, int],
    rate_limits: RateLimits,
    metrics: ApiMetrics,
) -> None:
    """Wrap the app; CORS outermost, so that browsers can read errors too."""
    app.add_middleware(BodyLimitMiddleware, limits=body_limits)
    app.add_middleware(RateLimitMiddleware, limits=rate_limits)
    app.add_middleware(RequestMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(cors_origins),
        allow_methods=_ALLOWED_METHODS,
        allow_headers=_ALLOWED_HEADERS,
        expose_headers=_EXPOSED_HEADERS,
        max_age=600,
    )


class RequestMiddleware:
    """Gives each request an id, logs its path without the query, answers what nothing caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, exchange.send)
            except Exception:
                _logger.exception("request_failed", method=scope["method"], path=scope["path"])
                if exchange.status is not None:
                    raise
                await error_response(internal_error(), request_id)(scope, receive, exchange.send)
            exchange.log(scope)


class _Exchange:
    """Watches one answer go out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._started_at = perf_counter()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self._request_id
        await self._send(message)

    def log(self, scope: Scope) -> None:
        _logger.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=self.status,
            milliseconds=round((perf_counter() - self._started_at) * 1000, 1),
        )


class RateLimitMiddleware:
    """Counts each request against its user or, where no token proves one, its address.

    It comes before the body is read and the route is found, so that nothing unlimited costs much.
    """

    def __init__(self, app: ASGIApp, *, limits: RateLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._shake_hands(scope, receive, send)
            return
        if scope["type"] != "http" or scope["path"] in _UNLIMITED:
            await self._app(scope, receive, send)
            return
        take = await self._limits.take(await _asker(Request(scope)), _kind(scope))
        if take is None:
            await self._app(scope, receive, send)
            return
        send = _telling(take, send)
        if take.is_granted:
            await self._app(scope, receive, send)
            return
        refusal = TooManyRequests(take.retry_after_s)
        await error_response(refusal, scope["state"]["request_id"])(scope, receive, send)

    async def _shake_hands(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a handshake against its address, whose token is looked at later.

        A price feed that nobody follows yet is started for whoever asks: that counts as a write.
        """
        socket = WebSocket(scope, receive, send)
        kind: Kind = "writes" if scope["path"].startswith("/ws/prices/") else "reads"
        take = await self._limits.take(f"address:{client_address(socket)}", kind)
        if take is None or take.is_granted:
            await self._app(scope, receive, send)
            return
        refusal = error_response(TooManyRequests(take.retry_after_s), uuid4().hex)
        await socket.send_denial_response(refusal)


async def _asker(request: Request) -> str:
    try:
        return f"user:{(await claims_of(request)).subject}"
    except (Unauthorized, IntegrationError):
        return f"address:{client_address(request)}"


def _kind(scope: Scope) -> Kind:
    if scope["method"] == "POST" and scope["path"] in _STARTS:
        return "starts"
    return "reads" if scope["method"] in _READING else "writes"


def _telling(take: Take, send: Send) -> Send:
    """Announce with the answer how the asker's bucket stands."""
    headers = {
        "X-RateLimit-Limit": str(take.quota.burst),
        "X-RateLimit-Remaining": str(take.remaining),
        "X-RateLimit-Reset": str(take.full_in_s),
    }

    async def send_telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_telling


class BodyLimitMiddleware:
    """Refuses bodies over the limit, by their announced length or as they come in."""

    def __init__(self, app: ASGIApp, *, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES)
        if _announced_length(Headers(scope=scope)) > limit:
            refusal = error_response(_too_large(limit), scope["state"]["request_id"])
            await refusal(scope, receive, send)
            return
        await self._app(scope, _limited(receive, limit), send)


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return receive_limited


def _announced_length(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length[:20]) if length.isascii() and length.isdigit() else 0


def _too_large(limit: int) -> HTTPException:
    return ApiError(413, "REQUEST_TOO_LARGE", f"The request body may have {limit // MIB} MiB.")


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex
