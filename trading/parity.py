"""Parity: whether what a test recorded folds to the trades and the equity that it had."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from trading.candles import CandleSeries
from trading.decisions import Decision
from trading.orders import ExitType, Position, Side, Trade
from trading.rules import Rules
from trading.simulation import Replay, Sighting, replay

Value = float | int | str | None
Holding = Trade | Position

_COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
# The fields of a trade under the names that its row has, and what a position calls them.
_TRADE_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "type": "side",
        "entry_price": "entry_price",
        "entry_time": "entry_time",
        "entry_candle": "entry_candle",
        "decided_candle": "decided_candle",
        "exit_price": "exit_price",
        "exit_time": "exit_time",
        "exit_candle": "exit_candle",
        "exit_type": "exit_type",
        "exit_decided_candle": "exit_decided_candle",
        "size": "size",
        "leverage": "leverage",
        "margin": "margin",
        "fees": "fees",
        "slippage_cost": "slippage_cost",
        "gross_pnl": "gross_pnl",
        "pnl_amount": "pnl_amount",
        "stop_loss": "stop_price",
        "take_profit": "target_price",
        "ambiguous": "ambiguous",
    }
)
_POSITION_FIELDS: Mapping[str, str] = MappingProxyType(
    {**_TRADE_FIELDS, "fees": "entry_fee", "slippage_cost": "entry_slippage"}
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What a test that has ended left behind: what its fold was given, and what came of it.

    `candles` are those that were stepped, out of a `window` whose `fingerprint` was kept if that
    was complete at the start. `left_open` is the position that nobody closed. `open_times` and
    `equity` have a point for every candle stepped, the last one as it was before the test ended at
    `ending_equity`. `seen` are candles as they were when the test met them, and `seen_at` their
    numbers. `live_prices` are the market's when orders filled, by the candle at which those were
    decided.
    """

    candles: CandleSeries
    window: CandleSeries
    fingerprint: str | None
    decisions: Mapping[int, Decision]
    sightings: Mapping[int, Sighting]
    rules: Rules
    ending: ExitType | None
    trades: Sequence[Trade]
    left_open: Sequence[Position]
    open_times: NDArray[np.int64]
    equity: NDArray[np.float64]
    ending_equity: float
    seen_at: NDArray[np.int64]
    seen: CandleSeries
    live_prices: Mapping[int, float]

    def refold(self) -> Replay:
        """The backtest of the same candles and decisions. Pure, and as slow as it is long."""
        return replay(
            self.candles,
            self.decisions,
            self.rules,
            ending=self.ending,
            sightings=self.sightings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that is not what it was; a trade that one side lacks is the field `trade`.

    It belongs to a trade, to a candle, or to the whole test.
    """

    field: str
    recorded: Value
    refolded: Value
    trade_number: int | None = None
    candle: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingDrift:
    """How much dearer than the open that it filled at an entry was at the moment of its decision.

    As fractions of that open, negative where waiting would have paid; None without entries that
    were filled while their candle formed.
    """

    entries: int
    mean: float | None
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A recording beside its second fold.

    Of the points of equity only the first that differs is among the differences, with `candle`;
    `max_equity_difference` is over all of them. `sightings` counts exits within a forming candle.
    """

    candles: int
    decisions: int
    sightings: int
    trades_recorded: int
    trades_refolded: int
    differences: tuple[Difference, ...]
    recorded_equity: float
    refolded_equity: float
    max_equity_difference: float
    drift: TimingDrift

    @property
    def is_equal(self) -> bool:
        return not self.differences


def check_parity(recording: Recording) -> Parity:
    """Fold a recording again and compare, every float to its last bit."""
    again = recording.refold()
    position = again.state.position
    gaps = _gaps(_equity_curve(recording), again.equity)
    differences = [
        *_candle_differences(recording),
        *_trade_differences(
            [*recording.trades, *recording.left_open],
            [*again.trades, *([] if position is None else [position])],
        ),
        *_equity_differences(recording, again),
    ]
    return Parity(
        candles=len(recording.candles),
        decisions=len(recording.decisions),
        sightings=sum(each.minute is not None for each in recording.sightings.values()),
        trades_recorded=len(recording.trades),
        trades_refolded=len(again.trades),
        differences=tuple(differences),
        recorded_equity=recording.ending_equity,
        refolded_equity=again.state.equity,
        max_equity_difference=float(gaps.max(initial=0.0)),
        drift=_drift(recording),
    )


def _candle_differences(recording: Recording) -> Iterator[Difference]:
    """What shows that the candles are not those that were stepped."""
    yield from _changed_candles(recording)
    if recording.fingerprint is not None:
        now = recording.window.fingerprint()
        if now != recording.fingerprint:
            yield Difference(field="data_fingerprint", recorded=recording.fingerprint, refolded=now)


def _changed_candles(recording: Recording) -> Iterator[Difference]:
    """Each value that has changed; behind a candle that is gone or new, no more."""
    then, now = recording.open_times, recording.candles.open_time
    both = min(then.size, now.size)
    moved = np.flatnonzero(then[:both] != now[:both])
    end = int(moved[0]) if moved.size else both
    if end < max(then.size, now.size):
        yield Difference(
            field="open_time", recorded=_at(then, end), refolded=_at(now, end), candle=end
        )
    kept = recording.seen_at < end
    numbers = recording.seen_at[kept]
    for name in _COLUMNS:
        seen, stored = getattr(recording.seen, name)[kept], getattr(recording.candles, name)
        for at in np.flatnonzero(seen != stored[numbers]).tolist():
            number = int(numbers[at])
            yield Difference(
                field=name, recorded=_at(seen, at), refolded=_at(stored, number), candle=number
            )


def _at(column: NDArray[np.int64] | NDArray[np.float64], index: int) -> float | int | None:
    value: float | int | None = column[index].item() if index < column.size else None
    return value


def _trade_differences(
    recorded: Sequence[Holding], refolded: Sequence[Holding]
) -> Iterator[Difference]:
    before = {each.trade_number: each for each in recorded}
    after = {each.trade_number: each for each in refolded}
    for number in sorted(before | after):
        was, now = before.get(number), after.get(number)
        if was is None or now is None:
            yield Difference(
                trade_number=number, field="trade", recorded=_named(was), refolded=_named(now)
            )
            continue
        old, new = _values(was), _values(now)
        for name in _TRADE_FIELDS:
            if old[name] != new[name]:
                yield Difference(
                    trade_number=number, field=name, recorded=old[name], refolded=new[name]
                )


def _named(holding: Holding | None) -> str | None:
    if holding is None:
        return None
    return f"{holding.side.value} from candle {holding.entry_candle}"


def _values(holding: Holding) -> dict[str, Value]:
    """A position is a trade whose exit is not there yet."""
    if isinstance(holding, Trade):
        return {name: getattr(holding, own) for name, own in _TRADE_FIELDS.items()}
    values = {name: getattr(holding, own, None) for name, own in _POSITION_FIELDS.items()}
    return values | {"ambiguous": False}


def _equity_curve(recording: Recording) -> NDArray[np.float64]:
    """The recorded points as a fold has them: the last one after the test's end."""
    curve = recording.equity.copy()
    if curve.size:
        curve[-1] = recording.ending_equity
    return curve


def _equity_differences(recording: Recording, again: Replay) -> Iterator[Difference]:
    before, after = _equity_curve(recording), again.equity
    apart = np.flatnonzero(_gaps(before, after))
    first = int(apart[0]) if apart.size else min(before.size, after.size)
    if first < max(before.size, after.size):
        recorded, refolded = _at(before, first), _at(after, first)
        yield Difference(field="equity", recorded=recorded, refolded=refolded, candle=first)
    recorded, refolded = recording.ending_equity, again.state.equity
    if recorded != refolded:
        yield Difference(field="ending_equity", recorded=recorded, refolded=refolded)


def _gaps(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far apart the two are wherever both have a point."""
    both = min(before.size, after.size)
    return np.abs(before[:both] - after[:both])


def _drift(recording: Recording) -> TimingDrift:
    found = list(_costs_of_waiting(recording))
    if not found:
        return TimingDrift(entries=0, mean=None, worst=None)
    return TimingDrift(entries=len(found), mean=sum(found) / len(found), worst=max(found))


def _costs_of_waiting(recording: Recording) -> Iterator[float]:
    entered: list[Holding] = [*recording.trades, *recording.left_open]
    for each in entered:
        live = recording.live_prices.get(each.decided_candle)
        opening = _opening(recording, each.entry_candle)
        if live is not None and opening is not None:
            dearer = live / opening - 1
            yield dearer if each.side is Side.LONG else -dearer


def _opening(recording: Recording, candle: int) -> float | None:
    if candle < len(recording.candles):
        return float(recording.candles.open[candle])
    sighting = recording.sightings.get(candle)
    return None if sighting is None else sighting.opening
