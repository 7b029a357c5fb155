"""What a certificate says, in words and figures: the same on paper, in pictures and on the page."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from certificates.face import CertificateFace, Seal

NOTHING = "–"
MINUS = "\N{MINUS SIGN}"

_PRECISE_BELOW = 1e4
_GROUPED_BELOW = 1e12

SEAL_NAMES: dict[Seal, str] = {
    "full": "Full seal",
    "own_data": "Own data",
    "simulated": "Simulated",
}
_SEAL_MEANINGS: dict[Seal, str] = {
    "full": "Candles of an exchange, decided on by a real model.",
    "own_data": "Candles that were imported or uploaded: nobody vouches that a market was so.",
    "simulated": "Not a real test: the market is simulated.",
}
_SIMULATED_MODEL = "Not a real test: a simulation decided in place of a language model."
_ALL_SIMULATED = "Not a real test: market and language model are both simulated."

NO_ADVICE = (
    "A certificate tells what was, under the rules named here. It does not promise that it will "
    "be so again, and it is no advice to trade."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something to show under a label; `note` is what a reader must know beside it."""

    label: str
    value: str
    note: str = ""


def title_of(face: CertificateFace) -> str:
    return f"Certificate of a {kind_of(face)}"


def kind_of(face: CertificateFace) -> str:
    return "backtest" if face.test_type == "backtest" else "forward test"


def byline_of(face: CertificateFace) -> str:
    """Which version of the agent traded, how, and on which model, whose name may be cut short."""
    model = f"simulated {face.model}" if face.is_model_simulated else face.model
    return f"Version {face.agent_version} · {face.mode} mode · {model}"


def market_of(face: CertificateFace) -> str:
    return f"{face.asset} · {face.timeframe} candles · {period_of(face)}"


def period_of(face: CertificateFace) -> str:
    return f"{day(face.period_start)} – {day(face.period_end)}"


def seal(face: CertificateFace) -> Fact:
    """What the test ran on; the note says in a sentence what that means for its figures."""
    note = _SEAL_MEANINGS[face.seal]
    if face.seal == "simulated" and face.is_model_simulated:
        note = _ALL_SIMULATED if face.data_source == "simulated" else _SIMULATED_MODEL
    return Fact(label="Seal", value=SEAL_NAMES[face.seal], note=note)


def headline(face: CertificateFace) -> tuple[Fact, Fact]:
    """The return, and what holding the asset would have returned."""
    doubt = "" if face.seal == "full" else f" ({SEAL_NAMES[face.seal].lower()})"
    return (
        Fact(label=f"Return{doubt}", value=signed_percent(face.pnl_pct)),
        Fact(label="Buy and hold", value=signed_percent(face.buy_and_hold_pct)),
    )


def figures(face: CertificateFace) -> tuple[Fact, ...]:
    """The other figures, those first that a picture has room for."""
    return (
        Fact(label="Max drawdown", value=percent(face.max_drawdown_pct)),
        Fact(label="Sharpe ratio", value=ratio(face.sharpe_ratio), note=_sharpe_note(face)),
        Fact(label="Win rate", value=percent(_times_100(face.win_rate), decimals=1)),
        Fact(label="Trades", value=f"{face.total_trades:,}"),
        Fact(
            label="Profit factor",
            value=ratio(face.profit_factor),
            note=_profit_factor_note(face),
        ),
        Fact(label="Ending capital", value=amount(face.ending_capital), note=quote_of(face)),
    )


def tested(face: CertificateFace) -> tuple[Fact, ...]:
    """What was tested, and how much of it."""
    return (
        Fact(label="Test", value=_test(face)),
        Fact(label="Asset", value=f"{face.asset}, {face.timeframe} candles"),
        Fact(label="From (UTC)", value=minute(face.period_start)),
        Fact(label="To (UTC)", value=minute(face.period_end)),
        Fact(label="Duration", value=face.duration_display),
        Fact(label="Candles", value=f"{face.total_candles:,}"),
        Fact(label="Decisions", value=f"{face.decisions:,}"),
        Fact(label="Missed candles", value=f"{face.missed_candles:,}"),
        Fact(label="Ambiguous candles", value=f"{face.ambiguous_candles:,}"),
        Fact(label="Data source", value=face.data_source),
    )


def rules(face: CertificateFace) -> tuple[Fact, ...]:
    """Under which rules orders became trades."""
    return (
        Fact(label="Starting capital", value=start_of(face)),
        Fact(label="Fees", value=f"{_plain(face.fee_bps)} bps of each fill"),
        Fact(label="Slippage", value=f"{_plain(face.slippage_bps)} bps of each market fill"),
        Fact(label="Orders fill", value=_fill(face)),
        Fact(label="Stop and target in one candle", value=_intrabar(face)),
        Fact(label="Leverage", value=_leverage(face)),
        Fact(label="Mode", value=_mode(face)),
        Fact(label="Safety mode", value="on: a stop within 2%" if face.safety_mode else "off"),
        Fact(label="Blind", value=_blindness(face)),
        Fact(label="Decided by", value=_decider(face)),
    )


def trials(face: CertificateFace) -> Fact:
    """How often it was tried; the note says why that matters."""
    if face.trials <= 1:
        note = (
            "The only test of this agent on this market and time. Tests of other agents are not "
            "counted."
        )
    else:
        note = (
            f"One of {face.trials:,} tests of this agent on this market and time, those that were "
            "broken off among them. Of many tries the best one looks "
            "good by chance alone: the more tries, the less it means."
        )
    return Fact(label="Trials", value=f"{face.trials:,}", note=note)


def start_of(face: CertificateFace) -> str:
    return f"{amount(face.starting_capital)} {quote_of(face)}"


def curve_summary(face: CertificateFace) -> str:
    """The equity curve for those who cannot see it."""
    return (
        f"Equity from {start_of(face)} to {amount(face.ending_capital)} "
        f"{quote_of(face)}, {period_of(face)}"
    )


def signed_percent(value: float | None) -> str:
    """`+12.34%`; no sign where it rounds to zero, a dash where it is undefined."""
    text = percent(value)
    return f"+{text}" if text[0].isdigit() and text.strip("0.%") else text


def percent(value: float | None, decimals: int = 2) -> str:
    return NOTHING if _is_missing(value) else f"{_number(value or 0.0, decimals)}%"


def ratio(value: float | None) -> str:
    return NOTHING if _is_missing(value) else _number(value or 0.0, 2)


def amount(value: float) -> str:
    return NOTHING if _is_missing(value) else _number(value, 2)


def quote_of(face: CertificateFace) -> str:
    """What amounts are counted in: USDT of BTC/USDT."""
    return face.asset.rpartition("/")[2].partition(":")[0]


def day(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y}"


def minute(moment: datetime) -> str:
    return f"{day(moment)}, {moment.astimezone(UTC):%H:%M}"


def _is_missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _number(value: float, decimals: int) -> str:
    """Fewer digits where they stop to matter; a minus as long as a plus, and none before zero."""
    if abs(value) >= _GROUPED_BELOW:
        text = f"{value:.2e}".replace("e+", " × 10^")
    else:
        text = f"{value:,.{decimals if abs(value) < _PRECISE_BELOW else 0}f}"
    is_zero = not text.strip("-0.")
    return text.lstrip("-") if is_zero else text.replace("-", MINUS)


def _plain(value: float) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def _times_100(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100


def _sharpe_note(face: CertificateFace) -> str:
    """Fewer than 30 daily returns make the ratio a guess."""
    return "low sample" if face.low_sample and face.sharpe_ratio is not None else ""


def _profit_factor_note(face: CertificateFace) -> str:
    if face.profit_factor is not None:
        return ""
    return "no losing trade" if face.total_trades else "no trade"


def _test(face: CertificateFace) -> str:
    if face.test_type == "backtest":
        return "Backtest, on past candles"
    return "Forward test, on candles as they closed"


def _fill(face: CertificateFace) -> str:
    if face.fill_timing == "next_open":
        return "at the next candle’s open"
    return "at the close decided on"


def _intrabar(face: CertificateFace) -> str:
    return "stop first" if face.intrabar == "pessimistic" else "target first"


def _leverage(face: CertificateFace) -> str:
    return f"up to {_plain(face.max_leverage)}×" if face.max_leverage > 1 else "none"


def _mode(face: CertificateFace) -> str:
    if face.mode == "monk":
        return "monk: prices alone, 1% risk, 4 h between entries"
    return "omni: prices, dates and times"


def _blindness(face: CertificateFace) -> str:
    return "yes: asset, dates and price level hidden" if face.blind else "no"


def _decider(face: CertificateFace) -> str:
    return "a simulation of a model" if face.is_model_simulated else "the model named above"
