"""Tests that wait for the same close look at it one after another."""

import pytest

from activities.departures import PACE_S, Departures

NOW, CLOSE, LATER = 1_000, 2_000, 3_000


@pytest.fixture
def departures() -> Departures:
    return Departures()


def places(departures: Departures, moment: int, count: int, *, now: int = NOW) -> list[float]:
    return [departures.delay(moment, now=now, longest=60.0) / PACE_S for _ in range(count)]


def test_each_leaves_a_pace_after_the_one_before(departures: Departures):
    assert places(departures, CLOSE, 4) == pytest.approx([0, 1, 2, 3])


def test_each_moment_has_a_line_of_its_own(departures: Departures):
    assert places(departures, CLOSE, 3) == pytest.approx([0, 1, 2])
    assert places(departures, LATER, 2) == pytest.approx([0, 1])
    assert places(departures, CLOSE, 1) == pytest.approx([3])


def test_nobody_waits_longer_than_is_said(departures: Departures):
    delays = [departures.delay(CLOSE, now=NOW, longest=2.5 * PACE_S) for _ in range(5)]

    assert delays == pytest.approx([0, PACE_S, 2 * PACE_S, 2.5 * PACE_S, 2.5 * PACE_S])


def test_moments_that_have_passed_are_forgotten(departures: Departures):
    places(departures, CLOSE, 3)
    places(departures, LATER, 1, now=CLOSE)

    assert places(departures, CLOSE, 1, now=CLOSE) == [0]
    assert places(departures, LATER, 1, now=CLOSE) == pytest.approx([1])
