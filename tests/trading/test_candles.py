"""Candles keep their units, series are columns that check themselves."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.simulators.exchange import simulated_candles
from trading.candles import Candle, CandleSeries, Timeframe, asset_id, parse_asset
from trading.errors import InvalidCandles, UnknownAsset, UnknownTimeframe

HOUR = 3_600_000


def make_series(count: int = 5, **changes: list[float]) -> CandleSeries:
    columns: dict[str, list[float]] = {
        "open_time": [index * HOUR for index in range(count)],
        "open": [100.0] * count,
        "high": [110.0] * count,
        "low": [90.0] * count,
        "close": [105.0] * count,
        "volume": [1.0] * count,
    }
    return CandleSeries(**{name: np.array(v) for name, v in (columns | changes).items()})


@pytest.mark.parametrize(
    ("text", "minutes", "label"),
    [
        ("1m", 1, "1 minute"),
        ("15m", 15, "15 minutes"),
        ("4h", 240, "4 hours"),
        ("1d", 1440, "1 day"),
    ],
)
def test_a_timeframe_knows_its_length_and_its_name(text: str, minutes: int, label: str):
    timeframe = Timeframe.parse(f" {text.upper()} ")
    assert (timeframe, timeframe.minutes, timeframe.label) == (text, minutes, label)
    assert timeframe.milliseconds == minutes * 60_000


@pytest.mark.parametrize("text", ["", "3m", "1w", "60", "1 h", "h1", "1h; drop table"])
def test_an_unknown_timeframe_is_refused_with_those_there_are(text: str):
    with pytest.raises(UnknownTimeframe, match="1m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d"):
        Timeframe.parse(text)


@pytest.mark.parametrize("text", ["btc-usdt", "BTC-USDT", "btc/usdt", " Btc/Usdt "])
def test_an_asset_is_read_in_both_forms_and_any_case(text: str):
    assert parse_asset(text) == "BTC/USDT"
    assert asset_id(text) == "btc-usdt"


@pytest.mark.parametrize(
    "text",
    ["", "BTC", "BTCUSDT", "BTC/", "/USDT", "BTC/USDT/X", "BTC USDT", "../etc", "\uff22/C", "ß/ß"],
)
def test_what_is_no_asset_is_refused(text: str):
    with pytest.raises(UnknownAsset):
        parse_asset(text)


def test_a_series_gives_back_its_candles():
    candles = [
        Candle(open_time=i * HOUR, open=1.5 + i, high=3.0 + i, low=1.0 + i, close=2.0 + i, volume=i)
        for i in range(3)
    ]
    series = CandleSeries.from_candles(candles)
    assert [series.candle(i) for i in range(3)] == candles == list(series)
    assert list(series.slice(1, 3)) == candles[1:]
    assert type(series.candle(1).open) is float
    assert type(series.candle(1).open_time) is int


def test_a_series_of_nothing_is_a_series():
    series = CandleSeries.from_candles([])
    assert (len(series), list(series), series.gaps(Timeframe.HOUR_1)) == (0, [], 0)


def test_columns_cannot_be_written_to_and_the_callers_own_can():
    mine = np.array([100.0] * 5)
    series = dataclasses.replace(make_series(), close=mine)
    with pytest.raises(ValueError, match="read-only"):
        series.close[0] = 1.0
    mine[0] = 1.0


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(InvalidCandles, match="The column low has 2 values for 5 times"):
        make_series(low=[90.0, 90.0])


def test_scaling_changes_units_only():
    series = make_series().scaled(0.5, 3.0)
    assert series.candle(0) == Candle(
        open_time=0, open=50.0, high=55.0, low=45.0, close=52.5, volume=3.0
    )


def test_a_fingerprint_is_over_the_canonical_rows():
    rows = b"".join(
        b"%d,100.00000000,110.00000000,90.00000000,105.00000000,1.00000000\n" % (index * HOUR)
        for index in range(5)
    )
    assert make_series().fingerprint() == hashlib.sha256(rows).hexdigest()


def test_a_fingerprint_sees_the_eighth_decimal_of_every_column():
    series = make_series()
    changed = {
        dataclasses.replace(series, **{name: getattr(series, name) + change}).fingerprint()
        for name, change in [
            ("open_time", 1),
            *((name, 1e-8) for name in ("open", "high", "low", "close", "volume")),
        ]
    }
    assert len(changed | {series.fingerprint()}) == 7


def test_gaps_count_the_candles_that_are_missing():
    times = [0.0, HOUR, 4 * HOUR, 5 * HOUR, 15 * HOUR]
    assert make_series(open_time=times).gaps(Timeframe.HOUR_1) == 2 + 9


FAULTS: dict[str, tuple[str, float, str]] = {
    "nan": ("open", float("nan"), "The open is not a finite number."),
    "infinite": ("volume", float("inf"), "The volume is not a finite number."),
    "zero": ("low", 0.0, "The low is not a positive price."),
    "negative": ("close", -1.0, "The close is not a positive price."),
    "volume": ("volume", -0.001, "The volume is negative."),
    "high below close": ("high", 104.0, "The high is below the close."),
    "high below open": ("open", 111.0, "The high is below the open."),
    "low above open": ("low", 101.0, "The low is above the open."),
    "low above close": ("close", 89.0, "The low is above the close."),
    "duplicate": ("open_time", 2 * HOUR, "The time is that of the candle before."),
    "unordered": ("open_time", HOUR, "The time is earlier than that of the candle before."),
    "off the grid": ("open_time", 3 * HOUR + 60_000, "The time is not a multiple of 1 hour."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_wrong_candle_is_named(fault: str):
    column, value, reason = FAULTS[fault]
    values = getattr(make_series(), column).astype(float).tolist()
    values[3] = value
    if column != "open_time":
        values[4] = float("nan")  # a later fault does not hide it
    with pytest.raises(InvalidCandles) as refused:
        make_series(**{column: values}).validate(Timeframe.HOUR_1)
    assert (str(refused.value), refused.value.line) == (reason, 3)


def test_no_candles_are_refused():
    with pytest.raises(InvalidCandles, match="no candles"):
        CandleSeries.from_candles([]).validate(Timeframe.HOUR_1)


@given(st.integers(0, 60), st.sampled_from(list(Timeframe)))
def test_a_validated_series_has_candles_on_its_grid_and_its_gaps(
    missing: int, timeframe: Timeframe
):
    series = simulated_candles("BTC/USDT", timeframe, start_ms=0, count=80, seed=1)
    kept = [c for i, c in enumerate(series) if i in (0, 79) or i > missing]
    thinned = CandleSeries.from_candles(kept)
    thinned.validate(timeframe)
    assert thinned.gaps(timeframe) == 80 - len(kept)
