"""Rule-based traders that read a prompt and decide: the "models" of the simulated OpenRouter.

They see what a language model would see, the tables of the last user message, and nothing else.
The same prompt always gives the same decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Final, Literal

Side = Literal["long", "short"]

_FAST, _SLOW = 8, 21
_BREAKOUT = 20
_REVERSION = 20
_PATIENCE = 36  # candles after which a position that went nowhere is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What a trader reads out of a prompt; columns are oldest first."""

    candle: int
    highs: Sequence[float]
    lows: Sequence[float]
    closes: Sequence[float]
    side: Side | None
    candles_held: int

    @property
    def close(self) -> float:
        return self.closes[-1]

    @property
    def average_range(self) -> float:
        """Mean true range of the last candles, as a fraction of the price; never quite zero."""
        ranges = [
            max(high, previous) - min(low, previous)
            for high, low, previous in zip(
                self.highs[1:], self.lows[1:], self.closes[:-1], strict=True
            )
        ]
        return max(fmean(ranges[-14:]) / self.close, 1e-4)


def read_chart(messages: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The chart of the latest message that has one."""
    for message in reversed(messages):
        content = message.get("content")
        if isinstance(content, str) and "<candles>" in content:
            try:
                return _chart(content)
            except (ValueError, IndexError):
                return None
    return None


def _chart(text: str) -> Chart | None:
    rows = [line.split(",") for line in _block(text, "candles")[1:]]
    market = dict(line.split(",", 1) for line in _block(text, "market"))
    account = dict(line.split(",", 1) for line in _block(text, "account"))
    if not rows:
        return None
    position = account.get("position")
    return Chart(
        candle=int(market.get("candle", 0)),
        highs=[float(row[2]) for row in rows],
        lows=[float(row[3]) for row in rows],
        closes=[float(row[4]) for row in rows],
        side="long" if position == "long" else "short" if position == "short" else None,
        candles_held=int(account.get("candles_held", 0)),
    )


def _block(text: str, tag: str) -> list[str]:
    _, _, rest = text.rpartition(f"<{tag}>\n")
    body, closed, _ = rest.partition(f"\n</{tag}>")
    return body.split("\n") if closed and body else []


Verdict = dict[str, Any]


def _keep(action: Literal["hold", "close"], confidence: int, reasoning: str) -> Verdict:
    return {"reasoning": reasoning, "action": action, "confidence": confidence, "order": None}


def _enter(
    side: Side, confidence: int, reasoning: str, *, stop_pct: float, target_pct: float | None
) -> Verdict:
    order = {
        "leverage": 1,
        "size_pct": 25,
        "stop_loss_pct": round(stop_pct, 3),
        "take_profit_pct": None if target_pct is None else round(target_pct, 3),
    }
    return {
        "reasoning": f"{reasoning} Stop {stop_pct:.2f}% from entry.",
        "action": side,
        "confidence": min(max(confidence, 5), 95),
        "order": order,
    }


def _momentum(chart: Chart) -> Verdict:
    """Buys new highs and sells new lows; leaves when the short average is crossed back."""
    average = fmean(chart.closes[-_FAST:])
    if chart.side is not None:
        return _ride(chart, average, "the short average")
    recent = chart.closes[-_BREAKOUT - 1 : -1]
    high, low, swing = max(recent), min(recent), 100 * chart.average_range
    if chart.close > high:
        side: Side = "long"
    elif chart.close < low:
        side = "short"
    else:
        return _keep("hold", 50, f"{chart.close:.6g} is between {low:.6g} and {high:.6g}: no move.")
    edge = abs(chart.close / (high if side == "long" else low) - 1) * 100
    return _enter(
        side,
        int(55 + 20 * edge / swing),
        f"{chart.close:.6g} broke out of {low:.6g} to {high:.6g} of the last {_BREAKOUT} candles.",
        stop_pct=2 * swing,
        target_pct=4 * swing,
    )


def _trend(chart: Chart) -> Verdict:
    """Follows the crossing of two averages and stays until they cross back."""
    fast, slow = fmean(chart.closes[-_FAST:]), fmean(chart.closes[-_SLOW:])
    gap, swing = 100 * (fast / slow - 1), 100 * chart.average_range
    up = fast > slow
    words = f"The {_FAST}-candle average is {gap:+.2f}% from the {_SLOW}-candle one."
    if chart.side is not None:
        turned = up != (chart.side == "long")
        return _keep("close" if turned else "hold", 60, f"{words} {'Turned.' if turned else 'On.'}")
    if abs(gap) < swing / 2:
        return _keep("hold", 45, f"{words} That is too little to call a trend.")
    side: Side = "long" if up else "short"
    confidence = int(50 + 15 * abs(gap) / swing)
    return _enter(side, confidence, words, stop_pct=2.5 * swing, target_pct=6 * swing)


def _mean_reversion(chart: Chart) -> Verdict:
    """Bets against stretched prices and leaves at the mean."""
    window = chart.closes[-_REVERSION:]
    mean, spread = fmean(window), pstdev(window)
    score = (chart.close - mean) / spread if spread else 0.0
    words = f"{chart.close:.6g} is {score:+.2f} deviations from its mean of {mean:.6g}."
    if chart.side is not None:
        returned = score >= 0 if chart.side == "long" else score <= 0
        tired = chart.candles_held >= _PATIENCE
        return _keep("close" if returned or tired else "hold", 60, words)
    if abs(score) < 2:  # noqa: PLR2004 - the usual two deviations
        return _keep("hold", 50, f"{words} Not stretched.")
    side: Side = "long" if score < 0 else "short"
    swing = 100 * chart.average_range
    confidence = int(30 + 15 * abs(score))
    return _enter(side, confidence, words, stop_pct=2.5 * swing, target_pct=3 * swing)


def _ride(chart: Chart, level: float, name: str) -> Verdict:
    crossed = chart.close < level if chart.side == "long" else chart.close > level
    words = f"{chart.close:.6g} against {name} at {level:.6g}."
    if crossed or chart.candles_held >= _PATIENCE:
        return _keep("close", 60, f"{words} The move is over.")
    return _keep("hold", 60, f"{words} The move goes on.")


def _hold(chart: Chart) -> Verdict:
    """Never trades."""
    return _keep("hold", 50, f"{chart.close:.6g}. I only watch.")


def _always_long(chart: Chart) -> Verdict:
    """Is long whenever it may be."""
    if chart.side is not None:
        return _keep("hold", 70, "Already long.")
    return _enter("long", 70, "Flat, so I buy.", stop_pct=2.0, target_pct=4.0)


def _flip(chart: Chart) -> Verdict:
    """Long, out, short, out: an order at every candle."""
    if chart.side is not None:
        return _keep("close", 50, f"Candle {chart.candle}: out again.")
    side: Side = "long" if chart.candle % 4 < 2 else "short"  # noqa: PLR2004 - half of the cycle
    return _enter(side, 50, f"Candle {chart.candle}: {side}.", stop_pct=2.0, target_pct=4.0)


def _scalp(chart: Chart) -> Verdict:
    """Is in whenever it may be, with the trend of three candles and levels that are soon met."""
    if chart.side is not None:
        return _keep("hold", 50, f"Already {chart.side}: a level decides.")
    side: Side = "long" if chart.close >= chart.closes[-3] else "short"
    swing = 40 * chart.average_range
    words = f"{chart.close:.6g} after {chart.closes[-3]:.6g}: {side}, for a moment."
    return _enter(side, 50, words, stop_pct=swing, target_pct=swing)


TRADERS: Final[Mapping[str, Callable[[Chart], Verdict]]] = {
    "momentum": _momentum,
    "mean-reversion": _mean_reversion,
    "trend": _trend,
    "hold": _hold,
    "always-long": _always_long,
    "flip": _flip,
    "scalp": _scalp,
}
_NEEDS: Final = {
    "momentum": _BREAKOUT + 1,
    "mean-reversion": _REVERSION,
    "trend": _SLOW,
    "scalp": 3,
}


def describe(name: str) -> str:
    """What the trader does, in one sentence."""
    return (TRADERS[name].__doc__ or "").strip()


def decide(name: str, messages: Sequence[Mapping[str, Any]]) -> Verdict:
    """The trader's verdict on the prompt, in the shape that the prompt asks for."""
    chart = read_chart(messages)
    if chart is None:
        return _keep("hold", 0, "[simulated] There is no chart in this prompt.")
    if len(chart.closes) < _NEEDS.get(name, 1):
        return _keep("hold", 0, f"[simulated] {len(chart.closes)} candles are too few to judge.")
    verdict = TRADERS[name](chart)
    verdict["reasoning"] = f"[simulated] {verdict['reasoning']}"
    return verdict
