"""What a certificate shows of a test, whoever draws it: the PDF, the picture, the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

# What a test ran on, and so how much its certificate may claim.
Seal = Literal["full", "own_data", "simulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquityPoint:
    """Equity at the close of a candle; the time is in epoch milliseconds."""

    time: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFace:
    """A certificate's facts. Percent where a name ends in `_pct`; amounts in quote units.

    `win_rate` is a fraction, `max_drawdown_pct` a positive magnitude. What is undefined is None.
    `seal` is `full` for candles of an exchange decided on by a real model, `own_data` for candles
    that somebody imported or uploaded, `simulated` where market or model were. `trials` counts the
    tests of this agent on this asset and timeframe that overlap this one in time, whatever became
    of them, itself included.

    Raises:
        ValueError: the win rate is no fraction.
    """

    verification_code: str
    share_url: str
    issued_at: datetime

    agent_name: str
    agent_version: int
    model: str
    mode: Literal["monk", "omni"]
    test_type: Literal["backtest", "forward"]
    asset: str
    timeframe: str
    period_start: datetime
    period_end: datetime
    duration_display: str

    starting_capital: float
    ending_capital: float
    pnl_pct: float
    buy_and_hold_pct: float | None
    max_drawdown_pct: float
    win_rate: float | None
    sharpe_ratio: float | None
    profit_factor: float | None
    total_trades: int
    low_sample: bool

    decisions: int
    total_candles: int
    missed_candles: int
    ambiguous_candles: int
    trials: int
    blind: bool
    safety_mode: bool
    max_leverage: float
    fee_bps: float
    slippage_bps: float
    fill_timing: Literal["next_open", "close"]
    intrabar: Literal["pessimistic", "optimistic"]

    data_source: str
    is_model_simulated: bool
    seal: Seal

    equity: Sequence[EquityPoint]
    engine_version: str
    canonical_sha256: str

    def __post_init__(self) -> None:
        if self.win_rate is not None and not 0 <= self.win_rate <= 1:
            raise ValueError(f"a win rate is a fraction, not {self.win_rate}")
