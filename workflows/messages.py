"""What workflows are started with, told and asked.

They import it past the sandbox: it would otherwise be made anew for each that starts or is
replayed, and what reads its JSON as well.
"""

from dataclasses import dataclass

from activities.key_slots import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParams:
    """What a run needs to know; everything else is the session's row.

    With `load_candles` the range of the test has to be fetched before it can begin. What a run
    leaves to the next one: `decision_due`, a missed decision that moves to the newest candle, and
    `turn`, the place of the decision that is due in the line of its key.
    """

    session_id: str
    user_id: str
    load_candles: bool = False
    decision_due: bool = False
    turn: Turn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """How a test ended; `result_id` is None when it failed or another run owns it."""

    session_id: str
    status: str
    result_id: str | None = None
    final_pnl_pct: float | None = None
    trades_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A wish of the user's; sent twice with one `signal_id`, it counts once."""

    signal_id: str = ""
    speed: str | None = None
    close_position: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a running test stands, for queries; `next_candle_at` is a Unix time."""

    status: str
    pause_reason: str | None
    current_candle: int
    total_candles: int
    equity: float | None
    pnl_pct: float | None
    speed: str
    last_decision: str | None
    next_candle_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedParams:
    """The asset to follow, such as `BTC/USDT`."""

    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportParams:
    """Whose export it is; what is wanted stands in its row."""

    export_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProgress:
    """How an export stands; of one under way, in steps of ten percent or so."""

    status: str
    progress_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateParams:
    """The result to certify, and whether the agent's own words are published with it."""

    result_id: str
    user_id: str
    includes_reasoning: bool = False
