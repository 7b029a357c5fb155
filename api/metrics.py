"""What the API tells Prometheus about itself: how many requests, how fast, how many sockets."""

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Any text may stand for a method; a label must not take any.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_NO_ROUTE = "none"


class ApiMetrics:
    """The metrics of one API process, in a registry of their own.

    No label holds an id: routes are told by their templates.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "alphalab_http_requests",
            "Requests answered; route is none where none was reached.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "alphalab_http_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["method", "route"],
            registry=self._registry,
        )
        self.open_sockets = Gauge(
            "alphalab_open_sockets",
            "WebSockets that are open now.",
            ["route"],
            registry=self._registry,
        )
        self.rate_limited = Counter(
            "alphalab_rate_limited_requests",
            "Requests refused with 429, by what was used up: reads, writes or starts.",
            ["kind"],
            registry=self._registry,
        )
        self.rate_limiter_failures = Counter(
            "alphalab_rate_limiter_failures",
            "Requests that passed uncounted because Redis did not answer.",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts and times requests, and counts the sockets that are open."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._answer(scope, receive, send)
            case "websocket":
                await self._converse(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at, status = perf_counter(), "none"

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = _route(scope)
            self._metrics.requests.labels(method, route, status).inc()
            seconds = perf_counter() - started_at
            self._metrics.request_seconds.labels(method, route).observe(seconds)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened: list[Gauge] = []

        async def send_noting(message: Message) -> None:
            if message["type"] == "websocket.accept":
                gauge = self._metrics.open_sockets.labels(_route(scope))
                gauge.inc()
                opened.append(gauge)
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            for gauge in opened:
                gauge.dec()


def _route(scope: Scope) -> str:
    """The template of the route that was reached, such as `/api/agents/{agent_id}`."""
    path: str = getattr(scope.get("route"), "path", _NO_ROUTE)
    return path
