"""What the model is shown: a view of the market at one candle's close, as chat messages.

The system message is the same for every candle of a test (mode, limits, reply format, the user's
strategy); the user message carries the candle. Both depend on the view alone, so that the same
view always gives the same words. The blocks of the user message are comma-separated tables in
tags, short for a model and readable by a program.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agents.replies import storable
from trading.candles import Candle, Timeframe
from trading.orders import Position
from trading.risk import (
    ENGINE_MAX_LEVERAGE,
    MIN_NOTIONAL,
    MONK_ENTRY_INTERVAL_MS,
    MONK_MAX_LOSS_PER_TRADE,
    SAFETY_STOP_DISTANCE,
)
from trading.rules import FillTiming, Mode, Rules

Message = dict[str, str]

CANDLES_SHOWN = 30
INDICATOR_VALUES_SHOWN = 5
DECISIONS_SHOWN = 5
MAX_REASONING_SHOWN = 160
# Tables of numbers, which are most of a prompt, have fewer characters a token than prose.
CHARACTERS_PER_TOKEN = 3
_OUR_TAGS = re.compile(
    r"<(?=\s*/?\s*(?:strategy|market|candles|indicators|account|decisions)\b)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A decision of the agent's own; `outcome` says in a few words what became of it.

    Neither may name a price in a blind test: they are shown as they are.
    """

    candle_index: int
    action: str
    confidence: float | None = None
    reasoning: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketView:
    """Everything that a prompt may show, as known at the close of `candles[-1]`.

    `candles` (oldest first) and the indicator values are shown as they are: in a blind test they
    come from the rescaled series. `position` is in real prices, which `price_factor` brings to
    the scale shown. `indicator_history` holds the values before this candle, oldest first.
    `equity` is absolute, `drawdown` a fraction.
    """

    asset: str | None
    timeframe: Timeframe
    rules: Rules
    strategy_prompt: str
    candle_index: int
    candles: Sequence[Candle]
    indicators: Mapping[str, float | None]
    indicator_history: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    position: Position | None = None
    equity: float
    drawdown: float = 0.0
    last_decisions: Sequence[PastDecision] = ()
    blind: bool = False
    price_factor: float = 1.0

    @property
    def shows_time(self) -> bool:
        return self.rules.mode is Mode.OMNI and not self.blind


def build_messages(view: MarketView) -> list[Message]:
    """The chat messages that ask for this candle's decision."""
    return [
        {"role": "system", "content": _system_text(view)},
        {"role": "user", "content": _candle_text(view)},
    ]


def prompt_hash(messages: Sequence[Mapping[str, str]]) -> str:
    """SHA-256 in hex over the canonical JSON of the messages."""
    canonical = json.dumps([dict(message) for message in messages], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _system_text(view: MarketView) -> str:
    sections = [_TASK, _sight(view), _limits(view.rules), _REPLY, _strategy(view.strategy_prompt)]
    return "\n\n".join(sections)


_TASK = """\
You are a trading agent in a test. At the close of a candle you see the market as it stands and \
decide once: "long" or "short" opens a position, "close" ends the open one, "hold" changes \
nothing. A stop or target that you set works on its own until the position ends."""

_REPLY = """\
Reply with one JSON object and nothing else:
{"reasoning": "a few sentences", "action": "long|short|hold|close", "confidence": 0-100, \
"order": {"leverage": 1, "size_pct": 25, "stop_loss_pct": 1.5, "take_profit_pct": 3.0}}
"order" belongs to long and short only, otherwise it is null. size_pct is a share of equity; \
stop_loss_pct and take_profit_pct are distances from the fill price in percent. Instead of a \
distance you may give a price, as "stop_loss" or "take_profit"; a price wins. null means none."""


def _sight(view: MarketView) -> str:
    lines = []
    if view.blind:
        lines.append(
            "This is a blind test: the asset is not named, prices are rescaled so that the first "
            "candle of the test closed at 100, and volumes are relative. Prices in your reply are "
            "on the same scale."
        )
    if view.shows_time:
        lines.append("Times are UTC; a candle's time is when it opened.")
    else:
        lines.append("You are not told the date or the time; 0 is the candle that just closed.")
    if view.rules.mode is Mode.OMNI:
        lines.append("No news source is attached: there is no news in what you see.")
    else:
        lines.append("You see prices, indicators, your position and your last decisions, no news.")
    return " ".join(lines)


def _limits(rules: Rules) -> str:
    lines = "\n".join(f"- {line}" for line in _limit_lines(rules))
    return f"Limits, enforced whatever you reply:\n{lines}"


def _limit_lines(rules: Rules) -> Iterable[str]:
    yield "One position at a time: an entry while one is open is rejected."
    yield (
        f"Size: at most {_percent(rules.max_position_size)}% of equity, which is also what null "
        f"means; an order worth less than {MIN_NOTIONAL:g} units of the quote currency is rejected."
    )
    yield f"Leverage: {_leverage(rules)}."
    yield f"Loss at the stop: at most {_percent(_loss_limit(rules))}% of equity; size is cut to it."
    if rules.mode is Mode.MONK:
        yield (
            "An entry without a stop is rejected, and so is one less than "
            f"{MONK_ENTRY_INTERVAL_MS // 3_600_000} hours after the last."
        )
    if rules.safety_mode:
        stop = _percent(SAFETY_STOP_DISTANCE)
        yield f"The stop is at most {stop}% from entry; a wider or missing one is set to that."
    yield from _guard_lines(rules)
    yield (
        f"Each fill costs {_percent(rules.fee_rate)}% in fees; market and stop fills lose about "
        f"{_percent(rules.slippage_rate)}% to slippage. {_FILLS[rules.fill_timing]}"
    )


def _guard_lines(rules: Rules) -> Iterable[str]:
    if rules.max_daily_loss is not None:
        yield f"After a loss of {_percent(rules.max_daily_loss)}% in a day, no entry on that day."
    if rules.max_total_drawdown is not None:
        yield f"A drawdown of {_percent(rules.max_total_drawdown)}% ends the test."
    if rules.auto_stop_loss is not None:
        yield f"A loss of {_percent(rules.auto_stop_loss)}% of the capital ends the test."


_FILLS = {
    FillTiming.NEXT_OPEN: "Orders fill at the next candle's open.",
    FillTiming.CLOSE: "Orders fill at this candle's close.",
}


def _leverage(rules: Rules) -> str:
    if not rules.allow_leverage:
        return "1"
    return f"a whole number from 1 to {int(min(ENGINE_MAX_LEVERAGE, rules.max_leverage))}"


def _loss_limit(rules: Rules) -> float:
    if rules.mode is Mode.MONK:
        return min(MONK_MAX_LOSS_PER_TRADE, rules.max_loss_per_trade)
    return rules.max_loss_per_trade


def _strategy(prompt: str) -> str:
    text = _plain(prompt).strip() or "(none given: trade as you judge best)"
    return (
        "The user's strategy follows between the strategy tags. It says how to trade; it changes "
        f"neither the limits nor the reply format.\n<strategy>\n{text}\n</strategy>"
    )


def _candle_text(view: MarketView) -> str:
    blocks = [
        _block("market", _market_lines(view)),
        _block("candles", _candle_lines(view)),
        _block("indicators", _indicator_lines(view)),
        _block("account", _account_lines(view)),
        _block("decisions", _decision_lines(view)),
    ]
    return "\n".join(blocks) + "\nWhat do you do? Reply with the JSON object only."


def _block(tag: str, lines: Iterable[str]) -> str:
    return "\n".join([f"<{tag}>", *lines, f"</{tag}>"])


def _market_lines(view: MarketView) -> Iterable[str]:
    if view.asset is not None and not view.blind:
        yield f"asset,{_word(view.asset)}"
    yield f"timeframe,{view.timeframe.value}"
    yield f"candle,{view.candle_index}"
    if view.shows_time and view.candles:
        yield f"now,{_iso(view.candles[-1].open_time + view.timeframe.milliseconds)}"


def _candle_lines(view: MarketView) -> Iterable[str]:
    time = "time" if view.shows_time else "candle"
    yield f"{time},open,high,low,close,volume"
    for age, candle in zip(_ages(len(view.candles)), view.candles, strict=True):
        label = _iso(candle.open_time) if view.shows_time else str(age)
        prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        yield ",".join([label, *map(_number, prices)])


def _indicator_lines(view: MarketView) -> Iterable[str]:
    columns = 1 + max((len(values) for values in view.indicator_history.values()), default=0)
    yield ",".join(["name", *map(str, _ages(columns))])
    for name, value in view.indicators.items():
        values = [*view.indicator_history.get(name, ()), value]
        padded = [None] * (columns - len(values)) + values
        yield ",".join([_word(name), *map(_number, padded)])


def _account_lines(view: MarketView) -> Iterable[str]:
    yield f"equity_pct,{_percent(view.equity / view.rules.starting_capital - 1)}"
    yield f"drawdown_pct,{_percent(view.drawdown)}"
    if view.position is None:
        yield "position,none"
    else:
        yield from _position_lines(view, view.position)


def _position_lines(view: MarketView, position: Position) -> Iterable[str]:
    yield f"position,{position.side.value}"
    yield f"entry,{_number(position.entry_price * view.price_factor)}"
    yield f"stop,{_price(position.stop_price, view.price_factor)}"
    yield f"target,{_price(position.target_price, view.price_factor)}"
    yield f"leverage,{_number(position.leverage)}"
    yield f"margin_pct,{_percent(position.margin / view.equity if view.equity > 0 else math.nan)}"
    if view.candles:
        profit = position.unrealized_pnl(view.candles[-1].close / view.price_factor)
        yield f"profit_pct_of_margin,{_percent(profit / position.margin)}"
    yield f"candles_held,{view.candle_index - position.entry_candle}"


def _decision_lines(view: MarketView) -> Iterable[str]:
    yield "candle,action,confidence_pct,outcome,reasoning"
    for past in view.last_decisions:
        yield ",".join(
            [
                str(past.candle_index - view.candle_index),
                _word(past.action),
                "null" if past.confidence is None else _percent(past.confidence),
                _word(past.outcome) or "none",
                _line(past.reasoning)[:MAX_REASONING_SHOWN],
            ]
        )


def _ages(count: int) -> range:
    """…, -2, -1, 0: how many candles ago."""
    return range(1 - count, 1)


def _number(value: float | None) -> str:
    """Seven significant digits; what is not a finite number is null."""
    if value is None or not math.isfinite(value):
        return "null"
    return f"{value + 0.0:.7g}"  # + 0.0: no minus before a zero


def _price(value: float | None, factor: float) -> str:
    return _number(None if value is None else value * factor)


def _percent(fraction: float) -> str:
    if not math.isfinite(fraction):
        return "null"
    return f"{round(fraction * 100, 4) + 0.0:.10g}"


def _iso(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def _plain(text: str) -> str:
    """Text that cannot close or open one of our blocks."""
    return _OUR_TAGS.sub("‹", storable(text))  # noqa: RUF001 - a bracket that is not one


def _line(text: str) -> str:
    return " ".join(_plain(text).split())


def _word(text: str) -> str:
    return _line(text).replace(",", ";")
