"""ccxt's errors, put into our vocabulary."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from integrations.errors import (
    AuthenticationFailed,
    IntegrationError,
    RateLimited,
    RequestRejected,
    SymbolUnavailable,
    TemporarilyUnavailable,
)

_MAX_MESSAGE = 300
_TOO_OFTEN = frozenset({418, 429})
_HOPELESS = frozenset({400, 404, 405, 410, 451})
# By name, since importing ccxt takes seconds; of an error's classes the most specific decides.
_KINDS: Final[Mapping[str, type[IntegrationError]]] = {
    "AuthenticationError": AuthenticationFailed,
    "BadSymbol": SymbolUnavailable,
    "DDoSProtection": RateLimited,
    "ExchangeError": RequestRejected,
    "MarketClosed": TemporarilyUnavailable,
    "OperationFailed": TemporarilyUnavailable,
    "RateLimitExceeded": RateLimited,
    "_Unreadable": TemporarilyUnavailable,
    "BaseError": TemporarilyUnavailable,
}
# A connection that ccxt lost sight of, and what its parsers stumble over when an answer is not
# what the exchange documents.
_FOREIGN = (OSError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    retry_after: float | None


class _Unreadable(Exception):
    """What ccxt would hand on as a success."""


def note_answers(exchange: Any) -> None:
    """Have the errors of a ccxt exchange tell the HTTP answer that they come from.

    ccxt keeps neither the status nor `Retry-After`, and takes a page of HTML for success.
    """
    handle_errors = exchange.handle_errors

    def noting(status: int, *details: Any) -> None:
        reason, url, method, headers, body, content, *_ = details
        try:
            handle_errors(status, *details)
            exchange.handle_http_status_code(status, reason, url, method, body)
            _require_json(content)
        except Exception as error:
            error.answer = _Answer(  # type: ignore[attr-defined]
                status=status, retry_after=_retry_after(headers)
            )
            raise

    exchange.handle_errors = noting


def _require_json(content: object) -> None:
    if content is None:
        raise _Unreadable("the answer is not JSON")


@contextmanager
def exchange_failures(source: str) -> Generator[None]:
    """Let `IntegrationError`s pass and translate everything that ccxt raises into one."""
    try:
        yield
    except IntegrationError:
        raise
    except Exception as error:
        failure = _failure_from(error, source)
        if failure is None:
            raise
        raise failure from None


def _failure_from(error: Exception, source: str) -> IntegrationError | None:
    answer: _Answer | None = getattr(error, "answer", None)
    kind = _kind_of(error, answer)
    if kind is None:
        return None
    message = f"{source}: {' '.join(str(error).split()) or type(error).__name__}"[:_MAX_MESSAGE]
    status = None if answer is None else answer.status
    if issubclass(kind, TemporarilyUnavailable):
        retry_after = None if answer is None else answer.retry_after
        return kind(message, status=status, retry_after=retry_after)
    return kind(message, status=status)


def _kind_of(error: Exception, answer: _Answer | None) -> type[IntegrationError] | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), None)
    if kind is None:
        return TemporarilyUnavailable if isinstance(error, _FOREIGN) else None
    return _by_status(answer.status, kind) if answer is not None else _unanswered(error, kind)


def _by_status(status: int, kind: type[IntegrationError]) -> type[IntegrationError]:
    if status in _TOO_OFTEN:
        return RateLimited
    # ccxt calls any status that an exchange does not explain "not available".
    if status in _HOPELESS and kind is TemporarilyUnavailable:
        return RequestRejected
    return TemporarilyUnavailable if status >= 500 else kind  # noqa: PLR2004


def _unanswered(error: Exception, kind: type[IntegrationError]) -> type[IntegrationError]:
    # ccxt raises a plain ExchangeError for an answer that broke off; only its cause tells.
    return TemporarilyUnavailable if error.__cause__ is not None else kind


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return float(value) if value.strip().isdecimal() else None
