"""Reads a session's events from Redis: live from the channel, the latest ones from the stream."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from events.channels import session_channel, session_stream
from events.types import Event, decode_batch, decode_event


class SessionSubscriber:
    """Live events and the recent backlog of sessions, as Redis has them.

    Each session that is listened to keeps a connection of `subscriptions` for itself.
    """

    def __init__(self, redis: Redis, subscriptions: Redis) -> None:
        self._redis = redis
        self._subscriptions = subscriptions

    async def listen(self, session_id: UUID | str) -> AsyncIterator[list[Event]]:
        """Yield an empty list once subscribed, then each published batch.

        Raises `redis.RedisError` or `OSError` when the connection is lost: events may have
        been missed, so the listener reads the backlog and listens again.
        """
        async with self._subscriptions.pubsub() as pubsub:
            await pubsub.subscribe(session_channel(session_id))
            async with aclosing(pubsub.listen()) as messages:
                async for message in messages:
                    if message["type"] == "subscribe":
                        yield []
                    elif message["type"] == "message":
                        yield decode_batch(message["data"])

    async def backlog(self, session_id: UUID | str, *, after: int, limit: int) -> list[Event]:
        """Return up to `limit` durable events that follow `after` without a gap.

        Fewer, or none, where the stream was trimmed, lost or has a hole: the database has the rest.
        """
        entries: Any = await self._redis.xrange(
            session_stream(session_id), min=f"{after + 1}-0", count=limit
        )
        contiguous: list[Event] = []
        for _, fields in entries:
            event = decode_event(fields[b"e"] if b"e" in fields else fields["e"])
            if event.seq != after + 1 + len(contiguous):
                break
            contiguous.append(event)
        return contiguous
