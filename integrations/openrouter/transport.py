"""One HTTP exchange with OpenRouter: headers, time limits, and failures in our vocabulary."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import orjson

from integrations.errors import AuthenticationFailed, IntegrationError, TemporarilyUnavailable
from integrations.openrouter.failures import failure_from_response, redacted

_CONNECT_TIMEOUT: Final = 5.0
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL)
_MAX_ERROR_BYTES: Final = 64 * 1024
_MAX_JSON_BYTES: Final = 32 * 1024 * 1024  # the whole catalogue is about a megabyte


class Transport:
    """Where requests go, and what every one of them carries."""

    def __init__(
        self, http: httpx.AsyncClient, base_url: str, *, headers: Mapping[str, str]
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers)

    @asynccontextmanager
    async def exchange(
        self, method: str, path: str, *, api_key: str | None, timeout: float, body: bytes = b""
    ) -> AsyncIterator[httpx.Response]:
        """The answer, its status checked and its body not yet read; `timeout` covers it all."""
        headers = self._headers | _request_headers(api_key, body)
        limit = asyncio.timeout(timeout)
        try:
            async with (
                limit,
                self._http.stream(
                    method,
                    self._base_url + path,
                    content=body or None,
                    headers=headers,
                    timeout=httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT),
                ) as response,
            ):
                if not response.is_success:
                    error_body = await read_at_most(response, _MAX_ERROR_BYTES)
                    raise _free(
                        failure_from_response(
                            response.status_code, error_body, response.headers, api_key=api_key
                        )
                    )
                yield response
        except TimeoutError:
            if not limit.expired():
                raise
            raise TemporarilyUnavailable(f"no complete answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Not chained: the cause carries the request, and the request carries the key.
            text = redacted(f"{type(error).__name__}: {error}".rstrip(": "), api_key)
            failure = TemporarilyUnavailable(f"OpenRouter cannot be reached: {text}")
            raise (_free(failure) if isinstance(error, _NEVER_SENT) else failure) from None

    async def get_json(
        self, path: str, *, api_key: str | None, timeout: float
    ) -> Mapping[str, Any]:
        async with self.exchange("GET", path, api_key=api_key, timeout=timeout) as response:
            body = await read_at_most(response, _MAX_JSON_BYTES)
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            payload = None
        if not isinstance(payload, dict):
            raise TemporarilyUnavailable(f"OpenRouter's {path} is not a JSON object")
        return payload


async def read_at_most(response: httpx.Response, limit: int) -> bytes:
    """The body, or its first `limit` bytes and the chunk that passed them."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            break
    return bytes(body)


def _free(failure: IntegrationError) -> IntegrationError:
    failure.was_free = True
    return failure


def _request_headers(api_key: str | None, body: bytes) -> dict[str, str]:
    # No compression: a few kilobytes must not be able to unfold into gigabytes.
    headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
    if body:
        headers["Content-Type"] = "application/json"
    if api_key is not None:
        if not api_key or not all("!" <= character <= "~" for character in api_key):
            raise _free(
                AuthenticationFailed("the API key is empty or has characters that no key has")
            )
        headers["Authorization"] = f"Bearer {api_key}"
    return headers
