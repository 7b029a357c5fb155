"""A letter as a message of RFC 5322: one reader, plain text, headers that nobody can add to."""

from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses
from uuid import UUID

from integrations.errors import RequestRejected

_LONGEST_SUBJECT = 200
_LONGEST_ADDRESS = 254  # of RFC 5321's path of 256, without its brackets


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Plain text to one address; the same `id` makes the same Message-ID.

    Line breaks and other control characters in `subject` become spaces.
    """

    id: UUID
    to: str
    subject: str
    text: str
    written_at: datetime


def message_of(letter: Letter, sender: Address) -> EmailMessage:
    """Return the message. Raises `RequestRejected` when `to` is not one plain address."""
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = sender
    message["To"] = reader_of(letter)
    message["Subject"] = _one_line(letter.subject)
    message["Date"] = format_datetime(letter.written_at)
    message["Message-ID"] = f"<{letter.id}@{sender.domain}>"
    # Tells out-of-office answers to keep still (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    return message


def reader_of(letter: Letter) -> Address:
    """Return the address of the reader. Raises `RequestRejected`, without repeating it."""
    try:
        return _plain_address(letter.to)
    except ValueError:
        failure = RequestRejected("the e-mail address cannot be written to")
        failure.was_free = True
        raise failure from None


def sender_of(text: str) -> Address:
    """Read `no-reply@example.com` or `AlphaLab <no-reply@example.com>`. Raises ValueError."""
    found = getaddresses([text]) if text.isprintable() else []
    if len(found) != 1:
        raise ValueError("is not one e-mail address")
    name, address = found[0]
    plain = _plain_address(address)
    return Address(name, plain.username, plain.domain)


def _plain_address(text: str) -> Address:
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "(),:;<>[\\]')
    if not is_plain or len(text) > _LONGEST_ADDRESS:
        raise ValueError("is not an e-mail address")
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, MessageError):
        raise ValueError("is not an e-mail address") from None
    if not (address.username and address.domain):
        raise ValueError("is not an e-mail address")
    return address


def _one_line(text: str) -> str:
    printable = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(printable.split())[:_LONGEST_SUBJECT]
