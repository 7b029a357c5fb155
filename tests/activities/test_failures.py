"""Which failures another attempt can cure, and what of them may leave the process."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import errors as postgres
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from temporalio.exceptions import ApplicationError

from activities.failures import (
    INTERNAL_FAILURE,
    PAUSE_REASONS,
    PERMANENT_FAILURES,
    activity_failures,
    budget_reached,
    model_failures,
    no_api_key,
    superseded,
)
from integrations.errors import (
    AuthenticationFailed,
    InsufficientCredits,
    IntegrationError,
    RequestRejected,
    TemporarilyUnavailable,
)

PASSING = [
    postgres.OperationalError("the server went away"),
    postgres.AdminShutdown(),
    postgres.DeadlockDetected(),
    postgres.SerializationFailure(),
    postgres.UniqueViolation("a twin attempt was first"),
    DBAPIError.instance("SELECT", {}, postgres.ConnectionFailure(), postgres.Error),
    PoolTimeout("no connection"),
    RedisConnectionError("refused"),
    TimeoutError("too long"),
    ConnectionResetError(),
]
LASTING = [
    postgres.CheckViolation("the secret is in the text"),
    postgres.UndefinedColumn("the secret is in the text"),
    DBAPIError.instance("SELECT", {}, postgres.NotNullViolation("the secret"), postgres.Error),
    KeyError("the secret"),
    ZeroDivisionError("the secret"),
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_faults_that_pass_are_left_to_temporals_retries(fault: Exception):
    with pytest.raises(type(fault)) as raised, activity_failures():
        raise fault
    assert raised.value is fault


@pytest.mark.parametrize("fault", LASTING, ids=repr)
def test_anything_unforeseen_ends_the_test_and_tells_only_its_type(fault: Any):
    with pytest.raises(ApplicationError) as raised, activity_failures():
        raise fault

    failure = raised.value
    assert (failure.type, failure.non_retryable) == (INTERNAL_FAILURE, True)
    assert failure.message == f"an internal failure ({type(fault).__name__})"
    assert failure.__cause__ is None


@pytest.mark.parametrize(
    ("error", "type_", "is_final"),
    [
        (TemporarilyUnavailable("later", status=429), "ModelUnavailable", False),
        (InsufficientCredits("no money", status=402), "InsufficientCredits", True),
        (AuthenticationFailed("who?", status=401), "ModelRefused", True),
        (RequestRejected("no", status=404), "ModelRefused", True),
    ],
)
def test_what_the_provider_says_has_a_type_and_a_reason_to_pause(
    error: IntegrationError, type_: str, is_final: bool
):
    with pytest.raises(ApplicationError) as raised, activity_failures(), model_failures():
        raise error

    assert (raised.value.type, raised.value.non_retryable) == (type_, is_final)
    assert raised.value.message == error.message
    assert type_ in PAUSE_REASONS


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (None, None),
        (0.0, timedelta(0)),
        (7.5, timedelta(seconds=7.5)),
        (600.0, timedelta(minutes=1)),
    ],
)
def test_the_provider_chooses_the_wait_up_to_a_minute(
    asked: float | None, waited: timedelta | None
):
    with pytest.raises(ApplicationError) as raised, model_failures():
        raise TemporarilyUnavailable("later", retry_after=asked)
    assert raised.value.next_retry_delay == waited


def test_every_final_failure_is_known_to_the_retry_policies():
    final = [superseded("a session"), no_api_key(), budget_reached(1.0, 0.5)]
    assert all(failure.non_retryable for failure in final)
    assert {failure.type for failure in final} <= set(PERMANENT_FAILURES)
