"""How often somebody may ask: reads, writes and starts of tests, each from a bucket of its own."""

from collections.abc import Mapping
from typing import Literal

import structlog
from redis.exceptions import RedisError

from api.metrics import ApiMetrics
from api.token_buckets import Quota, Take, TokenBuckets

# What one minute allows; a start is neither a read nor another write.
Kind = Literal["reads", "writes", "starts"]

_READS_PER_WRITE = 10

_logger = structlog.get_logger(__name__)


def quotas_of(*, writes_per_minute: int, starts_per_minute: int) -> Mapping[Kind, Quota]:
    """The quotas of everybody; front ends poll, so reads have ten times as many as writes."""
    return {
        "reads": Quota(per_minute=_READS_PER_WRITE * writes_per_minute),
        "writes": Quota(per_minute=writes_per_minute),
        "starts": Quota(per_minute=starts_per_minute),
    }


class RateLimits:
    """Counts requests, for all API processes together."""

    def __init__(
        self, buckets: TokenBuckets, quotas: Mapping[Kind, Quota], metrics: ApiMetrics
    ) -> None:
        self._buckets = buckets
        self._quotas = quotas
        self._metrics = metrics

    async def take(self, who: str, kind: Kind) -> Take | None:
        """Count a request of somebody's; None where Redis does not answer, and all may pass."""
        try:
            take = await self._buckets.take(f"alphalab:limit:{kind}:{who}", self._quotas[kind])
        except (RedisError, OSError) as e:
            self._metrics.rate_limiter_failures.inc()
            _logger.warning("request_not_counted", error=type(e).__name__)
            return None
        if not take.is_granted:
            self._metrics.rate_limited.labels(kind).inc()
        return take
