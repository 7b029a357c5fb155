"""Tells Temporal which failures another attempt can cure; the only place that does.

ApplicationError types raised by activities
├── Superseded            another run owns the session: end quietly
├── ModelUnavailable      the provider failed for now: retried, then the session pauses
├── ModelRefused          the provider will not serve this request: the session pauses
├── InsufficientCredits   402: the session pauses
├── NoApiKey              the agent has no key: the session pauses
├── BudgetReached         the session's own cost limit: the session pauses
├── AssetUnavailable      the exchange does not list the asset of a new test: it fails
├── MarketUnavailable     the exchange does not answer: retried for as long as the test runs
├── NO_CANDLES            the range of a new test has none: it fails
├── INDICATORS_NOT_READY  they never are in the range of a new test: it fails
├── WorkerShutsDown       the worker of a price feed leaves: another one goes on
├── MailUnavailable       the mail server takes nothing for now: retried
├── StorageUnavailable    the file storage does not answer: retried for a while
├── StorageRefused        the file storage does not take our files: the export fails
├── NOT_PROFITABLE        a test that lost, or never traded, gets no certificate
├── NOT_REPRODUCED        nor does one that comes out differently from what it recorded
├── CANDLES_DELETED       nor one whose candles are gone
├── AGENT_DELETED         nor one whose agent's version is gone
├── CodeTaken             another certificate has the code that was drawn: ask again
├── ResultNotFound        there is no such result (any more)
├── ExportNotFound        there is no such export (any more): its workflow ends
├── SessionNotFound       there is no such row (any more): the workflow fails
└── InternalFailure       a defect of ours: the session fails, with its type and no secrets
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from psycopg import errors as postgres
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from temporalio.exceptions import ApplicationError

from integrations.errors import (
    AuthenticationFailed,
    InsufficientCredits,
    IntegrationError,
    RequestRejected,
    TemporarilyUnavailable,
)

# So often a decision is tried before the session pauses.
DECISION_ATTEMPTS = 8
# So often a summary is tried before its test goes without.
SUMMARY_ATTEMPTS = 3
# Longer waits are the provider's problem: the session pauses instead.
LONGEST_RETRY_DELAY_S = 60.0

SUPERSEDED = "Superseded"
INTERNAL_FAILURE = "InternalFailure"
PERMANENT_FAILURES = [
    SUPERSEDED,
    "ModelRefused",
    "InsufficientCredits",
    "NoApiKey",
    "BudgetReached",
    INTERNAL_FAILURE,
    "PayloadsTooLarge",
]
# What makes a session pause, and the reason its owner sees.
PAUSE_REASONS = {
    "ModelUnavailable": "model_unavailable",
    "ModelRefused": "model_unavailable",
    "InsufficientCredits": "insufficient_credits",
    "NoApiKey": "no_api_key",
    "BudgetReached": "budget_reached",
}

_logger = structlog.get_logger(__name__)


def superseded(session_id: str) -> ApplicationError:
    return ApplicationError(
        f"session {session_id} is owned by a newer run", type=SUPERSEDED, non_retryable=True
    )


def no_api_key() -> ApplicationError:
    return ApplicationError(
        "The agent has no API key that can be used. Add one to the agent, then resume.",
        type="NoApiKey",
        non_retryable=True,
    )


def budget_reached(spent: float, limit: float) -> ApplicationError:
    return ApplicationError(
        f"The model has cost {spent:.4f} USD and the limit of this test is {limit:.4f} USD.",
        type="BudgetReached",
        non_retryable=True,
    )


@contextmanager
def activity_failures() -> Generator[None]:
    """Let faults of PostgreSQL and Redis be retried; end on anything nobody foresaw."""
    try:
        yield
    except ApplicationError:
        raise
    except Exception as e:
        if passes_by_itself(e):
            raise
        raise _internal(e) from None


@contextmanager
def model_failures(*, is_last: bool = False) -> Generator[None]:
    """Translate what the provider said; the message is safe to show and to keep in history.

    After the last attempt there is no other, whatever Temporal has counted.
    """
    try:
        yield
    except TemporarilyUnavailable as e:
        raise ApplicationError(
            str(e),
            type="ModelUnavailable",
            non_retryable=is_last,
            next_retry_delay=_delay(e.retry_after),
        ) from None
    except InsufficientCredits as e:
        raise ApplicationError(str(e), type="InsufficientCredits", non_retryable=True) from None
    except (AuthenticationFailed, RequestRejected) as e:
        raise ApplicationError(str(e), type="ModelRefused", non_retryable=True) from None


@contextmanager
def market_failures(*, at_start: bool = False) -> Generator[None]:
    """An exchange that does not answer, for whatever reason, is asked again.

    Only a test that is just starting fails, where the exchange does not have its asset.
    """
    try:
        yield
    except IntegrationError as e:
        if at_start and isinstance(e, RequestRejected):
            raise ApplicationError(str(e), type="AssetUnavailable", non_retryable=True) from None
        delay = _delay(e.retry_after if isinstance(e, TemporarilyUnavailable) else None)
        raise ApplicationError(str(e), type="MarketUnavailable", next_retry_delay=delay) from None


@contextmanager
def mail_failures() -> Generator[None]:
    """A mail server that takes no letter for now is tried again."""
    try:
        yield
    except TemporarilyUnavailable as e:
        raise ApplicationError(
            str(e), type="MailUnavailable", next_retry_delay=_delay(e.retry_after)
        ) from None


@contextmanager
def storage_failures() -> Generator[None]:
    """A file storage that does not answer is tried again, one that refuses us is not."""
    try:
        yield
    except TemporarilyUnavailable as e:
        raise ApplicationError(str(e), type="StorageUnavailable") from None
    except (AuthenticationFailed, RequestRejected) as e:
        _logger.warning("storage_refused", cause=str(e.__cause__))
        raise ApplicationError(str(e), type="StorageRefused", non_retryable=True) from None


def passes_by_itself(e: Exception) -> bool:
    """A server is away, asks to try again, or a twin attempt won the race for a unique key."""
    cause = e.orig if isinstance(e, DBAPIError) else e
    return isinstance(
        cause,
        PoolTimeout
        | RedisError
        | OSError
        | postgres.OperationalError
        | postgres.InterfaceError
        | postgres.UniqueViolation
        | postgres.ReadOnlySqlTransaction  # a failover under way
        | postgres.IdleInTransactionSessionTimeout
        | postgres.TransactionTimeout,
    )


def _delay(retry_after: float | None) -> timedelta | None:
    if retry_after is None:
        return None
    return timedelta(seconds=min(retry_after, LONGEST_RETRY_DELAY_S))


def _internal(e: Exception) -> ApplicationError:
    # The text of an unforeseen exception may hold anything, so only its type leaves the process.
    _logger.error("activity_failed", error=type(e).__name__, exc_info=e)
    return ApplicationError(
        f"an internal failure ({type(e).__name__})", type=INTERNAL_FAILURE, non_retryable=True
    )
