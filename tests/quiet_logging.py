"""Logging as in production, for tests that share their process with others."""

import structlog

from observability import configure_logging


def configure_test_logging(level: str = "warning") -> None:
    """JSON lines from `level` on; no logger is bound for good.

    One that was would still write to where it wrote first when a later test listens in.
    """
    configure_logging(level=level, form="json")
    structlog.configure(cache_logger_on_first_use=False)
