"""What is told to a user, once however often the telling is retried."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import (
    ActivityLog,
    NewActivity,
    NewNotification,
    Notification,
    NotificationRecord,
    Trade,
    TradingSession,
)

_DEDUP_COLUMNS = ("user_id", "category", "session_id", "dedup_key")

EmailOutcome = Literal["sent", "not_sent", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBrief:
    """What a notice says of a session, and whether its user wants e-mail about it."""

    id: UUID
    type: str
    agent_name: str
    asset: str
    timeframe: str
    email_notifications: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeBrief:
    """What a notice says of a trade; the exit is None while it is open."""

    direction: Literal["long", "short"]
    entry_price: float
    exit_price: float | None
    exit_type: str | None
    pnl_pct: float | None


class InboxRepository:
    """Notifications and history of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def notify(self, new: NewNotification) -> bool:
        """Store a notification; False when its `dedup_key` was there before."""
        return await self._insert(Notification, new.model_dump())

    async def told(self, new: NewNotification) -> NotificationRecord:
        """Store a notification, or find the one that its `dedup_key` was stored with."""
        await self.notify(new)
        names = ("id",) if new.dedup_key is None else _DEDUP_COLUMNS
        same = [
            getattr(Notification, name).is_not_distinct_from(getattr(new, name)) for name in names
        ]
        found = (await self._session.scalars(select(Notification).where(*same))).one()
        return NotificationRecord.model_validate(found, from_attributes=True)

    async def brief(self, session_id: UUID) -> SessionBrief | None:
        """Return what there is to say of a session."""
        columns = [getattr(TradingSession, name) for name in SessionBrief.__slots__]
        query = select(*columns).where(col(TradingSession.id) == session_id)
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else SessionBrief(**row)

    async def trade(self, session_id: UUID, trade_number: int) -> TradeBrief | None:
        """Return what there is to say of a trade."""
        columns: list[Any] = [
            col(Trade.type).label("direction"),
            *(getattr(Trade, name) for name in ("entry_price", "exit_price")),
            *(getattr(Trade, name) for name in ("exit_type", "pnl_pct")),
        ]
        query = select(*columns).where(
            col(Trade.session_id) == session_id, col(Trade.trade_number) == trade_number
        )
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else TradeBrief(**row)

    async def claim_email(self, notification_id: UUID) -> bool:
        """Take it on oneself to send the e-mail; False when somebody has, or when it is settled."""
        unclaimed = col(Notification.email_state).is_(None)
        return await self._set_email(notification_id, unclaimed, email_state="sending")

    async def release_email(self, notification_id: UUID) -> None:
        """Give a claimed e-mail back, unsent."""
        claimed = col(Notification.email_state) == "sending"
        await self._set_email(notification_id, claimed, email_state=None)

    async def settle_email(self, notification_id: UUID, outcome: EmailOutcome) -> None:
        """Note what came of the e-mail; it does not come up again."""
        values: dict[str, Any] = {"email_state": outcome}
        if outcome == "sent":
            values["emailed_at"] = func.clock_timestamp()
        unsent = col(Notification.email_state).is_distinct_from("sent")
        await self._set_email(notification_id, unsent, **values)

    async def record(self, new: NewActivity) -> bool:
        """Store a line of history; False when its `dedup_key` was there before."""
        values = new.model_dump()
        return await self._insert(ActivityLog, values)

    async def _set_email(
        self, notification_id: UUID, *conditions: ColumnElement[bool], **values: Any
    ) -> bool:
        change = update(Notification).where(col(Notification.id) == notification_id, *conditions)
        changed = await self._session.scalar(
            change.values(**values).returning(col(Notification.id)),
            execution_options={"synchronize_session": False},
        )
        return changed is not None

    async def _insert(
        self, table: type[Notification] | type[ActivityLog], values: dict[str, Any]
    ) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(col(table.id))
        return await self._session.scalar(statement) is not None
