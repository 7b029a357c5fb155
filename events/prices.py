"""Prices as they travel through Redis: the last one of an asset, and each as it comes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Literal

import orjson
from redis.asyncio import Redis

# A price that is older is not shown as live.
STALE_AFTER_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTick:
    """The price of an asset, or that its source is down; None is what is not known.

    `change_24h` is in percent and `volume_24h` in base units. `timestamp` is ISO 8601 by our clock.
    `exchange_ms` is the exchange's time in epoch ms, and `speed` how fast that passes: 1 at every
    real one.
    """

    asset: str
    status: Literal["live", "down"]
    timestamp: str
    price: float | None = None
    bid: float | None = None
    ask: float | None = None
    change_24h: float | None = None
    high_24h: float | None = None
    low_24h: float | None = None
    volume_24h: float | None = None
    exchange_ms: int | None = None
    speed: float = 1.0

    def age(self, now: datetime) -> timedelta:
        return now - datetime.fromisoformat(self.timestamp)

    def is_live(self, now: datetime) -> bool:
        """Whether there is a price that may still be shown."""
        return self.status == "live" and self.age(now).total_seconds() < STALE_AFTER_S


_FIELDS = tuple(each.name for each in fields(PriceTick))


class PriceBoard:
    """Where feeds write prices and sockets read them.

    Each asset that is listened to keeps a connection of `subscriptions` for itself.
    """

    def __init__(self, redis: Redis, subscriptions: Redis | None = None) -> None:
        self._redis = redis
        self._subscriptions = subscriptions or redis

    async def post(self, tick: PriceTick) -> None:
        """Tell all who listen, and keep it for who comes within a minute."""
        raw = orjson.dumps(asdict(tick))
        await self._redis.set(_key(tick.asset), raw, ex=STALE_AFTER_S)
        await self._redis.publish(price_channel(tick.asset), raw)

    async def latest(self, asset: str) -> PriceTick | None:
        """What was posted last, if that is less than a minute ago."""
        raw = await self._redis.get(_key(asset))
        return None if raw is None else decode_tick(raw)

    async def listeners(self, asset: str) -> int:
        """How many connections listen to the asset's price."""
        ((_, count),) = await self._redis.pubsub_numsub(price_channel(asset))
        return int(count)

    async def listen(self, asset: str) -> AsyncGenerator[PriceTick | None, None]:
        """Yield None once subscribed, then each price. Raises `RedisError` or `OSError`."""
        async with self._subscriptions.pubsub() as pubsub:
            await pubsub.subscribe(price_channel(asset))
            async with aclosing(pubsub.listen()) as messages:
                async for message in messages:
                    if message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield decode_tick(message["data"])


def decode_tick(raw: bytes | str) -> PriceTick:
    """Return the tick that was posted; what a newer version says beside is left out."""
    told = orjson.loads(raw)
    return PriceTick(**{name: told[name] for name in _FIELDS if name in told})


def price_channel(asset: str) -> str:
    """The pub/sub channel; each message is one `PriceTick` as JSON."""
    return f"alphalab:prices:{asset}"


def _key(asset: str) -> str:
    return f"alphalab:price:{asset}"
