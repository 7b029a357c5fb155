"""Tests that wait for the same close look at it one after another."""

from uuid import UUID, uuid4

import pytest

from activities.departures import PACE_S, Close, Departures

NOW = 1_000
CLOSE, LATER = (Close(at=at, timeframe_ms=60_000) for at in (2_000, 3_000))
OTHER_LENGTH = Close(at=CLOSE.at, timeframe_ms=3_600_000)
ADA, BOB = uuid4(), uuid4()


@pytest.fixture
def departures() -> Departures:
    return Departures()


def place(
    departures: Departures,
    close: Close,
    *,
    user: UUID = ADA,
    test: UUID | None = None,
    now: int = NOW,
) -> float:
    test = test or uuid4()
    delay = departures.delay(close, user_id=user, session_id=test, now=now, longest=60.0)
    return delay / PACE_S


def test_each_leaves_a_pace_after_the_one_before(departures: Departures):
    assert [place(departures, CLOSE) for _ in range(4)] == pytest.approx([0, 1, 2, 3])


def test_each_close_has_a_line_of_its_own(departures: Departures):
    closes = [CLOSE, CLOSE, LATER, OTHER_LENGTH, CLOSE, LATER]

    found = [place(departures, close) for close in closes]

    assert found == pytest.approx([0, 1, 0, 0, 2, 1])


def test_a_test_that_asks_again_keeps_its_turn(departures: Departures):
    test = uuid4()

    found = [place(departures, CLOSE, test=each) for each in (None, test, test, None, test)]

    assert found == pytest.approx([0, 1, 1, 2, 1])


def test_a_users_many_tests_stand_before_nobody_elses_only_one(departures: Departures):
    many = [place(departures, CLOSE) for _ in range(100)]
    only_one = place(departures, CLOSE, user=BOB)
    one_more = place(departures, CLOSE)

    assert many == pytest.approx(list(range(100)))
    assert only_one == pytest.approx(1)
    assert one_more == pytest.approx(200)


def test_a_line_that_is_too_long_goes_on_beside_its_beginning(departures: Departures):
    longest = 2.5 * PACE_S

    delays = [
        departures.delay(CLOSE, user_id=ADA, session_id=uuid4(), now=NOW, longest=longest)
        for _ in range(5)
    ]

    assert delays == pytest.approx([each * PACE_S for each in (0, 1, 2, 0.5, 1.5)])


def test_closes_that_have_passed_are_forgotten(departures: Departures):
    for _ in range(3):
        place(departures, CLOSE)
    place(departures, LATER, now=CLOSE.at)

    assert place(departures, CLOSE, now=CLOSE.at) == 0
    assert place(departures, LATER, now=CLOSE.at) == pytest.approx(1)
