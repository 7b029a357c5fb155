"""Tells a user what happened to a test: in the inbox once, by e-mail at most once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.failures import activity_failures, mail_failures
from activities.heartbeats import heartbeating
from activities.notices import Category, NoticeFacts, notice_of
from db.engine import Database
from db.models import NewNotification, NotificationRecord
from db.repositories.inbox import EmailOutcome, InboxRepository, SessionBrief
from db.repositories.users import UserRepository
from integrations.errors import AuthenticationFailed, IntegrationError, RequestRejected
from integrations.mail.letters import Letter
from integrations.mail.mailer import Mailer, Outbox

EmailState = Literal["sending", "sent", "not_sent", "refused"]

# Settings know five groups: a limit that ends a test is a stop-loss of the whole of it, and a test
# that waits for its user has come as far as it can.
_GROUPS: Mapping[Category, str] = MappingProxyType(
    {
        "test_completed": "test_completed",
        "trade_executed": "trade_executed",
        "stop_loss_hit": "stop_loss_hit",
        "auto_stopped": "stop_loss_hit",
        "paused": "test_completed",
        "daily_summary": "daily_summary",
    }
)
_SIGNATURE = "AlphaLab. Your settings say what you get by e-mail."

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyInput:
    """What happened to a session; the same `dedup_key` in a category is told once.

    With a `trade_number` the facts are those of the trade, and one that its stop-loss has closed is
    told as that.
    """

    session_id: str
    user_id: str
    category: Category
    dedup_key: str
    facts: NoticeFacts = field(default_factory=NoticeFacts)
    trade_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyResult:
    """The notification, and what is known of its e-mail.

    `sending`: handed over by an attempt that could not record how it went.
    """

    notification_id: str
    email: EmailState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A stored notification; `address` is where its e-mail still has to go."""

    notification: NotificationRecord
    address: str | None


class NotificationActivities:
    """Notifies users; without a mailer there is no e-mail."""

    def __init__(self, database: Database, mailer: Mailer | None) -> None:
        self._database = database
        self._mailer = mailer

    @activity.defn
    async def notify(self, input: NotifyInput) -> NotifyResult:
        """Store the notification once, and send its e-mail at most once.

        SMTP cannot tell whether a letter whose confirmation got lost was accepted. So an attempt
        first opens the connection, then claims the e-mail in its row, and only then hands it over:
        one that dies in between leaves it claimed, and it is not sent again. Where the server
        surely took nothing the claim is given back and the next attempt starts over. The
        Message-ID is made of the row's id: should a relay deliver a letter twice, it shows.
        """
        with activity_failures(), mail_failures(), heartbeating():
            user_id = UUID(input.user_id)
            async with self._database.for_user(user_id) as session:
                told = await self._tell(session, user_id, await _with_trade(session, input))
            state = await self._mail(told)
            return NotifyResult(notification_id=str(told.notification.id), email=state)

    async def _tell(self, session: AsyncSession, user_id: UUID, input: NotifyInput) -> _Told:
        inbox = InboxRepository(session)
        brief = await _brief(inbox, input.session_id)
        stored = await inbox.told(_notification(user_id, input, brief))
        if stored.email_state is not None:
            return _Told(notification=stored, address=None)
        address, reason = await self._address(session, user_id, input.category, brief)
        if reason is None:
            return _Told(notification=stored, address=address)
        await inbox.settle_email(stored.id, "not_sent")
        _log("email_not_sent", stored, reason=reason)
        settled = stored.model_copy(update={"email_state": "not_sent"})
        return _Told(notification=settled, address=None)

    async def _address(
        self, session: AsyncSession, user_id: UUID, category: Category, brief: SessionBrief
    ) -> tuple[str | None, str | None]:
        """Where the e-mail goes, or why there is none."""
        if self._mailer is None:
            return None, "smtp_not_configured"
        if not brief.email_notifications:
            return None, "off_for_this_test"
        users = UserRepository(session)
        wanted = (await users.settings(user_id)).email_notifications
        if not wanted.get(_GROUPS[category]):
            return None, "off_in_settings"
        user = await users.get(user_id)
        if user is None or not user.is_active or user.email is None:
            return None, "no_address"
        return user.email, None

    async def _mail(self, told: _Told) -> EmailState:
        notification = told.notification
        if told.address is None or self._mailer is None:
            return _settled(notification)
        try:
            async with self._mailer.connected() as outbox:
                if not await self._claim(notification):
                    return "sending"
                return await self._hand_over(outbox, notification, told.address)
        except (AuthenticationFailed, RequestRejected) as e:
            _log("email_refused", notification, reason=str(e))
            await self._settle(notification, "refused")
            return "refused"

    async def _hand_over(
        self, outbox: Outbox, notification: NotificationRecord, address: str
    ) -> EmailState:
        try:
            await outbox.send(_letter(notification, address))
        except IntegrationError as e:
            if not e.was_free:
                _log("email_uncertain", notification, reason=str(e))
                return "sending"
            await self._release(notification)
            raise
        await self._settle(notification, "sent")
        return "sent"

    async def _claim(self, notification: NotificationRecord) -> bool:
        async with self._database.for_user(notification.user_id) as session:
            return await InboxRepository(session).claim_email(notification.id)

    async def _release(self, notification: NotificationRecord) -> None:
        async with self._database.for_user(notification.user_id) as session:
            await InboxRepository(session).release_email(notification.id)

    async def _settle(self, notification: NotificationRecord, outcome: EmailOutcome) -> None:
        async with self._database.for_user(notification.user_id) as session:
            await InboxRepository(session).settle_email(notification.id, outcome)


async def _with_trade(session: AsyncSession, input: NotifyInput) -> NotifyInput:
    """The input with the facts of its trade; those of a closed one change no more."""
    if input.trade_number is None:
        return input
    inbox = InboxRepository(session)
    trade = await inbox.trade(UUID(input.session_id), input.trade_number)
    if trade is None:
        return input
    is_exit = input.facts.action == "closed"
    facts = replace(
        input.facts,
        direction=trade.direction,
        price=trade.exit_price if is_exit else trade.entry_price,
        pnl_pct=trade.pnl_pct if is_exit else None,
    )
    is_stop = is_exit and trade.exit_type == "stop_loss"
    return replace(input, facts=facts, category="stop_loss_hit" if is_stop else input.category)


async def _brief(inbox: InboxRepository, session_id: str) -> SessionBrief:
    brief = await inbox.brief(UUID(session_id))
    if brief is None:
        raise ApplicationError(
            f"session {session_id} does not exist", type="SessionNotFound", non_retryable=True
        )
    return brief


def _notification(user_id: UUID, input: NotifyInput, brief: SessionBrief) -> NewNotification:
    notice, result_id = notice_of(input.category, input.facts, brief), input.facts.result_id
    return NewNotification(
        user_id=user_id,
        type=notice.type,
        category=input.category,
        title=notice.title,
        message=notice.message,
        action_url=notice.action_url,
        session_id=brief.id,
        result_id=None if result_id is None else UUID(result_id),
        dedup_key=input.dedup_key,
    )


def _letter(notification: NotificationRecord, address: str) -> Letter:
    return Letter(
        id=notification.id,
        to=address,
        subject=notification.title,
        text=f"{notification.title}\n\n{notification.message}\n\n-- \n{_SIGNATURE}\n",
        written_at=notification.created_at,
    )


def _settled(notification: NotificationRecord) -> EmailState:
    match notification.email_state:
        case "sent" | "not_sent" | "refused" as state:
            return state
        case _:
            _log("email_uncertain", notification, reason="an earlier attempt broke off")
            return "sending"


def _log(event: str, notification: NotificationRecord, *, reason: str) -> None:
    _logger.info(
        event,
        notification_id=str(notification.id),
        category=notification.category,
        reason=reason,
    )
