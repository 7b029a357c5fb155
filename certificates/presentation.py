"""What is shown of a certificate, all of it out of the document that was signed."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from certificates.canonical import Document
from certificates.face import CertificateFace, EquityPoint, Seal

_BASIS_POINTS = 10_000
# What a column of percentages holds, to as many decimals.
_PERCENT_LIMIT = 999_999.999999
_PERCENT_DECIMALS = 6
_SAME = 1e-6


def seal_of(document: Document) -> Seal:
    """How much the certificate may claim of the market and the model."""
    source = document.data.source
    if document.model.source != "openrouter" or source == "simulated":
        return "simulated"
    return "full" if source.startswith("exchange:") else "own_data"


def face_of(
    document: Document,
    sha256: str,
    *,
    share_url: str,
    duration_display: str,
    equity: Sequence[EquityPoint],
) -> CertificateFace:
    """The face of a document; only its curve of equity is not in it, but follows from it."""
    test, data, rules = document.test, document.data, document.rules
    metrics, result = document.metrics, document.result
    held = metrics.buy_and_hold_return
    return CertificateFace(
        verification_code=document.code,
        share_url=share_url,
        issued_at=moment(document.issued_at),
        agent_name=document.agent.name,
        agent_version=document.agent.version,
        model=document.agent.model,
        mode=document.agent.mode.value,
        test_type=test.type,
        asset=test.asset,
        timeframe=test.timeframe,
        period_start=moment(test.period_start),
        period_end=moment(test.period_end),
        duration_display=duration_display,
        starting_capital=result.starting_capital,
        ending_capital=result.ending_capital,
        pnl_pct=_percent(metrics.total_return),
        buy_and_hold_pct=None if held is None else held * 100,
        max_drawdown_pct=_percent(metrics.max_drawdown),
        win_rate=metrics.win_rate,
        sharpe_ratio=metrics.sharpe,
        profit_factor=metrics.profit_factor,
        total_trades=result.trades,
        low_sample=metrics.low_sample,
        decisions=document.model.decisions,
        total_candles=data.stepped_candles,
        missed_candles=data.missed_candles,
        ambiguous_candles=data.ambiguous_candles,
        trials=document.trials,
        blind=test.blind,
        safety_mode=rules.safety_mode,
        max_leverage=rules.max_leverage if rules.allow_leverage else 1.0,
        fee_bps=rules.fee_rate * _BASIS_POINTS,
        slippage_bps=rules.slippage_rate * _BASIS_POINTS,
        fill_timing=rules.fill_timing.value,
        intrabar=rules.intrabar.value,
        data_source=data.source,
        is_model_simulated=document.model.source != "openrouter",
        seal=seal_of(document),
        equity=equity,
        engine_version=document.engine_version,
        canonical_sha256=sha256,
    )


def repeated(document: Document) -> dict[str, Any]:
    """What a certificate's row repeats of its document, under the names of the row."""
    agent, test, metrics = document.agent, document.test, document.metrics
    win_rate = metrics.win_rate
    return {
        "verification_code": document.code,
        "agent_name": agent.name,
        "agent_version": agent.version,
        "model": agent.model,
        "mode": agent.mode.value,
        "test_type": test.type,
        "asset": test.asset,
        "timeframe": test.timeframe,
        "period_start": moment(test.period_start),
        "period_end": moment(test.period_end),
        "pnl_pct": _column(metrics.total_return),
        "win_rate": None if win_rate is None else _column(win_rate),
        "total_trades": document.result.trades,
        "max_drawdown_pct": _column(metrics.max_drawdown),
        "sharpe_ratio": metrics.sharpe,
        "seal": seal_of(document),
        "includes_reasoning": document.includes_reasoning,
        "engine_version": document.engine_version,
        "trace_sha256": document.trace.sha256,
        "issued_at": moment(document.issued_at),
    }


def differs_from(document: Document, row: Mapping[str, Any]) -> str | None:
    """The first name under which a row repeats something else than its document."""
    for name, value in repeated(document).items():
        if not _is_same(value, row[name]):
            return name
    ends_at = row["equity"][-1][1] if row["equity"] else document.result.ending_capital
    return None if _is_same(document.result.ending_capital, ends_at) else "equity"


def moment(text: str) -> datetime:
    """The instant that the document wrote."""
    return datetime.fromisoformat(text)


def _percent(fraction: float | None) -> float:
    return (fraction or 0.0) * 100


def _column(fraction: float | None) -> float:
    value = round(_percent(fraction), _PERCENT_DECIMALS)
    return min(max(value, -_PERCENT_LIMIT), _PERCENT_LIMIT)


def _is_same(value: Any, stored: Any) -> bool:
    if isinstance(value, float) and isinstance(stored, float | int):
        return math.isclose(value, stored, abs_tol=_SAME)
    return bool(value == stored)
