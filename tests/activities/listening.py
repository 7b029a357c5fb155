"""Hears everything that is published to any session, to the last repetition."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import orjson
from redis.asyncio import Redis

from events.channels import session_channel, session_stream


@dataclass(slots=True, kw_only=True)
class Listener:
    """Every message of every session's channel, by channel, in the order of publication."""

    redis: Redis
    messages: dict[str, list[list[dict[str, Any]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    markers: dict[str, asyncio.Event] = field(default_factory=dict)

    async def live(self, session_id: UUID) -> list[dict[str, Any]]:
        """Every event that was published so far, repetitions included."""
        await self._caught_up()
        batches = self.messages.pop(session_channel(session_id), [])
        return [event for batch in batches for event in batch]

    async def stream(self, session_id: UUID) -> list[dict[str, Any]]:
        """The session's backlog; its entries' ids must be those of their events."""
        entries: Any = await self.redis.xrange(session_stream(session_id))
        events = [orjson.loads(fields[b"e"]) for _, fields in entries]
        assert [key.decode() for key, _ in entries] == [f"{event['seq']}-0" for event in events]
        return events

    async def _caught_up(self) -> None:
        marker, heard = session_channel(uuid4()), asyncio.Event()
        self.markers[marker] = heard
        await self.redis.publish(marker, b"[]")
        async with asyncio.timeout(10):
            await heard.wait()

    def _hear(self, channel: str, data: bytes) -> None:
        if (marker := self.markers.pop(channel, None)) is not None:
            marker.set()
        else:
            self.messages[channel].append(orjson.loads(data))


@asynccontextmanager
async def listening(redis_url: str) -> AsyncIterator[Listener]:
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        listener = Listener(redis=redis)
        await pubsub.psubscribe(session_channel("*"))

        async def hear() -> None:
            async for message in pubsub.listen():
                if message["type"] == "pmessage":
                    listener._hear(message["channel"].decode(), message["data"])

        hearing = asyncio.create_task(hear())
        try:
            yield listener
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])


def durable(events: list[dict[str, Any]]) -> Mapping[int, dict[str, Any]]:
    """The numbered events by seq; each was published with one content and one timestamp only."""
    by_seq: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["seq"] is not None:
            assert by_seq.setdefault(event["seq"], event) == event
    return by_seq
