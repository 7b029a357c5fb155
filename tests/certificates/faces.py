"""Certificates to draw: an ordinary one, and those that are hard to draw."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from certificates.face import CertificateFace, EquityPoint

START = datetime(2025, 10, 1, tzinfo=UTC)
HOUR_MS = 3_600_000


def equity_of(values: Sequence[float]) -> tuple[EquityPoint, ...]:
    first = round(START.timestamp() * 1000)
    return tuple(
        EquityPoint(time=first + number * HOUR_MS, value=value)
        for number, value in enumerate(values, 1)
    )


def wavy(points: int, *, end: float) -> tuple[EquityPoint, ...]:
    """A course from 10,000 to `end`, up and down on its way."""
    return equity_of(
        [
            10_000 + (end - 10_000) * number / (points - 1) + 300 * math.sin(number / 23)
            for number in range(points - 1)
        ]
        + [end]
    )


FACE = CertificateFace(
    verification_code="ALX-2025-1127-A3F8K",
    share_url="https://alphalab.example/verify/ALX-2025-1127-A3F8K",
    issued_at=datetime(2025, 11, 27, 14, 3, tzinfo=UTC),
    agent_name="Momentum Prime",
    agent_version=3,
    model="anthropic/claude-sonnet-4.5",
    mode="omni",
    test_type="backtest",
    asset="BTC/USDT",
    timeframe="1h",
    period_start=START,
    period_end=datetime(2025, 11, 1, tzinfo=UTC),
    duration_display="31d 0h",
    starting_capital=10_000.0,
    ending_capital=11_234.56,
    pnl_pct=12.3456,
    buy_and_hold_pct=-3.871,
    max_drawdown_pct=6.42,
    win_rate=0.583,
    sharpe_ratio=2.14,
    profit_factor=1.92,
    total_trades=37,
    low_sample=True,
    decisions=745,
    total_candles=744,
    missed_candles=5,
    ambiguous_candles=2,
    trials=3,
    blind=True,
    safety_mode=True,
    max_leverage=3.0,
    fee_bps=10.0,
    slippage_bps=2.5,
    fill_timing="next_open",
    intrabar="pessimistic",
    data_source="Binance, BTC/USDT spot",
    is_model_simulated=False,
    seal="full",
    equity=wavy(600, end=11_234.56),
    engine_version="1.4.0",
    canonical_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)

RUINED = replace(FACE, pnl_pct=-99.99, ending_capital=1.0, equity=equity_of([5_000, 1]))
ENORMOUS = replace(
    FACE,
    pnl_pct=1e9,
    buy_and_hold_pct=1e9,
    max_drawdown_pct=99.999,
    sharpe_ratio=1e6,
    profit_factor=1e9,
    total_trades=12_345_678,
    trials=1_234_567,
    ending_capital=1e11,
    equity=wavy(1_000, end=1e11),
)
EMPTY = replace(
    FACE,
    buy_and_hold_pct=None,
    win_rate=None,
    sharpe_ratio=None,
    profit_factor=None,
    total_trades=0,
    pnl_pct=0.0,
    ending_capital=10_000.0,
    equity=equity_of([10_000.0]),
)
LEVEL = replace(FACE, equity=equity_of([10_000.0] * 50))
UNSEEN = replace(FACE, equity=())
ENDLESS = replace(
    FACE,
    agent_name="中文交易员 🚀 α-prime, " + "a name that goes on and on " * 6,
    model="provider-of-models/" + "a-model-with-a-very-long-name-" * 5,
    asset="VERYLONGTOKENNAME/USDT",
    data_source="an upload called " + "candles-" * 40,
    seal="simulated",
    is_model_simulated=True,
    engine_version="1.4.0+" + "abcdef" * 5,
    mode="monk",
)
HARD = {
    "ruined": RUINED,
    "enormous": ENORMOUS,
    "empty": EMPTY,
    "level": LEVEL,
    "unseen": UNSEEN,
    "endless": ENDLESS,
}
