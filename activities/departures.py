"""Who looks at a close when: tests that wait for the same moment go one after another.

A worker serves a candle in some hundredths of a second. Of a thousand tests that woke up at once
each would wait for all others at every stage of its candle, some for so long that their workflows
are replayed for nothing; so each leaves a moment after the one before.
"""

# About as fast as two processors serve candles: who comes earlier only waits elsewhere.
PACE_S = 0.02


class Departures:
    """Places in line for moments to come, by exchange time; of this worker only."""

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}

    def delay(self, moment: int, *, now: int, longest: float) -> float:
        """Take the next place; return its seconds behind the moment, at most `longest`.

        `moment` and `now` are epoch ms.
        """
        if moment not in self._taken:
            self._taken = {at: taken for at, taken in self._taken.items() if at > now}
        place = self._taken.setdefault(moment, 0)
        self._taken[moment] = place + 1
        return min(place * PACE_S, longest)
