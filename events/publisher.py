"""Publishes events to a session's Redis stream and channel, after they were committed."""

from collections.abc import Iterator, Sequence
from itertools import islice
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from events.channels import session_channel, session_stream
from events.types import Event, encode_batch, encode_event

# A backlog for reconnecting clients; whatever is older comes from the database.
STREAM_LENGTH = 20_000
# One script call stays far below a millisecond of Redis's single thread per hundred events.
EVENTS_PER_CALL = 500
# Kept while the session lives, and an hour after its last event.
EXPIRE_AFTER_END_S = 3_600
EXPIRE_WHILE_RUNNING_S = 30 * 86_400

# A repeated publish is refused by the stream (its id is not above the last one) and goes out on
# the channel again, where each relay drops what it has already sent.
_PUBLISH = """
local count = tonumber(ARGV[3])
for i = 1, count do
  local id = ARGV[2 + 2 * i] .. '-0'
  redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, 'e', ARGV[3 + 2 * i])
end
if count > 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return redis.call('PUBLISH', KEYS[2], ARGV[4 + 2 * count])
"""

_logger = structlog.get_logger(__name__)


class EventPublisher:
    """Tells the outside what happened. A failure is logged and forgotten: PostgreSQL has it all."""

    def __init__(self, redis: Redis) -> None:
        self._publish = redis.register_script(_PUBLISH)

    async def publish(
        self, session_id: UUID | str, events: Sequence[Event], *, ended: bool = False
    ) -> None:
        """Publish `events` in order; `ended` shortens the backlog's life to an hour."""
        expire = EXPIRE_AFTER_END_S if ended else EXPIRE_WHILE_RUNNING_S
        try:
            for batch in _batches(events):
                await self._publish_batch(session_id, batch, expire)
        except (RedisError, OSError) as e:
            _logger.warning(
                "events_not_published", session_id=str(session_id), error=type(e).__name__
            )

    async def _publish_batch(
        self, session_id: UUID | str, batch: Sequence[Event], expire: int
    ) -> None:
        encoded = [encode_event(event) for event in batch]
        entries = [
            item
            for event, raw in zip(batch, encoded, strict=True)
            if event.seq is not None
            for item in (event.seq, raw)
        ]
        await self._publish(
            keys=[session_stream(session_id), session_channel(session_id)],
            args=[STREAM_LENGTH, expire, len(entries) // 2, *entries, encode_batch(encoded)],
        )


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    remaining = iter(events)
    while batch := list(islice(remaining, EVENTS_PER_CALL)):
        yield batch
