"""The limits of activities: none lets a dead worker go unnoticed for long."""

from datetime import timedelta
from typing import TypeGuard

import pytest

from activities.ai_summaries import PRICE_PATIENCE_S
from activities.decisions import CALLS_PER_DECISION, HTTP_TIMEOUT_S, TURN_PATIENCE_S
from activities.heartbeats import FIRST_AFTER_S, INTERVAL_S
from activities.model_calls import BOOKING_PATIENCE_S
from workflows import policies
from workflows.policies import ActivityOptions

# For statements, and for what is asked of the catalogue.
SLACK_S = 20
CALL_S = HTTP_TIMEOUT_S + BOOKING_PATIENCE_S


def _is_policy(value: object) -> TypeGuard[ActivityOptions]:
    return isinstance(value, dict) and "retry_policy" in value


NAMED = {name: value for name, value in vars(policies).items() if _is_policy(value)}


@pytest.mark.parametrize("name", NAMED)
def test_a_dead_worker_is_noticed_within_half_a_minute(name: str):
    options = NAMED[name]
    noticed = options.get("heartbeat_timeout", options["start_to_close_timeout"])
    assert noticed <= timedelta(seconds=30)


@pytest.mark.parametrize("name", NAMED)
def test_the_first_heartbeats_come_in_time(name: str):
    limit = NAMED[name].get("heartbeat_timeout")
    assert limit is None or timedelta(seconds=FIRST_AFTER_S + INTERVAL_S) < limit


@pytest.mark.parametrize(
    ("options", "longest_s"),
    [
        (policies.DECISION, TURN_PATIENCE_S + CALLS_PER_DECISION * CALL_S),
        (policies.AI_SUMMARY, TURN_PATIENCE_S + PRICE_PATIENCE_S + CALL_S),
    ],
    ids=["DECISION", "AI_SUMMARY"],
)
def test_no_attempt_is_cut_within_what_it_pays_for(options: ActivityOptions, longest_s: float):
    """One that is cut would be followed by another one, which pays again."""
    assert longest_s + SLACK_S < options["start_to_close_timeout"].total_seconds()
