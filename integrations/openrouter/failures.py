"""OpenRouter's errors, in HTTP answers and in the middle of streams, put into our vocabulary."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import responses
from typing import Any, Final

import orjson

from integrations.errors import (
    AuthenticationFailed,
    InsufficientCredits,
    IntegrationError,
    RequestRejected,
    TemporarilyUnavailable,
)

MAX_RETRY_AFTER: Final = 60.0
_MAX_MESSAGE = 500
_TEMPORARY = frozenset({408, 409, 425, 429})
# Streams carry words where HTTP carries numbers; an unknown word is taken for a passing fault,
# because the number of tries is limited anyway and giving up on a paid run is not undone.
_CODES: Final[Mapping[str, int]] = {
    "authentication": 401,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "insufficient_credits": 402,
    "payment_required": 402,
    "insufficient_quota": 402,
    "rate_limit_exceeded": 429,
    "invalid_request": 400,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "token_limit_exceeded": 400,
    "string_too_long": 400,
    "content_policy_violation": 400,
    "not_found": 404,
}
_KEY_LIKE = re.compile(r"\b(?:sk|pk)-[\w*.\-]{6,}")


def failure_from_response(
    status: int, body: bytes, headers: Mapping[str, str], *, api_key: str | None
) -> IntegrationError:
    """The error of an HTTP answer that is not a success."""
    error = _error_object(body)
    message = _message(error) or responses.get(status, "")
    return _failure(
        status, message, error, retry_after=retry_after_seconds(headers), api_key=api_key
    )


def failure_from_error(error: Mapping[str, Any], *, api_key: str | None) -> IntegrationError:
    """The error object of an answer that began as a success (status 200)."""
    return _failure(_status_of(error), _message(error), error, retry_after=None, api_key=api_key)


def redacted(text: str, api_key: str | None) -> str:
    """`text`, shortened, without the key or anything that looks like one."""
    if api_key:
        text = text.replace(api_key, "[key]")
    return _KEY_LIKE.sub("[key]", text.replace("\0", ""))[:_MAX_MESSAGE]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, given in seconds or as an HTTP date, as 0 … 60 seconds."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    seconds = _as_seconds(value)
    if seconds is None:
        seconds = _until(value, headers.get("date"))
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _failure(
    status: int,
    message: str,
    error: Mapping[str, Any],
    *,
    retry_after: float | None,
    api_key: str | None,
) -> IntegrationError:
    text = f"OpenRouter {status}: {redacted(message or 'no message', api_key)}"
    # A 402 that says when to come back is a spending limit in flight, not an empty account.
    if status in _TEMPORARY or status >= HTTPStatus.INTERNAL_SERVER_ERROR or retry_after:
        return TemporarilyUnavailable(text, status=status, retry_after=retry_after)
    if status == HTTPStatus.PAYMENT_REQUIRED:
        return InsufficientCredits(text, status=status)
    if status == HTTPStatus.UNAUTHORIZED or (
        status == HTTPStatus.FORBIDDEN and not _is_moderation(error)
    ):
        return AuthenticationFailed(text, status=status)
    return RequestRejected(text, status=status)


def _is_moderation(error: Mapping[str, Any]) -> bool:
    metadata = error.get("metadata")
    return isinstance(metadata, Mapping) and ("reasons" in metadata or "flagged_input" in metadata)


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body[:_MAX_MESSAGE].decode("utf-8", "replace").strip()}
    error = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _message(error: Mapping[str, Any]) -> str:
    """The message, with the provider's own words where OpenRouter passes them on."""
    message = error.get("message")
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    parts = [part for part in (message, raw) if isinstance(part, str) and part]
    return " — ".join(dict.fromkeys(parts))


def _status_of(error: Mapping[str, Any]) -> int:
    code = error.get("code")
    if isinstance(code, str):
        code = int(code) if code.isdecimal() and code.isascii() else _CODES.get(code)
    if isinstance(code, int) and not isinstance(code, bool) and _is_error(code):
        return code
    return int(HTTPStatus.BAD_GATEWAY)


def _is_error(status: int) -> bool:
    return HTTPStatus.BAD_REQUEST <= status < 600  # noqa: PLR2004 - the end of HTTP's error range


def _as_seconds(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _until(http_date: str, server_date: str | None) -> float | None:
    """Seconds to an HTTP date, by the server's own clock where it shows one."""
    target = _parse_date(http_date)
    if target is None:
        return None
    now = _parse_date(server_date or "") or datetime.now(UTC)
    return (target - now).total_seconds()


def _parse_date(value: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
