"""A user is told once, and written to at most once, whatever happens to the telling."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError

from activities.notices import Category, NoticeFacts
from activities.notifications import NotificationActivities, NotifyInput, NotifyResult
from db.engine import Database
from db.models import NewNotification
from db.repositories.inbox import InboxRepository
from db.repositories.notifications import NotificationRepository
from db.repositories.users import Profile, SignInRepository, UserRepository
from integrations.mail.mailer import Mailer
from tests.activities.interruptions import Interruption, interrupted
from tests.activities.processes import Machine
from tests.db.accounts import Account
from tests.plain_runs import environment
from tests.post_office import PostOffice, post_office

EVERYTHING = {"trade_executed": True, "daily_summary": True}
FACTS = NoticeFacts(pnl_pct=4.2, trades=17)


@dataclass(slots=True, kw_only=True)
class Reader:
    """A user with an address who wants every e-mail, and a test that sends them."""

    account: Account
    address: str
    session_id: UUID
    office: PostOffice

    def input(self, category: Category = "test_completed", **changes: Any) -> NotifyInput:
        values: dict[str, Any] = {
            "session_id": str(self.session_id),
            "user_id": str(self.account.id),
            "category": category,
            "dedup_key": "finish",
            "facts": FACTS,
        }
        return NotifyInput(**values | changes)

    def activities(self, database: Database | None = None) -> NotificationActivities:
        mailer = Mailer(self.office.server())
        return NotificationActivities(database or self.account.database, mailer)

    async def notify(self, input: NotifyInput | None = None) -> NotifyResult:
        return await environment().run(self.activities().notify, input or self.input())

    async def rows(self) -> list[dict[str, Any]]:
        async with self.account.database.for_user(self.account.id) as session:
            found = await session.execute(text("SELECT * FROM notifications ORDER BY id"))
            return [dict(row) for row in found.mappings()]

    async def change(self, statement: str, **values: Any) -> None:
        ids = {"user": self.account.id, "session": self.session_id}
        async with self.account.database.as_system() as session:
            await session.execute(text(statement), ids | values)


@pytest.fixture
async def office() -> AsyncIterator[PostOffice]:
    async with post_office() as office:
        yield office


@pytest.fixture
async def reader(database: Database, office: PostOffice) -> Reader:
    return await new_reader(database, office)


async def new_reader(database: Database, office: PostOffice) -> Reader:
    address = f"{uuid4().hex}@example.com"
    async with database.as_system() as session:
        profile = Profile(email=address)
        user, _ = await SignInRepository(session).sync(f"user_{uuid4().hex}", profile)
    account = Account(id=user.id, database=database)
    async with database.for_user(user.id) as session:
        changes = {"email_notifications": EVERYTHING}
        await UserRepository(session).update_settings(user.id, changes)
    agent = await account.add_agent()
    running = await account.add_session(agent, email_notifications=True)
    return Reader(account=account, address=address, session_id=running.id, office=office)


async def test_a_notification_is_stored_and_sent_once_however_often_it_is_told(reader: Reader):
    first, second = await reader.notify(), await reader.notify()

    (row,) = await reader.rows()
    (letter,) = reader.office.letters
    assert first == second == NotifyResult(notification_id=str(row["id"]), email="sent")
    assert (row["type"], row["title"]) == ("success", "Alpha: backtest finished")
    assert row["message"] == "BTC/USDT 1h: +4.20 % in 17 trades."
    assert row["emailed_at"] >= row["created_at"]
    assert reader.office.readers == [reader.address]
    assert letter["Subject"] == row["title"]
    assert letter["Message-ID"] == f"<{row['id']}@alphalab.example>"
    assert row["message"] in letter.get_content()


async def test_attempts_at_the_same_time_send_one_letter(reader: Reader):
    results = await asyncio.gather(*(reader.notify() for _ in range(6)))

    assert len(await reader.rows()) == len(reader.office.letters) == 1
    assert "sent" in {result.email for result in results} <= {"sent", "sending"}


async def test_another_key_or_category_is_another_notification(reader: Reader):
    for told in (
        reader.input(),
        reader.input(dedup_key="again"),
        reader.input("daily_summary", dedup_key="finish"),
    ):
        await reader.notify(told)

    assert len(await reader.rows()) == len(reader.office.letters) == 3


@pytest.mark.parametrize("category", get_args(Category))
async def test_every_category_has_words_even_without_facts(reader: Reader, category: Category):
    result = await reader.notify(reader.input(category, facts=NoticeFacts()))

    (row,) = await reader.rows()
    assert result.email == "sent"
    assert row["title"].startswith("Alpha: ")
    assert row["message"].startswith("BTC/USDT 1h: ")
    assert row["message"].endswith(".")
    assert row["action_url"] == f"/dashboard/arena/backtest/{reader.session_id}"
    assert "None" not in row["title"] + row["message"]


@pytest.mark.parametrize(
    ("category", "facts", "message"),
    [
        (
            "trade_executed",
            NoticeFacts(action="opened", direction="long", price=43_250.5),
            "long opened at 43,250.5.",
        ),
        (
            "trade_executed",
            NoticeFacts(action="closed", direction="short", price=0.00001234, pnl_pct=1.5),
            "short closed at 1.234e-05: +1.50 %.",
        ),
        (
            "stop_loss_hit",
            NoticeFacts(direction="long", price=41_000, pnl_pct=-2),
            "long closed at 41,000: -2.00 %.",
        ),
        (
            "auto_stopped",
            NoticeFacts(reason="max_loss_exceeded", equity=9_000, pnl_pct=-10),
            "the loss limit was reached, equity 9,000.00 (-10.00 %).",
        ),
        (
            "paused",
            NoticeFacts(reason="budget_reached"),
            "paused, because the test has reached its own cost limit.",
        ),
        ("paused", NoticeFacts(reason="user"), "paused."),
        (
            "daily_summary",
            NoticeFacts(equity=10_420, pnl_pct=4.2, trades=1),
            "equity 10,420.00 (+4.20 %), 1 trade.",
        ),
    ],
)
async def test_facts_are_put_into_words(
    reader: Reader, category: Category, facts: NoticeFacts, message: str
):
    await reader.notify(reader.input(category, facts=facts))

    (row,) = await reader.rows()
    assert row["message"] == f"BTC/USDT 1h: {message}"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "UPDATE trading_sessions SET email_notifications = false WHERE id = :session",
            "off_for_this_test",
        ),
        (
            "UPDATE user_settings SET email_notifications ="
            " email_notifications || '{\"test_completed\": false}' WHERE user_id = :user",
            "off_in_settings",
        ),
        ("UPDATE users SET email = NULL WHERE id = :user", "no_address"),
        ("UPDATE users SET is_active = false WHERE id = :user", "no_address"),
    ],
)
async def test_an_e_mail_that_nobody_wants_is_logged_as_not_sent(
    reader: Reader, statement: str, reason: str
):
    await reader.change(statement)

    with capture_logs() as logs:
        result = await reader.notify()

    (row,) = await reader.rows()
    assert (result.email, row["email_state"]) == ("not_sent", "not_sent")
    assert [(log["event"], log["reason"]) for log in logs] == [("email_not_sent", reason)]
    assert reader.office.seen == []


@pytest.mark.parametrize(
    ("category", "group"),
    [
        ("test_completed", "test_completed"),
        ("trade_executed", "trade_executed"),
        ("stop_loss_hit", "stop_loss_hit"),
        ("auto_stopped", "stop_loss_hit"),
        ("paused", "test_completed"),
        ("daily_summary", "daily_summary"),
    ],
)
async def test_each_category_asks_the_setting_it_belongs_to(
    reader: Reader, category: Category, group: str
):
    async with reader.account.database.for_user(reader.account.id) as session:
        changes = {"email_notifications": {group: False}}
        await UserRepository(session).update_settings(reader.account.id, changes)

    result = await reader.notify(reader.input(category))

    assert result.email == "not_sent"


async def test_without_a_mail_server_the_inbox_has_it_all_the_same(reader: Reader):
    activities = NotificationActivities(reader.account.database, None)

    with capture_logs() as logs:
        result = await environment().run(activities.notify, reader.input())

    assert result.email == "not_sent"
    assert logs[0]["reason"] == "smtp_not_configured"
    assert len(await reader.rows()) == 1


async def test_the_notice_that_the_end_of_a_test_has_stored_is_the_one_that_is_sent(
    reader: Reader,
):
    stored = NewNotification(
        user_id=reader.account.id,
        type="success",
        category="test_completed",
        title="Alpha: backtest finished",
        message="As the result has it.",
        session_id=reader.session_id,
        dedup_key="finish",
    )
    async with reader.account.database.for_user(reader.account.id) as session:
        await InboxRepository(session).notify(stored)

    result = await reader.notify()

    assert result == NotifyResult(notification_id=str(stored.id), email="sent")
    assert "As the result has it." in reader.office.letters[0].get_content()
    assert len(await reader.rows()) == 1


async def test_what_was_cleared_is_not_told_again(reader: Reader):
    await reader.notify()
    async with reader.account.database.for_user(reader.account.id) as session:
        await NotificationRepository(session).clear()

    await reader.notify()

    assert len(reader.office.letters) == 1
    async with reader.account.database.for_user(reader.account.id) as session:
        assert await NotificationRepository(session).count_unread() == 0


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_a_server_that_takes_nothing_now_gets_the_letter_later(reader: Reader, stage: Any):
    reader.office.replies[stage] = "451 4.3.0 Later"

    with pytest.raises(ApplicationError) as caught:
        await reader.notify()

    assert (caught.value.type, caught.value.non_retryable) == ("MailUnavailable", False)
    assert (await reader.rows())[0]["email_state"] is None
    reader.office.recover()
    assert (await reader.notify()).email == "sent"
    assert len(await reader.rows()) == len(reader.office.letters) == 1


async def test_a_letter_whose_confirmation_got_lost_is_not_sent_again(reader: Reader):
    reader.office.vanishes_at = "DATA"

    with capture_logs() as logs:
        first = await reader.notify()
        reader.office.recover()
        second = await reader.notify()

    assert first.email == second.email == "sending"
    assert [log["event"] for log in logs] == ["email_uncertain"] * 2
    assert len(reader.office.letters) == 1


@pytest.mark.parametrize("reply", ["550 5.1.1 <{}> unknown", "530 5.7.0 Who are you"])
async def test_a_letter_that_is_refused_for_good_fails_nothing(reader: Reader, reply: str):
    reader.office.replies["RCPT"] = reply.format(reader.address)

    with capture_logs() as logs:
        first = await reader.notify()
        reader.office.recover()
        second = await reader.notify()

    assert first.email == second.email == "refused"
    assert [log["event"] for log in logs] == ["email_refused"]
    assert reader.address not in str(logs)
    assert reader.office.letters == []


async def test_an_address_that_would_add_a_reader_is_written_to_by_nobody(reader: Reader):
    address = f"{uuid4().hex}@example.com\r\nBcc: eve@example.com"
    await reader.change("UPDATE users SET email = :address WHERE id = :user", address=address)

    assert (await reader.notify()).email == "refused"
    assert reader.office.letters == []


async def test_nobody_is_told_of_a_test_that_is_not_theirs(reader: Reader, database: Database):
    stranger = await new_reader(database, reader.office)

    for session_id in (stranger.session_id, uuid4()):
        with pytest.raises(ApplicationError) as caught:
            await reader.notify(reader.input(session_id=str(session_id)))
        assert (caught.value.type, caught.value.non_retryable) == ("SessionNotFound", True)

    assert await reader.rows() == await stranger.rows() == []


@pytest.mark.parametrize("how", ["kill", "cancel"])
async def test_an_attempt_interrupted_at_any_await_tells_once_and_writes_at_most_once(
    machine: Machine, office: PostOffice, database: Database, how: Interruption
):
    outcomes = set()
    for at in count(1):
        reader = await new_reader(database, office)
        office.letters.clear()
        activity = reader.activities(machine.database).notify
        first = await interrupted(activity, reader.input(), at=at, how=how, run_id="run-1")
        await machine.lose_connections()

        second = await reader.notify()

        (row,) = await reader.rows()
        assert row["email_state"] == second.email
        assert second.email in {"sent", "sending"}
        assert len(office.letters) <= 1
        assert len(office.letters) == 1 or second.email == "sending"
        outcomes.add((second.email, len(office.letters)))
        if first.suspensions < at:
            break

    assert at > 10, "an activity that touches PostgreSQL and SMTP waits for both"
    assert {("sent", 1), ("sending", 0), ("sending", 1)} == outcomes
