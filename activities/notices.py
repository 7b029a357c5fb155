"""What a user is told of a test, in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from db.repositories.inbox import SessionBrief

Category = Literal[
    "test_completed", "trade_executed", "stop_loss_hit", "auto_stopped", "paused", "daily_summary"
]
NoticeType = Literal["info", "success", "warning", "error"]

_LIMITS = {
    "max_drawdown_exceeded": "the drawdown limit was reached",
    "max_loss_exceeded": "the loss limit was reached",
}
_TROUBLE = {
    "model_unavailable": "the model cannot be reached. Resume the test when it can.",
    "insufficient_credits": "the account behind the API key has no credits left. Add some, then "
    "resume the test.",
    "no_api_key": "the agent has no API key that can be used. Add one to it, then resume the test.",
    "budget_reached": "the test has reached its own cost limit.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeFacts:
    """What a notice says beyond its session; each category takes what it speaks of.

    `pnl_pct` is in percent: of a trade on the margin used, otherwise on the starting capital.
    `equity` and `price` are in the quote currency. `reason` is a pause reason or an end reason.
    """

    result_id: str | None = None
    action: Literal["opened", "closed"] | None = None
    direction: Literal["long", "short"] | None = None
    price: float | None = None
    pnl_pct: float | None = None
    equity: float | None = None
    trades: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notification in words."""

    type: NoticeType
    title: str
    message: str
    action_url: str


def notice_of(category: Category, facts: NoticeFacts, session: SessionBrief) -> Notice:
    """Put what happened to a session into words; what is not known is left out."""
    type_, headline, sentence = _WORDS[category](facts, session)
    return Notice(
        type=type_,
        title=f"{session.agent_name}: {headline}",
        message=f"{session.asset} {session.timeframe}: {sentence}",
        action_url=_address(facts, session),
    )


_Words = tuple[NoticeType, str, str]


def _completed(facts: NoticeFacts, session: SessionBrief) -> _Words:
    kind = "backtest" if session.type == "backtest" else "forward test"
    gained = bool(facts.trades) and (facts.pnl_pct or 0) >= 0
    outcome = _joined(_percent(facts.pnl_pct), _trades(facts.trades), " in ")
    return "success" if gained else "info", f"{kind} finished", _ended(outcome or "finished")


def _trade(facts: NoticeFacts, _session: SessionBrief) -> _Words:
    action = facts.action or "opened"
    done = _joined(_position(facts, action), _price(facts.price), " at ")
    sentence = _ended(_joined(done, _percent(facts.pnl_pct), ": "))
    return _tone(facts.pnl_pct), f"{_position(facts, action)}", sentence


def _stop_loss(facts: NoticeFacts, _session: SessionBrief) -> _Words:
    done = _joined(_position(facts, "closed"), _price(facts.price), " at ")
    return "warning", "stop-loss hit", _ended(_joined(done, _percent(facts.pnl_pct), ": "))


def _auto_stopped(facts: NoticeFacts, _session: SessionBrief) -> _Words:
    why = _LIMITS.get(facts.reason or "", "a limit was reached")
    return "warning", "stopped by a limit", _ended(_joined(why, _standing(facts), ", "))


def _paused(facts: NoticeFacts, _session: SessionBrief) -> _Words:
    trouble = _TROUBLE.get(facts.reason or "")
    if trouble is None:
        return "info", "paused", "paused."
    return "warning", "paused", f"paused, because {trouble}"


def _summary(facts: NoticeFacts, _session: SessionBrief) -> _Words:
    sentence = _joined(_standing(facts), _trades(facts.trades), ", ")
    return "info", "daily summary", _ended(sentence or "running")


_WORDS: Mapping[Category, Callable[[NoticeFacts, SessionBrief], _Words]] = MappingProxyType(
    {
        "test_completed": _completed,
        "trade_executed": _trade,
        "stop_loss_hit": _stop_loss,
        "auto_stopped": _auto_stopped,
        "paused": _paused,
        "daily_summary": _summary,
    }
)


def _address(facts: NoticeFacts, session: SessionBrief) -> str:
    if facts.result_id is not None:
        return f"/dashboard/results/{facts.result_id}"
    return f"/dashboard/arena/{session.type}/{session.id}"


def _tone(pnl_pct: float | None) -> NoticeType:
    return "success" if pnl_pct is not None and pnl_pct > 0 else "info"


def _position(facts: NoticeFacts, action: str) -> str:
    return f"{facts.direction or 'position'} {action}"


def _standing(facts: NoticeFacts) -> str:
    equity = "" if facts.equity is None else f"equity {facts.equity:,.2f}"
    pnl = _percent(facts.pnl_pct)
    return f"{equity} ({pnl})" if equity and pnl else equity or pnl


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f} %"


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:,.8g}"


def _trades(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count} trade" if count == 1 else f"{count} trades"


def _joined(first: str, second: str, between: str) -> str:
    return f"{first}{between}{second}" if first and second else first or second


def _ended(sentence: str) -> str:
    return f"{sentence}."
