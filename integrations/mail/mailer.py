"""Hands letters to an SMTP server.

A failure with `was_free` left nothing behind: the server has refused the letter, or was never
given it. After any other the letter may have been delivered, or not.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import aiosmtplib

from integrations.errors import (
    AuthenticationFailed,
    IntegrationError,
    RequestRejected,
    TemporarilyUnavailable,
)
from integrations.mail.letters import Letter, message_of, sender_of

MailSecurity = Literal["none", "starttls", "tls"]

# Each is the limit of the whole exchange, however many replies it is made of.
CONNECT_TIMEOUT_S: Final = 15.0
SEND_TIMEOUT_S: Final = 30.0
_QUIT_TIMEOUT_S: Final = 2.0

_TEMPORARY: Final = range(400, 500)
_FOR_GOOD: Final = range(500, 600)
_WANTS_AUTHENTICATION: Final = frozenset({530, 534, 535, 538})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where letters are handed over, and in whose name.

    `sender` is an address with or without a name. `tls` speaks it from the first byte on (port
    465), `starttls` insists on changing to it (587), `none` is for a relay on the same host.
    """

    host: str
    port: int
    sender: str
    security: MailSecurity
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class Outbox:
    """An open connection that takes letters."""

    def __init__(self, client: aiosmtplib.SMTP, sender: str) -> None:
        self._client = client
        self._sender = sender_of(sender)

    async def send(self, letter: Letter) -> None:
        """Hand over one letter; it is accepted when this returns.

        Raises `TemporarilyUnavailable` or `RequestRejected`; `was_free` says whether it is sure
        that nothing was delivered.
        """
        message = message_of(letter, self._sender)
        with _failures("does not take the letter", is_free=True):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._client.mail(self._sender.addr_spec)
                await self._client.rcpt(letter.to)
        with _failures("did not confirm the letter", is_free=False):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._client.data(message.as_bytes())


class Mailer:
    """Connects to one SMTP server; `tls` replaces the system's trust in certificates."""

    def __init__(self, server: MailServer, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Outbox]:
        """An open, authenticated connection.

        Raises `TemporarilyUnavailable`, `AuthenticationFailed` or `RequestRejected`, all free.
        """
        client = self._client()
        try:
            with _failures("cannot be used", is_free=True):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._open(client)
            yield Outbox(client, self._server.sender)
            await _leave(client)
        finally:
            client.close()

    def _client(self) -> aiosmtplib.SMTP:
        server = self._server
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.security == "tls",
            start_tls=False,
            tls_context=self._tls,
            timeout=SEND_TIMEOUT_S,
        )

    async def _open(self, client: aiosmtplib.SMTP) -> None:
        await client.connect()
        await client.ehlo()
        if self._server.security == "starttls":
            if not client.supports_extension("starttls"):
                raise aiosmtplib.SMTPNotSupported("no STARTTLS")
            await client.starttls()
        if self._server.username is not None:
            await client.login(self._server.username, self._server.password or "")


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye; what was sent is sent, whatever the answer is."""
    with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(_QUIT_TIMEOUT_S):
            await client.quit()


@contextmanager
def _failures(what: str, *, is_free: bool) -> Generator[None]:
    """Translate what went wrong; a refusal in so many words is free in any case.

    The server's own words stay out, for they often repeat the address, and nothing is chained, for
    a cause may hold the password.
    """
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        failure = _refusal(error.code, what)
        # What is no refusal, an answer that cannot be read among it, may be anything.
        is_refusal = error.code in _TEMPORARY or error.code in _FOR_GOOD
        raise (_free(failure) if is_free or is_refusal else failure) from None
    except aiosmtplib.SMTPNotSupported:
        text = f"the mail server {what}: it lacks what the settings ask for"
        raise _free(RequestRejected(text)) from None
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        failure = TemporarilyUnavailable(f"the mail server {what} ({type(error).__name__})")
        raise (_free(failure) if is_free else failure) from None


def _refusal(code: int, what: str) -> IntegrationError:
    text = f"the mail server {what}: SMTP {code}"
    if code in _WANTS_AUTHENTICATION:
        return AuthenticationFailed(text, status=code)
    if code in _FOR_GOOD:
        return RequestRejected(text, status=code)
    return TemporarilyUnavailable(text, status=code)


def _free(failure: IntegrationError) -> IntegrationError:
    failure.was_free = True
    return failure
