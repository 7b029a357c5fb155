"""Prices on their way through Redis."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis

from events.prices import PriceBoard, PriceTick, decode_tick, price_channel
from events.types import iso_timestamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_tick(asset: str = "BTC/USDT", *, seconds_ago: float = 0.0) -> PriceTick:
    at = NOW - timedelta(seconds=seconds_ago)
    return PriceTick(asset=asset, status="live", timestamp=iso_timestamp(at), price=1.5, speed=2.0)


@pytest.mark.parametrize(("seconds_ago", "is_live"), [(0, True), (59.9, True), (60, False)])
def test_a_price_is_live_for_a_minute(seconds_ago: float, is_live: bool):
    assert a_tick(seconds_ago=seconds_ago).is_live(NOW) is is_live


def test_a_source_that_is_down_is_not_live():
    assert not PriceTick(asset="A/B", status="down", timestamp=iso_timestamp(NOW)).is_live(NOW)


def test_what_a_newer_version_says_beside_is_left_out():
    told = {"asset": "A/B", "status": "down", "timestamp": "t", "invented": 1}

    assert decode_tick(orjson.dumps(told)) == PriceTick(asset="A/B", status="down", timestamp="t")


async def test_what_is_posted_is_heard_and_kept_for_a_minute(redis_url: str):
    tick = a_tick(f"{uuid4().hex[:8]}/USDT")
    async with Redis.from_url(redis_url) as redis:
        board = PriceBoard(redis)
        assert await board.latest(tick.asset) is None
        heard = board.listen(tick.asset)
        assert await anext(heard) is None
        assert await board.listeners(tick.asset) == 1
        await board.post(tick)
        assert await anext(heard) == tick
        await heard.aclose()
        assert await board.latest(tick.asset) == tick
        keys = await redis.keys(f"*{tick.asset}")
        assert [0 < await redis.ttl(key) <= 60 for key in keys] == [True]
        assert price_channel(tick.asset).endswith(tick.asset)
