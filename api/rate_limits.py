"""How often somebody may ask: reads, writes and starts, each from a bucket of its own."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Literal

import structlog
from redis.exceptions import RedisError

from api.metrics import ApiMetrics
from api.token_buckets import Quota, Take, TokenBuckets

# What one minute allows; a start, of a test or an export, is neither a read nor another write.
Kind = Literal["reads", "writes", "starts"]

_READS_PER_WRITE = 10
# Each takes less than a millisecond, and a connection.
COUNTED_AT_ONCE = 5
# So long a request waits to be counted. A flood takes a second, and three on a busy machine; a slow
# Redis must not take longer either.
PATIENCE_S = 3.0
# So long Redis is not asked again after it failed or was too slow: nobody waits for it twice.
REST_S = 1.0

_logger = structlog.get_logger(__name__)


def quotas_of(*, writes_per_minute: int, starts_per_minute: int) -> Mapping[Kind, Quota]:
    """The quotas of everybody; front ends poll, so reads have ten times as many as writes."""
    return {
        "reads": Quota(per_minute=_READS_PER_WRITE * writes_per_minute),
        "writes": Quota(per_minute=writes_per_minute),
        "starts": Quota(per_minute=starts_per_minute),
    }


class RateLimits:
    """Counts requests, for all API processes together.

    Those that come at once are counted in turn, so that a flood is never taken for a slow Redis.
    Where Redis fails, all may pass for a moment, those who wait for their turn as well.
    """

    def __init__(
        self, buckets: TokenBuckets, quotas: Mapping[Kind, Quota], metrics: ApiMetrics
    ) -> None:
        self._buckets = buckets
        self._quotas = quotas
        self._metrics = metrics
        self._turns = asyncio.Semaphore(COUNTED_AT_ONCE)
        self._rests_until = 0.0

    async def take(self, who: str, kind: Kind) -> Take | None:
        """Count a request of somebody's; None where Redis does not answer, and all may pass."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._turns:
                take = await self._take(f"alphalab:limit:{kind}:{who}", self._quotas[kind])
        except TimeoutError as e:  # each is answered, and all of them too slowly
            self._leave_alone(e)
            take = None
        if take is None:
            self._metrics.rate_limiter_failures.inc()
        elif not take.is_granted:
            self._metrics.rate_limited.labels(kind).inc()
        return take

    async def _take(self, name: str, quota: Quota) -> Take | None:
        if monotonic() < self._rests_until:
            return None
        try:
            return await self._buckets.take(name, quota)
        except (RedisError, OSError) as e:
            self._leave_alone(e)
            return None

    def _leave_alone(self, e: Exception) -> None:
        """Ask Redis nothing for a moment, and say so once."""
        now = monotonic()
        if now >= self._rests_until:
            _logger.warning("requests_not_counted", error=type(e).__name__)
        self._rests_until = now + REST_S
