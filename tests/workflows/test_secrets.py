"""An API key is in memory while it is used, encrypted in its row, and nowhere else."""

import json
import logging
import random
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog
from temporalio.common import RetryPolicy

from activities.failures import PERMANENT_FAILURES
from tests.activities.listening import listening
from tests.laboratory import Laboratory, Plan
from tests.stored import everything_in, everything_stored
from tests.workflows.histories import payloads_of
from workflows import policies
from workflows.runtime import workflow_id

# How a key looks, and what the provider makes of it; the last one meets a defect of ours.
KINDS = (
    ("sk-or-v1", Plan(candles=2, model="simulated/flip")),
    ("sk-or-v1", Plan(candles=2, model="simulated/flip:500-always")),
    ("sk-or-v1", Plan(candles=2, model="simulated/flip:error-mid-stream:thinking")),
    ("sk-or-v1", Plan(candles=2, model="simulated/flip:garbage-always")),
    ("sk-invalid", Plan(candles=2, model="simulated/flip")),
    ("sk-broke", Plan(candles=2, model="simulated/flip")),
    ("sk-or-v1", Plan(candles=1, total_candles=2, model="simulated/flip")),
)
SETTLED = {"paused", "completed", "failed"}


async def test_a_key_is_nowhere_in_plain_text(
    staffed: Laboratory,
    redis_url: str,
    postgres_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    policy = RetryPolicy(
        initial_interval=timedelta(milliseconds=20),
        maximum_attempts=2,
        non_retryable_error_types=PERMANENT_FAILURES,
    )
    monkeypatch.setitem(policies.DECISION, "retry_policy", policy)
    caplog.set_level(logging.DEBUG)
    secret = f"{random.getrandbits(128):032x}"

    with structlog.testing.capture_logs() as logged:
        async with listening(redis_url) as listener:
            sessions = [
                await staffed.started(replace(plan, api_key=f"{kind}-{secret}"))
                for kind, plan in KINDS
            ]
            statuses = []
            for session_id in sessions:
                row = await staffed.reached(session_id, lambda row: row["status"] in SETTLED)
                statuses.append(row["pause_reason"] or row["status"])
                if row["status"] == "paused":
                    await staffed.temporal.signal_stop(session_id, "a-stop", True)
                await staffed.temporal.wait_result(session_id, timedelta(seconds=20))
            published = [await listener.live(session_id) for session_id in sessions]

    assert statuses == [
        "completed",
        "model_unavailable",
        "completed",
        "completed",
        "model_unavailable",
        "insufficient_credits",
        "failed",
    ]
    histories = [
        (await staffed.client.get_workflow_handle(workflow_id(each)).fetch_history()).to_json()
        for each in sessions
    ]
    places = {
        "histories": "".join(histories),
        "payloads": b"".join(data for each in histories for data in payloads_of(each)).decode(),
        "events": json.dumps(published),
        "redis": await everything_in(staffed.redis),
        "tables": everything_stored(postgres_url),
        "structured log": "".join(map(as_text, logged)),
        "other logs": caplog.text,
    }
    assert all(places.values())
    assert [place for place, text in places.items() if secret in text] == []


def as_text(record: Mapping[str, Any]) -> str:
    """A log record with its traceback, as it would be written before anything is redacted."""
    exception = record.get("exc_info")
    lines = traceback.format_exception(exception) if isinstance(exception, Exception) else []
    return f"{record}{''.join(lines)}\n"
