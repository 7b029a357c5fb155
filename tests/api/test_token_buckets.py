"""Buckets of tokens in a real Redis, by its clock."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from api.token_buckets import Quota, Take, TokenBuckets

SLOW = Quota(per_minute=3)
BRISK = Quota(per_minute=120)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.fixture
def buckets(redis: Redis) -> TokenBuckets:
    return TokenBuckets(redis)


@pytest.fixture
def name() -> str:
    return f"bucket-{uuid4().hex}"


async def drain(buckets: TokenBuckets, name: str, quota: Quota) -> Take:
    """Take until there is nothing to take; return that refusal."""
    while (take := await buckets.take(name, quota)).is_granted:
        pass
    return take


async def test_a_full_bucket_holds_two_minutes_and_counts_down(buckets: TokenBuckets, name: str):
    takes = [await buckets.take(name, SLOW) for _ in range(8)]

    assert [take.is_granted for take in takes] == [True] * 6 + [False] * 2
    assert [take.remaining for take in takes] == [5, 4, 3, 2, 1, 0, 0, 0]
    assert takes[0].full_in_s == 20
    assert 119 <= takes[-1].full_in_s <= 120
    assert 19 <= takes[-1].retry_after_s <= 20


async def test_no_token_is_given_out_twice(buckets: TokenBuckets, name: str):
    takes = await asyncio.gather(*(buckets.take(name, SLOW) for _ in range(40)))

    assert sum(take.is_granted for take in takes) == 6


async def test_a_token_is_there_again_when_the_refusal_said_so(buckets: TokenBuckets, name: str):
    refused = await drain(buckets, name, BRISK)
    assert refused.retry_after_s == 1

    await asyncio.sleep(refused.retry_after_s)
    takes = [await buckets.take(name, BRISK) for _ in range(4)]

    # Half a second makes one; the last of them may be the time that this test took.
    assert [take.is_granted for take in takes[:2]] == [True, True]
    assert not takes[-1].is_granted


async def test_a_refusal_takes_nothing(buckets: TokenBuckets, name: str):
    first = await drain(buckets, name, SLOW)
    later = [await buckets.take(name, SLOW) for _ in range(20)][-1]

    assert later.full_in_ms <= first.full_in_ms


async def test_buckets_are_apart(buckets: TokenBuckets, name: str):
    await drain(buckets, name, SLOW)

    assert (await buckets.take(f"{name}-other", SLOW)).is_granted


async def test_a_bucket_that_is_full_again_leaves_nothing_behind(
    redis: Redis, buckets: TokenBuckets, name: str
):
    take = await buckets.take(name, BRISK)
    assert 0 < await redis.pttl(name) <= take.full_in_ms

    await asyncio.sleep(take.full_in_ms / 1000 + 0.05)
    assert not await redis.exists(name)
    assert (await buckets.take(name, BRISK)).remaining == BRISK.burst - 1


async def test_a_redis_that_forgot_the_script_is_told_again(
    redis: Redis, buckets: TokenBuckets, name: str
):
    await buckets.take(name, SLOW)
    await redis.script_flush()

    assert (await buckets.take(name, SLOW)).remaining == 4
