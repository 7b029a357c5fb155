"""What the simulated models say of a test that is over: its figures, put into a sentence or two."""

from collections.abc import Mapping, Sequence
from typing import Any


def sum_up(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The summary that a prompt asks for; None where it asks for a decision."""
    content = str(messages[-1].get("content", ""))
    _, _, rest = content.partition("<figures>\n")
    block, closed, _ = rest.partition("\n</figures>")
    if not closed:
        return None
    figures = dict(line.split(",", 1) for line in block.split("\n") if "," in line)
    return f"[simulated] {_outcome(figures)} {_trades(figures)} {_change(figures)}"


def _outcome(figures: Mapping[str, str]) -> str:
    return (
        f"The test came to {_get(figures, 'return_pct')} %, where buying and holding came to "
        f"{_get(figures, 'buy_and_hold_return_pct')} %; at worst it was "
        f"{_get(figures, 'max_drawdown_pct')} % below its peak."
    )


def _trades(figures: Mapping[str, str]) -> str:
    if _get(figures, "trades") in {"0", "unknown"}:
        return "I never traded."
    return (
        f"I closed {_get(figures, 'trades')} trades and won {_get(figures, 'winning_trades')} of "
        f"them; fees took {_get(figures, 'fees')}."
    )


def _change(figures: Mapping[str, str]) -> str:
    is_costly = _amount(figures, "fees") > abs(_amount(figures, "pnl_before_costs"))
    return "Fewer trades would help most." if is_costly else "I would keep losses smaller."


def _get(figures: Mapping[str, str], name: str) -> str:
    value = figures.get(name, "null")
    return "unknown" if value == "null" else value


def _amount(figures: Mapping[str, str], name: str) -> float:
    try:
        return float(figures.get(name, "0"))
    except ValueError:
        return 0.0
