"""What the API needs to know, as the entry point read it from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

PLAN_LIMITS: Mapping[str, int] = MappingProxyType({"free": 3, "pro": 20, "enterprise": 200})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """What is fixed while the process runs.

    `public_url` is where browsers reach the API; links are built from it, never from headers.

    `max_active_tests` is by plan; None is no limit.

    Without a `metrics_token` nobody is shown metrics.

    `market_source` is how data sets name the market data source, such as `exchange:binance`.
    """

    version: str
    public_url: str
    cors_origins: tuple[str, ...] = ("http://localhost:3000",)
    max_active_tests: Mapping[str, int] | None = field(default_factory=lambda: PLAN_LIMITS)
    socket_stall_limit_s: float = 30.0
    market_source: str | None = None
    metrics_token: str | None = field(default=None, repr=False)

    @property
    def has_live_market(self) -> bool:
        return self.market_source is not None

    @property
    def websocket_url(self) -> str:
        """The public address with the WebSocket scheme."""
        return "ws" + self.public_url.removeprefix("http").rstrip("/")

    def active_tests_allowed(self, plan: str) -> int | None:
        """How many tests a user of `plan` may have under way; None is no limit."""
        return None if self.max_active_tests is None else self.max_active_tests[plan]
