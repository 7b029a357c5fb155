"""Token buckets in Redis: one count for all processes.

A script of our own, because none of the libraries fits: `limits` has windows but no token buckets,
and those of `throttled-py` go by each caller's clock in whole seconds and drop the fraction of a
token that has grown back whenever one is taken.
"""

import math
from dataclasses import dataclass

from redis.asyncio import Redis

_MINUTE_MS = 60_000

# A bucket is one number, the instant at which it is full again: each token moves it on by what a
# token takes to grow back. It is gone once the bucket is full, as if nobody had ever taken one.
_TAKE = """
local interval, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local is_granted = full_at + interval - now <= interval * capacity
if is_granted then
  full_at = full_at + interval
  redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
end
return {is_granted and 1 or 0, math.ceil(full_at - now)}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """So many tokens grow back in a minute; a bucket holds those of two."""

    per_minute: int

    @property
    def burst(self) -> int:
        return 2 * self.per_minute

    @property
    def interval_ms(self) -> float:
        return _MINUTE_MS / self.per_minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Whether there was a token, and how the bucket stands now; it is full in `full_in_ms`."""

    quota: Quota
    is_granted: bool
    full_in_ms: int

    @property
    def remaining(self) -> int:
        missing = self.full_in_ms / self.quota.interval_ms
        return max(0, math.floor(self.quota.burst - missing))

    @property
    def full_in_s(self) -> int:
        return math.ceil(self.full_in_ms / 1000)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, at least one, after which there is a token."""
        missing_ms = self.full_in_ms - (self.quota.burst - 1) * self.quota.interval_ms
        return max(1, math.ceil(missing_ms / 1000))


class TokenBuckets:
    """Buckets by name; Redis keeps each until it is full."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)

    async def take(self, name: str, quota: Quota) -> Take:
        """Take a token if there is one, in one round trip. Raises `RedisError` or `OSError`."""
        arguments = [quota.interval_ms, quota.burst]
        is_granted, full_in_ms = await self._take(keys=[name], args=arguments)
        return Take(quota=quota, is_granted=bool(is_granted), full_in_ms=int(full_in_ms))
