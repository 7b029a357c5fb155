"""The daily summary of a forward test, at its user's local midnight."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from temporalio import activity

from activities.failures import activity_failures
from activities.notices import NoticeFacts
from db.engine import Database
from db.models import SessionStatus
from db.repositories.sessions import SessionRepository
from db.repositories.users import UserRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryInput:
    """Names a forward test."""

    session_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The local day before today, as far as the test ran then, and when today ends (Unix time)."""

    ends_at: float
    finished: str | None
    facts: NoticeFacts


class SummaryActivities:
    """Looks at the days of tests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn
    async def look_at_day(self, input: SummaryInput) -> Day:
        """What there is to say of the day that is over, by the user's clock."""
        with activity_failures():
            user_id, session_id = UUID(input.user_id), UUID(input.session_id)
            async with self._database.for_user(user_id) as session:
                user = await UserRepository(session).get(user_id)
                test = await SessionRepository(session).status(session_id)
            zone = zone_of(user.timezone if user else None)
            return day_of(test, datetime.now(zone).date(), zone)


def day_of(test: SessionStatus | None, today: date, zone: ZoneInfo) -> Day:
    """A test that began today has no day behind it."""
    ends_at = midnight(today + timedelta(days=1), zone).timestamp()
    if test is None or test.started_at is None or test.started_at >= midnight(today, zone):
        return Day(ends_at=ends_at, finished=None, facts=NoticeFacts())
    return Day(
        ends_at=ends_at,
        finished=(today - timedelta(days=1)).isoformat(),
        facts=NoticeFacts(
            equity=test.current_equity, pnl_pct=test.current_pnl_pct, trades=test.trades_count
        ),
    )


def zone_of(name: str | None) -> ZoneInfo:
    """The user's time zone; UTC where it is not known."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When the day begins there, in UTC; where clocks skip midnight, the first moment after it."""
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)
