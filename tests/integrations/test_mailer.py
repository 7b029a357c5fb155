"""Letters reach a real SMTP server, once, for one reader; failures speak one vocabulary."""

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.errors import (
    AuthenticationFailed,
    IntegrationError,
    RequestRejected,
    TemporarilyUnavailable,
)
from integrations.mail import mailer as mailer_module
from integrations.mail.letters import Letter, message_of, sender_of
from integrations.mail.mailer import Mailer, MailServer
from tests.post_office import (
    PASSWORD,
    USERNAME,
    Certificate,
    PostOffice,
    certificate,
    post_office,
)

LETTER = Letter(
    id=UUID("01970000-0000-7000-8000-000000000001"),
    to="ada@example.com",
    subject="Momentum Max: backtest finished",
    text="BTC/USDT 1h: +4.20 % in 17 trades.\n\n.\nNaïve größer 🙂\n",
    written_at=datetime(2025, 1, 31, 12, tzinfo=UTC),
)
SENDER = sender_of("AlphaLab <no-reply@alphalab.example>")


@pytest.fixture
async def office() -> AsyncIterator[PostOffice]:
    async with post_office() as office:
        yield office


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


async def send(mailer: Mailer, letter: Letter = LETTER) -> None:
    async with mailer.connected() as outbox:
        await outbox.send(letter)


async def failure(mailer: Mailer, letter: Letter = LETTER) -> IntegrationError:
    with pytest.raises(IntegrationError) as caught:
        await send(mailer, letter)
    assert caught.value.__cause__ is None
    for kept_out in (PASSWORD, USERNAME, letter.to):
        assert kept_out not in repr(caught.value) + str(caught.value)
    return caught.value


async def test_a_letter_arrives_as_it_was_written(office: PostOffice):
    await send(Mailer(office.server()))

    (letter,) = office.letters
    assert office.readers == ["ada@example.com"]
    assert letter["From"] == "AlphaLab <no-reply@alphalab.example>"
    assert letter["To"] == "ada@example.com"
    assert letter["Subject"] == LETTER.subject
    assert letter["Message-ID"] == f"<{LETTER.id}@alphalab.example>"
    assert letter["Date"].datetime == LETTER.written_at
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter.get_content().replace("\r\n", "\n") == LETTER.text


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_password_travels_under_tls(pair: Certificate, security: Any):
    async with post_office(security, pair.of_server, has_login=True) as office:
        server = office.server(security=security, username=USERNAME, password=PASSWORD)
        await send(Mailer(server, tls=pair.trusted))

    assert office.logins == [USERNAME]
    assert len(office.letters) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_not_believed(
    pair: Certificate, security: Any
):
    async with post_office(security, pair.of_server) as office:
        error = await failure(Mailer(office.server(security=security)))

    assert isinstance(error, TemporarilyUnavailable)
    assert error.was_free
    assert office.letters == []


async def test_without_starttls_on_offer_nothing_is_sent_in_the_clear(office: PostOffice):
    server = office.server(security="starttls", username=USERNAME, password=PASSWORD)

    error = await failure(Mailer(server))

    assert isinstance(error, RequestRejected)
    assert error.was_free
    assert office.seen == []


async def test_a_wrong_password_is_refused_and_not_repeated(pair: Certificate):
    async with post_office("tls", pair.of_server, has_login=True) as office:
        server = office.server(security="tls", username=USERNAME, password="hunter3")
        error = await failure(Mailer(server, tls=pair.trusted))

    assert isinstance(error, AuthenticationFailed)
    assert (error.status, error.was_free) == (535, True)


async def test_a_server_that_wants_a_password_gets_none(pair: Certificate):
    async with post_office("tls", pair.of_server, has_login=True) as office:
        error = await failure(Mailer(office.server(security="tls"), tls=pair.trusted))

    assert isinstance(error, AuthenticationFailed)
    assert error.was_free


async def test_nobody_there_is_a_passing_fault():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = MailServer(host="127.0.0.1", port=port, sender="a@b.example", security="none")

    error = await failure(Mailer(server))

    assert isinstance(error, TemporarilyUnavailable)
    assert error.was_free


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("451 4.3.0 Later <ada@example.com>", TemporarilyUnavailable),
        ("421 4.3.2 Closing", TemporarilyUnavailable),
        ("550 5.1.1 <ada@example.com> unknown", RequestRejected),
        ("530 5.7.0 Who are you", AuthenticationFailed),
    ],
)
async def test_a_refusal_in_so_many_words_left_nothing_behind(
    office: PostOffice, stage: Any, reply: str, kind: type[IntegrationError]
):
    office.replies[stage] = reply

    error = await failure(Mailer(office.server()))

    assert type(error) is kind
    assert (error.status, error.was_free) == (int(reply[:3]), True)
    assert office.letters == []


@pytest.mark.parametrize(("stage", "is_free"), [("MAIL", True), ("RCPT", True), ("DATA", False)])
async def test_a_line_that_breaks_leaves_a_doubt_only_once_the_letter_was_given(
    office: PostOffice, stage: Any, is_free: bool
):
    office.vanishes_at = stage

    error = await failure(Mailer(office.server()))

    assert isinstance(error, TemporarilyUnavailable)
    assert error.was_free is is_free
    assert len(office.letters) == (0 if is_free else 1)


@pytest.mark.parametrize(("stage", "is_free"), [("RCPT", True), ("DATA", False)])
async def test_a_server_that_hangs_is_left(
    office: PostOffice, monkeypatch: pytest.MonkeyPatch, stage: Any, is_free: bool
):
    monkeypatch.setattr(mailer_module, "SEND_TIMEOUT_S", 0.05)
    office.hangs_at = stage

    error = await failure(Mailer(office.server()))

    assert isinstance(error, TemporarilyUnavailable)
    assert error.was_free is is_free


async def test_a_server_that_does_not_greet_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mailer_module, "CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        server = MailServer(host="127.0.0.1", port=port, sender="a@b.example", security="none")
        error = await failure(Mailer(server))

    assert isinstance(error, TemporarilyUnavailable)
    assert error.was_free


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example.com, eve@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\nRCPT TO:<eve@example.com>",
        "Ada <ada@example.com>",
        "ada lovelace@example.com",
        '"ada"@example.com',
        "äda@example.com",
        "a" * 250 + "@example.com",
    ],
)
async def test_what_is_not_one_plain_address_gets_no_letter(office: PostOffice, address: str):
    async with Mailer(office.server()).connected() as outbox:
        with pytest.raises(RequestRejected) as caught:
            await outbox.send(replace(LETTER, to=address))

    assert caught.value.was_free
    assert not address or address not in str(caught.value)
    assert office.seen == []


async def test_a_subject_adds_no_header_and_no_body(office: PostOffice):
    subject = "Max\r\nBcc: eve@example.com\r\n\r\n<b>Hello</b>\x00\u2028 x"

    await send(Mailer(office.server()), replace(LETTER, subject=subject))

    (letter,) = office.letters
    assert letter["Subject"] == "Max Bcc: eve@example.com <b>Hello</b> x"
    assert letter["Bcc"] is None
    assert office.readers == ["ada@example.com"]
    assert letter.get_content().replace("\r\n", "\n") == LETTER.text


@given(subject=st.text(max_size=300), text=st.text(max_size=300))
def test_no_words_change_the_headers(subject: str, text: str):
    letter = replace(LETTER, subject=subject, text=text.encode(errors="ignore").decode())

    head = message_of(letter, SENDER).as_bytes().split(b"\r\n\r\n", 1)[0]

    names = [
        line.split(b":", 1)[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))
    ]
    expected = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
    assert [name.decode() for name in names[:6]] == expected
    assert {name.decode() for name in names[6:]} == {
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
    }


@pytest.mark.parametrize(
    "text", ["", "nobody", "a@b.example, c@d.example", "A <a@b.example>\r\nBcc: c@d.example", "<@>"]
)
def test_a_sender_is_one_address(text: str):
    with pytest.raises(ValueError, match="e-mail address"):
        sender_of(text)


def test_the_password_does_not_show():
    server = MailServer(
        host="h", port=25, sender="a@b.example", security="tls", username="u", password=PASSWORD
    )

    assert PASSWORD not in repr(server)
