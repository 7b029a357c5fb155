"""When a live candle closes, and when it is worth looking for it; times in epoch milliseconds."""

from dataclasses import dataclass

# An exchange publishes a candle a moment after its close.
GRACE_MS = 2_000
# A candle that is late is asked for again after this; rarer the longer it is overdue.
_FIRST_RETRY_MS, _LAST_RETRY_MS = 5_000, 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What an exchange's clock says of a series: the next close, and when to look again."""

    next_close: int
    look_at: int


def opened_at(now: int, timeframe_ms: int) -> int:
    """The opening of the candle that is forming; an exact close belongs to the next candle."""
    return now - now % timeframe_ms


def outlook(now: int, timeframe_ms: int, *, newest_open: int | None) -> Outlook:
    """Where a series stands whose newest known closed candle opened at `newest_open`.

    With everything there, look again a grace after the next close; with a candle overdue, soon.
    """
    forming = opened_at(now, timeframe_ms)
    next_close = forming + timeframe_ms
    overdue = newest_open is None or newest_open < forming - timeframe_ms
    if not overdue:
        return Outlook(next_close=next_close, look_at=next_close + GRACE_MS)
    return Outlook(next_close=next_close, look_at=now + patience(now - forming))


def patience(overdue_ms: int) -> int:
    """How long to wait before what is overdue is looked for again; longer the longer it is."""
    return min(_LAST_RETRY_MS, max(_FIRST_RETRY_MS, overdue_ms // 4))
