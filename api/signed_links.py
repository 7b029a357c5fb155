"""Links that open one file for a while: whoever has the link needs no token.

A link is `PATH?expires=…&signature=…`; the signature is HMAC-SHA256 over the method, the path and
the expiry, so that no part of it can be exchanged.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from api.errors import Forbidden

# HEAD tells of a file what GET sends with it.
_READING: Final = frozenset({"GET", "HEAD"})
_DIGITS: Final = 12  # of seconds, which is beyond the dates that there are


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
        self, method: str, path: str, query: Mapping[str, str], *, now: datetime | None = None
    ) -> None:
        """Raise Forbidden unless the query was signed for this path and has not expired."""
        expires, given = query.get("expires", ""), query.get("signature", "")
        if method not in _READING or not self._has_signed(path, expires, given):
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


def is_signed(query: Mapping[str, str]) -> bool:
    """Whether a query claims to be a signed link's."""
    return "signature" in query


def _signature(key: bytes, path: str, expires: str) -> str:
    message = f"GET\n{path}\n{expires}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()
