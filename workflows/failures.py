"""What an activity failed with, out of the errors that Temporal wraps around it."""

from temporalio.exceptions import ActivityError, ApplicationError


def application_error(e: BaseException) -> ApplicationError | None:
    """What an activity itself said, however deep under timeouts and retries it lies."""
    cause: BaseException | None = e
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    return cause


def failure_type(e: ActivityError) -> str | None:
    """What an activity failed with, in the vocabulary of `activities.failures`."""
    error = application_error(e)
    return None if error is None else error.type


def failure_message(e: ActivityError) -> str:
    """What an activity failed with, in words without secrets."""
    error = application_error(e)
    return str(e) if error is None else error.message
