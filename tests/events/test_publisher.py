"""Events over a real Redis: what is published, what a repetition does, what is kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from events import publisher as publishing
from events.channels import session_channel, session_stream
from events.publisher import EventPublisher
from events.subscriber import SessionSubscriber
from events.types import Event
from local.servers import RedisServer


def event(seq: int | None, name: str = "candle", **data: Any) -> Event:
    moment = 0 if seq is None else seq
    return Event(seq, name, data, f"2025-11-27T10:15:00.{moment:06d}Z")


def events(first: int, last: int) -> list[Event]:
    return [event(seq, close=seq / 7) for seq in range(first, last + 1)]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.fixture
def session_id() -> UUID:
    return uuid4()


@pytest.fixture
def subscriber(redis: Redis) -> SessionSubscriber:
    return SessionSubscriber(redis, redis)


@pytest.fixture
async def heard(
    subscriber: SessionSubscriber, session_id: UUID
) -> AsyncIterator[asyncio.Queue[list[Event]]]:
    """Every batch that a listener gets; it listens before the test begins."""
    batches: asyncio.Queue[list[Event]] = asyncio.Queue()

    async def listen() -> None:
        async for batch in subscriber.listen(session_id):
            batches.put_nowait(batch)

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        assert await batches.get() == [], "an empty batch says that the subscription is there"
    yield batches
    listening.cancel()
    await asyncio.wait([listening])


async def next_of(batches: asyncio.Queue[list[Event]]) -> list[Event]:
    async with asyncio.timeout(5):
        return await batches.get()


async def test_a_batch_is_heard_at_once_and_kept_one_by_one(
    redis: Redis, session_id: UUID, subscriber: SessionSubscriber, heard: Any
):
    batch = events(1, 3)

    await EventPublisher(redis).publish(session_id, batch)

    assert await next_of(heard) == batch
    assert await subscriber.backlog(session_id, after=0, limit=10) == batch
    entries: Any = await redis.xrange(session_stream(session_id))
    assert [key for key, _ in entries] == [b"1-0", b"2-0", b"3-0"]


async def test_a_repeated_publish_is_heard_again_and_kept_once(
    redis: Redis, session_id: UUID, subscriber: SessionSubscriber, heard: Any
):
    publisher = EventPublisher(redis)
    await publisher.publish(session_id, events(1, 3))
    await publisher.publish(session_id, events(2, 5))

    await publisher.publish(session_id, events(1, 3))

    assert [[each.seq for each in await next_of(heard)] for _ in range(3)] == [
        [1, 2, 3],
        [2, 3, 4, 5],
        [1, 2, 3],
    ]
    assert await subscriber.backlog(session_id, after=0, limit=10) == events(1, 5)


async def test_events_without_a_number_are_heard_and_not_kept(
    redis: Redis, session_id: UUID, heard: Any
):
    fragment = event(None, "ai_thinking", text="Hm")

    await EventPublisher(redis).publish(session_id, [fragment])

    assert await next_of(heard) == [fragment]
    assert not await redis.exists(session_stream(session_id))


async def test_nothing_to_publish_is_no_message(redis: Redis, session_id: UUID, heard: Any):
    publisher = EventPublisher(redis)

    await publisher.publish(session_id, [])
    await publisher.publish(session_id, events(1, 1))

    assert await next_of(heard) == events(1, 1)


async def test_many_events_go_out_in_batches_and_in_order(
    redis: Redis, session_id: UUID, subscriber: SessionSubscriber, heard: Any
):
    many = events(1, 1_201)

    await EventPublisher(redis).publish(session_id, many)

    batches = [await next_of(heard) for _ in range(3)]
    assert [len(batch) for batch in batches] == [500, 500, 201]
    assert [each for batch in batches for each in batch] == many
    assert await subscriber.backlog(session_id, after=0, limit=2_000) == many


async def test_the_backlog_is_trimmed_and_then_tells_nothing_of_what_is_missing(
    redis: Redis,
    session_id: UUID,
    subscriber: SessionSubscriber,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(publishing, "STREAM_LENGTH", 100)
    await EventPublisher(redis).publish(session_id, events(1, 1_000))

    kept = await redis.xlen(session_stream(session_id))
    assert 100 <= kept < 400, "trimmed by whole nodes of about a hundred entries"
    assert await subscriber.backlog(session_id, after=0, limit=1_000) == []
    assert await subscriber.backlog(session_id, after=1_000 - kept, limit=2_000) == events(
        1_001 - kept, 1_000
    )


async def test_the_backlog_ends_before_a_hole(
    redis: Redis, session_id: UUID, subscriber: SessionSubscriber
):
    publisher = EventPublisher(redis)
    await publisher.publish(session_id, events(1, 3))
    await publisher.publish(session_id, events(6, 8))

    assert await subscriber.backlog(session_id, after=0, limit=10) == events(1, 3)
    assert await subscriber.backlog(session_id, after=3, limit=10) == []
    assert await subscriber.backlog(session_id, after=5, limit=2) == events(6, 7)
    assert await subscriber.backlog(session_id, after=8, limit=10) == []


async def test_events_of_the_hole_are_refused_later_and_come_from_the_database(
    redis: Redis, session_id: UUID, subscriber: SessionSubscriber
):
    """A stream takes no id below its last one, so a hole stays a hole."""
    publisher = EventPublisher(redis)
    await publisher.publish(session_id, events(1, 1))
    await publisher.publish(session_id, events(3, 3))

    await publisher.publish(session_id, events(2, 2))

    assert await subscriber.backlog(session_id, after=0, limit=10) == events(1, 1)


async def test_an_unknown_session_has_no_backlog(subscriber: SessionSubscriber, session_id: UUID):
    assert await subscriber.backlog(session_id, after=0, limit=10) == []


async def test_the_backlog_expires_an_hour_after_the_end(redis: Redis, session_id: UUID):
    publisher = EventPublisher(redis)

    await publisher.publish(session_id, events(1, 2))
    running = await redis.ttl(session_stream(session_id))
    await publisher.publish(session_id, events(3, 3), ended=True)

    assert running > 86_400
    assert 3_590 <= await redis.ttl(session_stream(session_id)) <= 3_600


async def test_sessions_do_not_hear_each_other(redis: Redis, session_id: UUID, heard: Any):
    publisher = EventPublisher(redis)

    await publisher.publish(uuid4(), events(1, 1))
    await publisher.publish(session_id, events(2, 2))

    assert await next_of(heard) == events(2, 2)


async def test_every_character_and_number_arrives_as_it_was(
    redis: Redis, session_id: UUID, heard: Any
):
    data = {"text": "„Zeile\u2028zwei“ 🚀 \\u0000", "price": 0.1 + 0.2, "none": None, "deep": [{}]}

    await EventPublisher(redis).publish(session_id, [event(1, "ai_thinking", **data)])

    assert (await next_of(heard))[0].data == data
    raw: Any = await redis.xrange(session_stream(session_id))
    assert orjson.loads(raw[0][1][b"e"]) == {
        "seq": 1,
        "event": "ai_thinking",
        "data": data,
        "timestamp": "2025-11-27T10:15:00.000001Z",
    }


async def test_a_dead_redis_raises_nothing_and_one_that_is_back_gets_the_next_events(
    tmp_path: Path, session_id: UUID
):
    server = RedisServer(tmp_path / "redis")
    server.start()
    async with Redis.from_url(server.url, socket_timeout=1) as redis:
        publisher = EventPublisher(redis)
        await publisher.publish(session_id, events(1, 1))
        server.stop()

        await publisher.publish(session_id, events(2, 2))

        server.start()
        await publisher.publish(session_id, events(3, 3))
        # The script and the stream went with the old server; the hole is the database's to fill.
        assert await SessionSubscriber(redis, redis).backlog(
            session_id, after=2, limit=5
        ) == events(3, 3)
    server.stop()


async def test_a_listener_is_told_when_its_connection_is_lost(tmp_path: Path, session_id: UUID):
    server = RedisServer(tmp_path / "redis")
    server.start()
    async with Redis.from_url(server.url) as redis:
        listening = SessionSubscriber(redis, redis).listen(session_id)
        assert await anext(listening) == []
        server.stop()

        with pytest.raises((RedisError, OSError)):
            async with asyncio.timeout(10):
                await anext(listening)


def test_channel_and_stream_have_names_of_their_own():
    session_id = uuid4()
    assert session_channel(session_id) == f"alphalab:session:{session_id}:live"
    assert session_stream(str(session_id)) == f"alphalab:session:{session_id}:events"
