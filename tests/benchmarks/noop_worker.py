"""The worker of the no-op workflows: our own worker in all but what it works on."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

import uvloop
from temporalio.client import Client
from temporalio.worker import Worker

import worker
from observability import configure_logging
from settings import WorkerSettings, worker_settings
from tests.benchmarks.noop import (
    DECISION_ACTIVITIES,
    STEP_ACTIVITIES,
    CarryingNoopWorkflow,
    MinuteNoopWorkflow,
    NoopWorkflow,
)


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with worker.opened(settings) as given, AsyncExitStack() as stack:
        # Made by our own function, so that pollers, slots and limits cannot come to differ.
        with patch.object(worker, "Worker", _noop_worker):
            workers = worker.build_workers(
                given.client,
                settings.temporal_task_queue,
                given.activities,
                max_activities=settings.worker_max_activities,
                max_decisions=settings.worker_max_decisions,
            )
        for each in workers:
            await stack.enter_async_context(each)
        await stopped.wait()
    await asyncio.sleep(0.1)


def _noop_worker(client: Client, **options: Any) -> Worker:
    if "workflows" not in options:
        return Worker(client, **options | {"activities": DECISION_ACTIVITIES})
    workflows = [NoopWorkflow, CarryingNoopWorkflow, MinuteNoopWorkflow]
    return Worker(client, **options | {"workflows": workflows, "activities": STEP_ACTIVITIES})


if __name__ == "__main__":
    settings = worker_settings()
    configure_logging(level=settings.log_level, form=settings.log_format, process="no-op worker")
    worker.spare_collector()
    uvloop.run(run(settings))
