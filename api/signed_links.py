"""Links that open one file for a while: whoever has the link needs no token.

A link is `PATH?expires=…&signature=…`; the signature is HMAC-SHA256 over the method, the path and
the expiry, so that no part of it can be exchanged.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from api.errors import Forbidden

# HEAD tells of a file what GET sends with it.
_READING: Final = frozenset({"GET", "HEAD"})
_DIGITS: Final = 12  # of seconds, which is beyond the dates that there are


class LinkQuery(BaseModel):
    """What a link carries; without it a request is refused like any other that nobody signed."""

    expires: str = Field("", description="Seconds since 1970 until which the link works.")
    signature: str = ""


class SignedLinks:
    """Signs with the first key, and takes what any of them has signed."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def sign(self, path: str, *, expires_at: datetime) -> str:
        """Return the query that opens `path` for GET and HEAD, until then, to the second."""
        expires = str(int(expires_at.timestamp()))
        signature = _signature(self._keys[0], path, expires)
        return urlencode({"expires": expires, "signature": signature})

    def check(
        self, method: str, path: str, query: LinkQuery, *, now: datetime | None = None
    ) -> None:
        """Raise Forbidden unless the query was signed for this path and has not expired."""
        expires = query.expires
        if method not in _READING or not self._has_signed(path, expires, query.signature):
            raise Forbidden("This link is not valid: copy all of it, or ask for a new one.")
        if int(expires) <= (now or datetime.now(UTC)).timestamp():
            raise Forbidden("This link has expired: ask for a new one.")

    def _has_signed(self, path: str, expires: str, given: str) -> bool:
        is_number = expires.isascii() and expires.isdecimal() and len(expires) <= _DIGITS
        # All are compared, so that the time taken does not tell which key it was.
        matches = [
            hmac.compare_digest(_signature(key, path, expires).encode(), given.encode())
            for key in self._keys
        ]
        return is_number and any(matches)


def _signature(key: bytes, path: str, expires: str) -> str:
    message = f"GET\n{path}\n{expires}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()
