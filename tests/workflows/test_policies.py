"""The limits of activities: none lets a dead worker go unnoticed for long."""

from datetime import timedelta
from typing import TypeGuard

import pytest

from workflows import policies
from workflows.policies import ActivityOptions


def _is_policy(value: object) -> TypeGuard[ActivityOptions]:
    return isinstance(value, dict) and "retry_policy" in value


NAMED = {name: value for name, value in vars(policies).items() if _is_policy(value)}


@pytest.mark.parametrize("name", NAMED)
def test_a_dead_worker_is_noticed_within_half_a_minute(name: str):
    options = NAMED[name]
    noticed = options.get("heartbeat_timeout", options["start_to_close_timeout"])
    assert noticed <= timedelta(seconds=30)
