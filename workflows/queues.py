"""The task queues beside the one that workflows and most activities have."""


def export_queue(task_queue: str) -> str:
    """Where files of accounts are made, a few at a time, and each user's in turn."""
    return f"{task_queue}-exports"


def background_queue(task_queue: str) -> str:
    """What may take long without holding up a candle: price feeds, letters."""
    return f"{task_queue}-background"


def decision_queue(task_queue: str) -> str:
    """Model calls have their own queue, with its own concurrency."""
    return f"{task_queue}-decisions"
