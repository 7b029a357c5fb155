"""Who looks at a close when: tests that wait for the same one go one after another.

A worker serves a candle in some hundredths of a second. Of a thousand tests that woke up at once
each would wait for all others at every stage of its candle; so each leaves a moment after the one
before. Nothing depends on a place: another worker gives others, and a test without one is early.
"""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

# About as fast as two processors serve candles: who comes earlier only waits elsewhere.
PACE_S = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The moment (epoch ms) at which candles of some length (ms) are looked for."""

    at: int
    timeframe_ms: int


class _Line:
    """The tests that wait for a close. Users take turns, each with one of theirs."""

    def __init__(self) -> None:
        self._users: dict[UUID, int] = {}
        self._tests: defaultdict[UUID, dict[UUID, int]] = defaultdict(dict)

    def place(self, user_id: UUID, session_id: UUID) -> int:
        user = self._users.setdefault(user_id, len(self._users))
        tests = self._tests[user_id]
        turn = tests.setdefault(session_id, len(tests))
        return turn * len(self._users) + user


class Departures:
    """The places in line of those whom this worker tells when to look again."""

    def __init__(self) -> None:
        self._lines: dict[Close, _Line] = {}

    def delay(
        self, close: Close, *, user_id: UUID, session_id: UUID, now: int, longest: float
    ) -> float:
        """Return a test's seconds behind the close, less than `longest`.

        A test that asks again keeps its turn. `now` is epoch ms, as in `close`. A line that is
        longer than `longest` goes on beside its own beginning.
        """
        if close not in self._lines:
            self._lines = {each: line for each, line in self._lines.items() if each.at > now}
        line = self._lines.setdefault(close, _Line())
        return line.place(user_id, session_id) * PACE_S % longest
