"""The names under which a session's events travel through Redis."""

from uuid import UUID


def session_channel(session_id: UUID | str) -> str:
    """The pub/sub channel; each message is a JSON array of events."""
    return f"alphalab:session:{session_id}:live"


def session_stream(session_id: UUID | str) -> str:
    """The stream with the latest durable events, under explicit ids `seq-0`."""
    return f"alphalab:session:{session_id}:events"
