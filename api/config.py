"""What the API needs to know, as the entry point read it from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# Concurrent tests per user; None is no limit.
PLAN_LIMITS: Mapping[str, int | None] = MappingProxyType(
    {"free": 3, "pro": 20, "enterprise": 200}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """`public_url` is where browsers reach the API; links are built from it, never from headers."""

    version: str
    public_url: str
    cors_origins: tuple[str, ...] = ("http://localhost:3000",)
    is_development: bool = False
    max_active_tests: Mapping[str, int | None] = field(default_factory=lambda: PLAN_LIMITS)
    market_data_source: str = "simulated"

    @property
    def websocket_url(self) -> str:
        """The public address with the WebSocket scheme."""
        return "ws" + self.public_url.removeprefix("http").rstrip("/")

    def active_tests_allowed(self, plan: str) -> int | None:
        """How many tests a user of `plan` may have under way; None is no limit."""
        if self.is_development:
            return None
        return self.max_active_tests.get(plan, self.max_active_tests["free"])
