"""The days of a test, as its user's clock has them."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from activities.summaries import SummaryInput, day_of, midnight, zone_of
from tests.activities.processes import Machine
from tests.laboratory import Laboratory, Plan
from tests.plain_runs import environment

BERLIN = ZoneInfo("Europe/Berlin")


def running_since(at: datetime | None) -> Any:
    return SimpleNamespace(
        started_at=at, current_equity=10_100.0, current_pnl_pct=1.0, trades_count=3
    )


def test_a_day_that_is_over_is_told_under_its_own_date():
    since = datetime(2026, 3, 27, 12, tzinfo=UTC)
    day = day_of(running_since(since), date(2026, 3, 29), BERLIN)
    assert day.finished == "2026-03-28"
    assert (day.facts.equity, day.facts.pnl_pct, day.facts.trades) == (10_100.0, 1.0, 3)
    # The clocks go forward that night: the day has 23 hours.
    assert day.ends_at == datetime(2026, 3, 29, 22, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "since", [None, datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 9, tzinfo=UTC)]
)
def test_a_test_that_began_today_has_no_day_behind_it(since: datetime | None):
    assert day_of(running_since(since), date(2026, 3, 29), BERLIN).finished is None


def test_a_zone_that_does_not_exist_is_utc():
    assert zone_of("Nowhere/At_All") == zone_of(None) == ZoneInfo("UTC")
    assert midnight(date(2026, 1, 1), zone_of("Asia/Kolkata")).hour == 18


async def test_the_day_is_that_of_the_users_time_zone(laboratory: Laboratory, machine: Machine):
    session_id = await laboratory.add_session(Plan(candles=1))
    process = machine.process()
    asked = SummaryInput(session_id=str(session_id), user_id=str(laboratory.user_id))
    day = await environment().run(process.activities.summaries.look_at_day, asked)
    await process.end()
    ends = datetime.fromtimestamp(day.ends_at, tz=UTC)
    assert (ends.hour, ends.minute, ends.second) == (0, 0, 0)
    assert 0 < (ends - datetime.now(UTC)).total_seconds() <= 86_400
    assert day.finished is None
