"""When a live series closes next, and at which close its agent is asked; epoch milliseconds."""

from dataclasses import dataclass

from trading.decisions import Cadence
from trading.schedule import opened_at


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSeries:
    """A series that is stepped: `next_candle` comes next, `newest_open` was the last one's opening.

    `newest_open` is None where nobody has told.
    """

    timeframe_ms: int
    next_candle: int
    newest_open: int | None = None

    def next_close(self, now: int) -> int:
        """When the candle that forms will close; an exact close belongs to the next candle."""
        return opened_at(now, self.timeframe_ms) + self.timeframe_ms

    def next_decision(self, now: int, cadence: Cadence) -> int:
        """The close at which the agent is asked next; not after `now` where that is under way."""
        ahead = cadence.next_due(self.next_candle) - self.next_candle
        return self._close_of_next_candle(now) + ahead * self.timeframe_ms

    def _close_of_next_candle(self, now: int) -> int:
        """The next close, or the last one where its candle has not been stepped yet."""
        close = self.next_close(now)
        if self.newest_open is None:
            return close
        # Where more is missing, the exchange has halted or what was missed is being stepped.
        is_overdue = self.newest_open == close - 3 * self.timeframe_ms
        return close - self.timeframe_ms if is_overdue else close
