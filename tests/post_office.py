"""An SMTP server on loopback that keeps what it is given, and fails where it is told to."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from integrations.mail.mailer import MailSecurity, MailServer

Stage = Literal["MAIL", "RCPT", "DATA"]

USERNAME, PASSWORD = "alphalab", "hunter2-of-the-post-office"


@dataclass(slots=True, kw_only=True)
class PostOffice:
    """`replies` are given in place of an OK; `vanishes_at` cuts the line instead of a reply.

    A letter at which it vanishes was accepted all the same. `seen` counts the stages reached.
    """

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    seen: list[Stage] = field(default_factory=list)
    replies: dict[Stage, str] = field(default_factory=dict)
    vanishes_at: Stage | None = None
    hangs_at: Stage | None = None

    def server(self, **changes: Any) -> MailServer:
        """How a mailer reaches this office."""
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "sender": "AlphaLab <no-reply@alphalab.example>",
            "security": "none",
        }
        return MailServer(**values | changes)

    def recover(self) -> None:
        """Work again."""
        self.replies.clear()
        self.vanishes_at = self.hangs_at = None

    async def handle_MAIL(  # noqa: N802 - the server looks for these names
        self, server: Any, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return await self._reply(server, "MAIL")

    async def handle_RCPT(  # noqa: N802
        self, server: Any, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return await self._reply(server, "RCPT")

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if "DATA" not in self.replies:
            self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
            self.readers.extend(envelope.rcpt_tos)
        return await self._reply(server, "DATA")

    def authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        is_known = data == LoginPassword(login=USERNAME.encode(), password=PASSWORD.encode())
        if is_known:
            self.logins.append(USERNAME)
        return AuthResult(success=is_known, handled=False)

    async def _reply(self, server: Any, stage: Stage) -> str:
        self.seen.append(stage)
        if self.vanishes_at == stage:
            server.transport.abort()
        if self.hangs_at == stage:
            await asyncio.sleep(60)
        return self.replies.get(stage, "250 OK")


@asynccontextmanager
async def post_office(
    security: MailSecurity = "none", tls: ssl.SSLContext | None = None, *, has_login: bool = False
) -> AsyncIterator[PostOffice]:
    """Open an office on a free port; `tls` is its certificate."""
    office, opened = PostOffice(), list[SMTP]()

    def connection() -> SMTP:
        options: dict[str, Any] = {"auth_require_tls": security == "starttls"}
        if security == "starttls":
            options |= {"tls_context": tls, "require_starttls": True}
        if has_login:
            options |= {"authenticator": office.authenticate, "auth_required": True}
        with warnings.catch_warnings():
            # It does not know of the TLS that lies beneath it.
            warnings.simplefilter("ignore")
            opened.append(SMTP(office, hostname="post.example", **options))
        return opened[-1]

    loop = asyncio.get_running_loop()
    implicit = tls if security == "tls" else None
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=implicit)
    office.port = server.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        server.close()
        for each in opened:
            if isinstance(each.transport, asyncio.WriteTransport):
                each.transport.abort()
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate of 127.0.0.1, and the trust in it."""

    of_server: ssl.SSLContext
    trusted: ssl.SSLContext


def certificate(directory: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "post.example")])
    now = datetime.now(tz=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate_file, key_file)
    trusted = ssl.create_default_context(cafile=str(certificate_file))
    return Certificate(of_server=of_server, trusted=trusted)
