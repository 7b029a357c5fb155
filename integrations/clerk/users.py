"""Clerk's users, as its webhooks and its backend API show them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from integrations.clerk.tokens import is_storable

API_URL = "https://api.clerk.com/v1"
# Somebody signs in for the first time and waits.
LOOKUP_TIMEOUT_S = 3.0

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClerkUser:
    """A user as of `updated_at`; None for what is not known or not given."""

    clerk_id: str
    updated_at: datetime | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    image_url: str | None = None


class ClerkUsers:
    """Asks Clerk's backend API."""

    def __init__(self, http: httpx.AsyncClient, secret_key: str, base_url: str = API_URL) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {secret_key}"}
        self._base_url = base_url

    async def find(self, clerk_id: str) -> ClerkUser | None:
        """Return the user; None when Clerk knows none of that id, or does not answer as it should.

        Never raises: nothing that a user asks for may depend on it.
        """
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                answer = await self._http.get(self._address(clerk_id), headers=self._headers)
            answer.raise_for_status()
            return read_user(answer.json())
        except httpx.HTTPStatusError as e:
            _logger.warning("clerk_user_not_read", status=e.response.status_code)
        except (httpx.HTTPError, TimeoutError, ValueError) as e:
            _logger.warning("clerk_user_not_read", error=type(e).__name__)
        return None

    def _address(self, clerk_id: str) -> str:
        return f"{self._base_url}/users/{quote(clerk_id, safe='')}"


def read_user(document: Any) -> ClerkUser:
    """Read Clerk's user object; raises ValueError when it is none."""
    found: Mapping[str, Any] = document if isinstance(document, dict) else {}
    return ClerkUser(
        clerk_id=read_id(found),
        updated_at=_moment(found.get("updated_at")),
        email=_primary_address(found),
        first_name=_text(found.get("first_name")),
        last_name=_text(found.get("last_name")),
        username=_text(found.get("username")),
        image_url=_text(found.get("image_url")),
    )


def read_id(document: Mapping[str, Any]) -> str:
    """Read the id of a user, all of whom may be gone but this; raises ValueError."""
    clerk_id = _text(document.get("id"))
    if clerk_id is None:
        raise ValueError("a user of Clerk's has an id")
    return clerk_id


def _primary_address(user: Mapping[str, Any]) -> str | None:
    """The address that the user has chosen; others may be unconfirmed, and somebody else's."""
    listed = user.get("email_addresses")
    addresses = listed if isinstance(listed, list) else []
    primary = user.get("primary_email_address_id")
    for each in addresses:
        if isinstance(each, dict) and primary is not None and primary == each.get("id"):
            return _text(each.get("email_address"))
    return None


def _moment(milliseconds: Any) -> datetime | None:
    if not isinstance(milliseconds, int):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and is_storable(value) else None
