"""Where inside a candle a position ends, and at which price."""

from dataclasses import replace

import pytest

from tests.trading.scenarios import hourly
from trading.candles import Candle
from trading.execution import (
    Exit,
    entry_fill,
    exit_fill,
    liquidation_price,
    opening_liquidation,
    protective_exit,
)
from trading.orders import ExitType, Position, Side
from trading.rules import Intrabar

LONG = Position(
    trade_number=1,
    side=Side.LONG,
    entry_price=100.0,
    entry_time=0,
    entry_candle=0,
    decided_candle=0,
    size=1.0,
    leverage=1.0,
    margin=100.0,
    entry_fee=0.0,
    entry_slippage=0.0,
    stop_price=95.0,
    target_price=105.0,
    liquidation_price=None,
)
SHORT = replace(LONG, side=Side.SHORT, stop_price=105.0, target_price=95.0)


def candle(open_: float, high: float, low: float, close: float) -> Candle:
    return hourly((open_, high, low, close))[0]


def ended(
    position: Position,
    candle: Candle,
    *,
    intrabar: Intrabar = Intrabar.PESSIMISTIC,
    is_new: bool = False,
    slippage_rate: float = 0.0,
) -> Exit | None:
    return protective_exit(
        position, candle, slippage_rate=slippage_rate, intrabar=intrabar, is_new=is_new
    )


def summary(exit_: Exit | None) -> tuple[str, float] | None:
    return None if exit_ is None else (exit_.exit_type.value, exit_.price)


def test_slippage_is_always_to_the_traders_cost():
    assert entry_fill(Side.LONG, 100, 0.01) == pytest.approx(101)
    assert entry_fill(Side.SHORT, 100, 0.01) == pytest.approx(99)
    assert exit_fill(Side.LONG, 100, 0.01) == pytest.approx(99)
    assert exit_fill(Side.SHORT, 100, 0.01) == pytest.approx(101)


@pytest.mark.parametrize(
    ("side", "leverage", "price"),
    [(Side.LONG, 2, 50.5), (Side.LONG, 5, 80.5), (Side.SHORT, 2, 149.5), (Side.SHORT, 5, 119.5)],
)
def test_the_liquidation_price_leaves_the_maintenance_margin(
    side: Side, leverage: float, price: float
):
    assert liquidation_price(side, 100, leverage) == pytest.approx(price)


def test_without_leverage_nothing_is_liquidated():
    assert liquidation_price(Side.SHORT, 100, 1) is None


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ((100, 104.9, 95.1, 100), None),
        ((100, 104, 95, 100), ("stop_loss", 95)),
        ((100, 105, 96, 100), ("take_profit", 105)),
        ((100, 105, 95, 100), ("stop_loss", 95)),
        ((95, 96, 94, 95), ("stop_loss", 95)),
        ((90, 110, 89, 100), ("stop_loss", 90)),
        ((105, 106, 104, 105), ("take_profit", 105)),
        ((110, 111, 90, 100), ("take_profit", 105)),
    ],
)
def test_a_long_ends_at_its_levels_or_at_a_gap_through_its_stop(
    prices: tuple[float, float, float, float], expected: tuple[str, float] | None
):
    assert summary(ended(LONG, candle(*prices))) == expected


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ((100, 104.9, 95.1, 100), None),
        ((100, 105, 96, 100), ("stop_loss", 105)),
        ((100, 104, 95, 100), ("take_profit", 95)),
        ((100, 105, 95, 100), ("stop_loss", 105)),
        ((110, 111, 90, 100), ("stop_loss", 110)),
        ((90, 110, 89, 100), ("take_profit", 95)),
    ],
)
def test_a_short_ends_in_the_mirror(
    prices: tuple[float, float, float, float], expected: tuple[str, float] | None
):
    assert summary(ended(SHORT, candle(*prices))) == expected


@pytest.mark.parametrize(
    ("prices", "exit_type", "price"),
    [
        ((100, 104, 94, 100), ExitType.STOP_LOSS, 85.5),
        ((90, 91, 89, 90), ExitType.STOP_LOSS, 81),
        ((100, 106, 99, 100), ExitType.TAKE_PROFIT, 105),
    ],
)
def test_only_stops_slip(
    prices: tuple[float, float, float, float], exit_type: ExitType, price: float
):
    exit_ = ended(LONG, candle(*prices), slippage_rate=0.1)
    assert exit_ is not None
    assert exit_.exit_type is exit_type
    assert exit_.price == pytest.approx(price)


def test_the_open_at_which_a_position_was_entered_is_no_gap_through_its_stop():
    tight = replace(LONG, stop_price=100.5, entry_price=101.0)
    exit_ = ended(tight, candle(100, 104, 99, 103), is_new=True)
    assert exit_ == Exit(exit_type=ExitType.STOP_LOSS, reference=100.5, price=100.5)


@pytest.mark.parametrize("position", [LONG, SHORT])
def test_optimism_takes_the_target_first_but_not_before_the_open(position: Position):
    both = candle(100, 105, 95, 100)
    exit_ = ended(position, both, intrabar=Intrabar.OPTIMISTIC)
    assert exit_ is not None
    assert (exit_.exit_type, exit_.ambiguous) == (ExitType.TAKE_PROFIT, True)
    gap = candle(90, 110, 89, 100) if position is LONG else candle(110, 111, 90, 100)
    exit_ = ended(position, gap, intrabar=Intrabar.OPTIMISTIC)
    assert exit_ is not None
    assert (exit_.exit_type, exit_.ambiguous, exit_.at_open) == (ExitType.STOP_LOSS, False, True)


@pytest.mark.parametrize(
    ("stop", "liquidation", "expected"),
    [
        (None, 96.0, ("liquidation", 96)),
        (95.0, 96.0, ("liquidation", 96)),
        (96.0, 96.0, ("stop_loss", 96)),
        (97.0, 96.0, ("stop_loss", 97)),
    ],
)
def test_the_nearer_of_stop_and_liquidation_comes_first(
    stop: float | None, liquidation: float, expected: tuple[str, float]
):
    position = replace(LONG, stop_price=stop, liquidation_price=liquidation)
    assert summary(ended(position, candle(100, 104, 90, 100))) == expected


def test_a_target_and_a_liquidation_price_make_a_candle_ambiguous_too():
    position = replace(LONG, stop_price=None, liquidation_price=96.0)
    both = candle(100, 105, 96, 100)
    pessimistic, optimistic = (
        ended(position, both),
        ended(position, both, intrabar=Intrabar.OPTIMISTIC),
    )
    assert pessimistic is not None
    assert optimistic is not None
    assert (pessimistic.exit_type, pessimistic.ambiguous) == (ExitType.LIQUIDATION, True)
    assert (optimistic.exit_type, optimistic.ambiguous) == (ExitType.TAKE_PROFIT, True)


@pytest.mark.parametrize(("open_", "is_liquidated"), [(96.1, False), (96.0, False), (95.9, True)])
def test_an_open_beyond_the_liquidation_price_liquidates_a_long(open_: float, is_liquidated: bool):
    position = replace(LONG, stop_price=97.0, liquidation_price=96.0)
    exit_ = opening_liquidation(position, candle(open_, 100, 90, 95))
    assert summary(exit_) == (("liquidation", 96) if is_liquidated else None)


@pytest.mark.parametrize(
    ("open_", "is_liquidated"), [(103.9, False), (104.0, False), (104.1, True)]
)
def test_an_open_beyond_the_liquidation_price_liquidates_a_short(open_: float, is_liquidated: bool):
    position = replace(SHORT, liquidation_price=104.0)
    exit_ = opening_liquidation(position, candle(open_, 110, 90, 95))
    assert summary(exit_) == (("liquidation", 104) if is_liquidated else None)


@pytest.mark.parametrize(
    "position",
    [
        LONG,
        SHORT,
        replace(LONG, liquidation_price=97.0),
        replace(LONG, stop_price=None, liquidation_price=96.0),
        replace(SHORT, stop_price=None, liquidation_price=104.0),
    ],
)
@pytest.mark.parametrize(
    "prices",
    [(100, 104, 96, 100), (100, 105, 99, 100), (100, 101, 95, 100), (100, 105, 95, 100)],
)
def test_a_candle_is_looked_at_when_it_reaches_a_level(
    position: Position, prices: tuple[float, float, float, float]
):
    is_ended = ended(position, candle(*prices)) is not None
    assert position.is_reached(candle(*prices)) is is_ended
