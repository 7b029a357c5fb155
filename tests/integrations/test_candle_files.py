"""A candle file is read to the last digit, or refused whole at the first line that is wrong."""

import contextlib
import gzip
import io
import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.candle_files import MAX_BYTES, read_candle_file
from local.simulators.exchange import simulated_candles
from trading.candles import CandleSeries, Timeframe
from trading.errors import InvalidCandles

HOUR = 3_600_000
START = 1_577_836_800_000
HEADER = "Date,Open,High,Low,Close,Volume"
GOOD = [
    "2020-01-01 00:00:00+00:00,100,110,90,105,1",
    "2020-01-01 01:00:00+00:00,105,115,95,110,2",
    "2020-01-01 02:00:00+00:00,110,120,100,115,3",
    "2020-01-01 03:00:00+00:00,115,125,105,120,4",
]


def read(*lines: str, timeframe: Timeframe = Timeframe.HOUR_1) -> CandleSeries:
    return read_candle_file("\n".join(lines).encode(), "market.csv", timeframe)


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def four_rows(**changes: Any) -> dict[str, Any]:
    columns = {
        "time": [START + hour * HOUR for hour in range(4)],
        "open": [100.0, 105.0, 110.0, 115.0],
        "high": [110.0, 115.0, 120.0, 125.0],
        "low": [90.0, 95.0, 100.0, 105.0],
        "close": [105.0, 110.0, 115.0, 120.0],
        "volume": [1.0, 2.0, 3.0, 4.0],
    }
    return columns | changes


EXPECTED = CandleSeries(**{("open_time" if k == "time" else k): v for k, v in four_rows().items()})


@pytest.mark.parametrize(
    ("third", "reason"),
    [
        ("2020-01-01 02:00:00+00:00,abc,120,100,115,3", "the open 'abc' is not a number"),
        ("2020-01-01 02:00:00+00:00,110,,100,115,3", "the high is missing"),
        ("2020-01-01 02:00:00+00:00,110,120,1_00,115,3", "the low '1_00' is not a number"),
        (
            "2020-01-01 02:00:00+00:00,110,120,\u0661\u0660\u0660,115,3",
            "the low '\u0661\u0660\u0660' is not a number",
        ),
        ("2020-01-01 02:00:00+00:00,110,120,100,nan,3", "the close is not a finite number"),
        ("2020-01-01 02:00:00+00:00,110,inf,100,115,3", "the high is not a finite number"),
        ("2020-01-01 02:00:00+00:00,110,1e999,100,115,3", "the high is not a finite number"),
        ("2020-01-01 02:00:00+00:00,110,120,100,115,-inf", "the volume is not a finite number"),
        ("2020-01-01 02:00:00+00:00,0,120,100,115,3", "the open is not a positive price"),
        ("2020-01-01 02:00:00+00:00,110,120,-100,115,3", "the low is not a positive price"),
        ("2020-01-01 02:00:00+00:00,110,112,100,115,3", "the high is below the close"),
        ("2020-01-01 02:00:00+00:00,121,120,100,115,3", "the high is below the open"),
        ("2020-01-01 02:00:00+00:00,110,120,111,115,3", "the low is above the open"),
        ("2020-01-01 02:00:00+00:00,118,120,116,115,3", "the low is above the close"),
        ("2020-01-01 02:00:00+00:00,95,90,100,95,3", "the high is below the open"),
        ("2020-01-01 02:00:00+00:00,110,120,100,115,-3", "the volume is negative"),
        (
            "2020-01-01 01:00:00+00:00,110,120,100,115,3",
            "the time is that of the candle before",
        ),
        (
            "2019-12-31 23:00:00+00:00,110,120,100,115,3",
            "the time is earlier than that of the candle before",
        ),
        (
            "2020-01-01 01:30:00+00:00,110,120,100,115,3",
            "the time is not a multiple of 1 hour",
        ),
        (
            "2020-01-01 02:00:00.000001+00:00,110,120,100,115,3",
            "the time has a fraction of a millisecond",
        ),
        ("yesterday,110,120,100,115,3", "the time 'yesterday' is not a time"),
        ("01/02/2020,110,120,100,115,3", "the time '01/02/2020' is not a time"),
        (",110,120,100,115,3", "the time is missing"),
        ("0001-01-01,110,120,100,115,3", "the time is not between 1970 and 2200"),
        ("9999-12-31,110,120,100,115,3", "the time is not between 1970 and 2200"),
        (f"{'9' * 20},110,120,100,115,3", "the time is not between 1970 and 2200"),
        ("2020-01-01 02:00:00+00:00,110,120,100,115", "it has 5 values where the header has 6"),
        ("2020-01-01 02:00:00+00:00,110,120,100,115,3,9", "it has 7 values where the header has 6"),
        (f"2020-01-01 02:00:00+00:00,{'1' * 200_000}", "the line is no row of a CSV file"),
    ],
)
def test_the_first_wrong_line_is_named_with_its_reason(third: str, reason: str):
    with pytest.raises(InvalidCandles) as refused:
        read(HEADER, GOOD[0], GOOD[1], third, "worse,0,0,0,0,0")
    assert str(refused.value) == f"market.csv: line 4: {reason}."
    assert refused.value.line == 4


def test_a_wrong_candle_before_an_unreadable_line_comes_first():
    with pytest.raises(InvalidCandles) as refused:
        read(HEADER, GOOD[0], "2020-01-01 01:00:00,105,1,95,110,2", "garbage")
    assert refused.value.line == 3


def test_blank_lines_and_quoted_line_breaks_do_not_shift_the_line():
    with pytest.raises(InvalidCandles) as refused:
        read("", f"{HEADER},Note", f'{GOOD[0]},"two\nlines"', "", f"{GOOD[1]},", "x,1,1,1,1,1,")
    assert refused.value.line == 7


@pytest.mark.parametrize(
    ("content", "reason", "line"),
    [
        (b"", "the file is empty.", None),
        (b"\n\n  \n", "the file is empty.", None),
        (HEADER.encode(), "There are no candles.", None),
        (b"Date,Open,High,Low,Close\n", "line 1: there is no column volume.", 1),
        (b"hello world\n", "columns time, open, high, low, close, volume.", 1),
        (GOOD[0].encode(), "columns time, open, high, low, close, volume.", 1),
        (b'{"open": [1, 2]}', "columns time, open, high, low, close, volume.", 1),
        (f"{HEADER},close\n{GOOD[0]},3".encode(), "there are two columns close.", 1),
        (random.Random(4).randbytes(4000), "not text in UTF-8, so not a CSV file.", 1),
        (gzip.compress(HEADER.encode(), mtime=0), "not text in UTF-8, so not a CSV file.", 1),
        ("\n".join([HEADER, *GOOD]).encode("utf-16"), "not a CSV file.", 1),
        (f"{HEADER}\n{GOOD[0]}\nab\0c".encode(), "not a CSV file.", 3),
        (f"{HEADER}\n{GOOD[0]}\n".encode() + b"\xff\xfe", "not a CSV file.", 3),
        (b"PAR1 and then nothing of the kind", "this Parquet file cannot be read.", None),
        (parquet(**four_rows())[:-200], "this Parquet file cannot be read.", None),
    ],
)
def test_what_is_no_candle_file_at_all_is_refused(content: bytes, reason: str, line: int | None):
    with pytest.raises(InvalidCandles) as refused:
        read_candle_file(content, "market.csv", Timeframe.HOUR_1)
    assert str(refused.value).endswith(reason)
    assert refused.value.line == line


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.date64()], ids=str
)
def test_a_time_beyond_all_calendars_names_its_row(kind: Any):
    times = pa.array([0, 1, 2**62, 3], type=pa.int64()).cast(kind)

    with pytest.raises(InvalidCandles, match="row 3: its time is out of range") as refused:
        read_candle_file(parquet(**four_rows(time=times)), "market.parquet", Timeframe.HOUR_1)

    assert refused.value.line == 3


def test_a_csv_file_called_parquet_is_refused():
    with pytest.raises(InvalidCandles, match="not a Parquet file"):
        read_candle_file(f"{HEADER}\n{GOOD[0]}".encode(), "market.parquet", Timeframe.HOUR_1)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse
    with pytest.raises(InvalidCandles, match="256 MB"):
        read_candle_file(path, path.name, Timeframe.HOUR_1)


@pytest.mark.parametrize("as_parquet", [False, True])
def test_a_file_of_too_many_candles_is_refused(as_parquet: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("integrations.candle_files.MAX_CANDLES", 3)
    content = parquet(**four_rows()) if as_parquet else "\n".join([HEADER, *GOOD]).encode()
    with pytest.raises(InvalidCandles, match="more than 3 candles"):
        read_candle_file(content, "market", Timeframe.HOUR_1)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "date,open,high,low,close,volume",
        " Time , OPEN , HIGH , LOW , CLOSE , VOLUME ",
        "Timestamp,Open Price,High Price,Low Price,Close Price,Vol",
        "open_time,open,high,low,close,volume",
        "openTime,o,h,l,c,v",
        '"Open Time","Open","High","Low","Close","Base Volume"',
        "Date(UTC),Open (USDT),High (USDT),Low (USDT),Close (USDT),Volume (BTC)",
        "\ufeffDatetime,Open,High,Low,Close,Volume",
    ],
)
def test_headers_are_known_in_any_common_spelling(header: str):
    assert read(header, *GOOD).fingerprint() == EXPECTED.fingerprint()


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


TIMES: dict[str, Callable[[int], str]] = {
    "seconds": lambda ms: str(ms // 1000),
    "whole seconds": lambda ms: f"{ms // 1000}.0",
    "milliseconds": str,
    "microseconds": lambda ms: str(ms * 1000),
    "nanoseconds": lambda ms: str(ms * 1_000_000),
    "iso": iso,
    "fraction": lambda ms: f"{iso(ms)}.000",
    "blank between": lambda ms: iso(ms).replace("T", " "),
    "zulu": lambda ms: f"{iso(ms)}Z",
    "offset": lambda ms: f"{iso(ms)}+00:00",
    "elsewhere": lambda ms: f"{iso(ms + 2 * HOUR)}+02:00",
    "utc": lambda ms: f"{iso(ms)} UTC".replace("T", " ", 1),
}


@pytest.mark.parametrize("form", TIMES)
def test_times_are_read_in_every_form_and_naive_ones_are_utc(form: str):
    times = [TIMES[form](START + hour * HOUR) for hour in range(4)]
    rows = [f"{at},{row.split(',', 1)[1]}" for at, row in zip(times, GOOD, strict=True)]
    assert read(HEADER, *rows).fingerprint() == EXPECTED.fingerprint()


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_other_delimiters_and_line_ends_are_read(delimiter: str, newline: str):
    text = newline.join([HEADER, *GOOD, ""]).replace(",", delimiter)
    series = read_candle_file(text.encode(), "market.csv", Timeframe.HOUR_1)
    assert series.fingerprint() == EXPECTED.fingerprint()


def test_other_columns_are_ignored():
    rows = [f"{row},ETH,1577840399999" for row in GOOD]
    assert read(f"{HEADER},symbol,close_time", *rows).fingerprint() == EXPECTED.fingerprint()


def test_gaps_are_accepted_and_counted():
    series = read(HEADER, GOOD[0], GOOD[3])
    assert (len(series), series.gaps(Timeframe.HOUR_1)) == (2, 2)


MILLISECONDS = four_rows()["time"]
PARQUET_TIMES = {
    "int64": pa.array(MILLISECONDS, pa.int64()),
    "int32": pa.array([ms // 1000 for ms in MILLISECONDS], pa.int32()),
    "float64": pa.array([float(ms) for ms in MILLISECONDS], pa.float64()),
    "aware": pa.array(MILLISECONDS, pa.timestamp("ms", "UTC")),
    "naive": pa.array(MILLISECONDS, pa.timestamp("ms")),
    "nanoseconds": pa.array([ms * 10**6 for ms in MILLISECONDS], pa.timestamp("ns", "Asia/Tokyo")),
    "text": pa.array([iso(ms) for ms in MILLISECONDS]),
}


@pytest.mark.parametrize("form", PARQUET_TIMES)
def test_parquet_times_are_read_in_every_type(form: str):
    content = parquet(**four_rows(time=PARQUET_TIMES[form]))
    series = read_candle_file(content, "market.parquet", Timeframe.HOUR_1)
    assert series.fingerprint() == EXPECTED.fingerprint()


def test_parquet_dates_decimals_and_texts_are_read():
    days = pa.array([START + day * 24 * HOUR for day in range(4)], pa.timestamp("ms")).cast(
        "date32"
    )
    prices = [Decimal("100.00"), Decimal("105.00"), Decimal("110.00"), Decimal("115.00")]
    content = parquet(**four_rows(time=days, open=prices, volume=["1", "2", "3", "4"]))
    series = read_candle_file(content, "market.parquet", Timeframe.DAY_1)
    assert series.open.tolist() == EXPECTED.open.tolist()
    assert series.volume.tolist() == EXPECTED.volume.tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"close": [105.0, 110.0, None, 120.0]}, "row 3: the close is missing"),
        ({"close": [105.0, 110.0, float("nan"), 120.0]}, "row 3: the close is not a finite number"),
        ({"open": [100.0, 105.0, -1.0, 115.0]}, "row 3: the open is not a positive price"),
        ({"high": [110.0, 115.0, 1.0, 125.0]}, "row 3: the high is below the open"),
        ({"volume": [True, True, True, True]}, "row 1: the volume 'True' is not a number"),
        ({"time": [START, START + HOUR, START, START]}, "row 3: the time is earlier than that"),
        ({"time": [START, START + HOUR, None, START]}, "row 3: the time is missing"),
        ({"time": [0.5, 1.5, 2.5, 3.5]}, "row 1: the time '0.5' is not a time"),
        ({"time": [float("nan")] * 4}, "row 1: the time 'nan' is not a time"),
        ({"time": [float("inf")] * 4}, "row 1: the time 'inf' is not a time"),
    ],
)
def test_the_first_wrong_row_of_a_parquet_file_is_named(changes: dict[str, Any], reason: str):
    with pytest.raises(InvalidCandles) as refused:
        read_candle_file(parquet(**four_rows(**changes)), "market.parquet", Timeframe.HOUR_1)
    assert str(refused.value).startswith(f"market.parquet: {reason}")
    assert refused.value.line == int(reason[4])


def test_a_parquet_column_of_lists_is_refused():
    lists = parquet(**four_rows(volume=[[1], [2], [3], [4]]))
    with pytest.raises(InvalidCandles, match="the column volume is of no type that candles have"):
        read_candle_file(lists, "market.parquet", Timeframe.HOUR_1)


def test_a_small_parquet_file_cannot_unpack_into_much_memory():
    text = pa.DictionaryArray.from_arrays([0] * 100_000, ["1" * 1000])
    times = [START + minute * 60_000 for minute in range(100_000)]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), text)
    content = parquet(time=times, **prices)
    with pytest.raises(InvalidCandles, match="the column open holds a text that is no number"):
        read_candle_file(content, "market.parquet", Timeframe.MINUTE_1)
    assert len(content) < 1_000_000


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch):
    file = io.BytesIO()
    pq.write_table(pa.table(four_rows(note=["n" * 100_000] * 4)), file, compression="zstd")
    monkeypatch.setattr("integrations.candle_files.MAX_BYTES", 50_000)
    with pytest.raises(InvalidCandles, match="unpacked the file has more than"):
        read_candle_file(file.getvalue(), "market.parquet", Timeframe.HOUR_1)


@pytest.mark.parametrize("row", ["a," * 1_000_000, 'a,"\n",' * 10_000])
def test_a_row_of_absurd_length_is_refused(row: str):
    with pytest.raises(InvalidCandles, match="the line is no row of a CSV file"):
        read(HEADER, row)


def test_a_parquet_file_without_a_column_is_refused():
    columns = four_rows()
    del columns["low"]
    with pytest.raises(InvalidCandles, match="there is no column low"):
        read_candle_file(parquet(**columns), "market.parquet", Timeframe.HOUR_1)


@given(st.binary(max_size=400))
def test_no_bytes_whatever_raise_anything_else(content: bytes):
    for start in (b"", f"{HEADER}\n".encode(), b"PAR1"):
        with pytest.raises(InvalidCandles):
            read_candle_file(start + content, "market.csv", Timeframe.HOUR_1)


@given(st.text(alphabet='0123456789.-+:T Ze,"\n', max_size=200))
def test_no_rows_whatever_raise_anything_else(text: str):
    with contextlib.suppress(InvalidCandles):
        read(HEADER, text).validate(Timeframe.HOUR_1)


def test_what_is_written_out_is_read_back_to_the_last_digit():
    series = simulated_candles("ETH/USDT", Timeframe.MINUTES_15, start_ms=START, count=500, seed=1)
    rows = [",".join(map(str, row)) for row in series.rows()]
    again = read(HEADER, *rows, timeframe=Timeframe.MINUTES_15)
    assert list(again.rows()) == list(series.rows())


@pytest.mark.parametrize(
    ("file", "timeframe", "count"),
    [
        ("BTCUSDT_1h.csv", "1h", 37_660),
        ("ETHUSDT_1h.csv", "1h", 37_660),
        ("SOLUSDT_1h.csv", "1h", 31_485),
        ("BTCUSDT_4h.csv", "4h", 9_423),
        ("BTCUSDT_1d.csv", "1d", 1_570),
    ],
)
def test_real_files_are_read_whole(candle_files: Path, file: str, timeframe: str, count: int):
    series = read_candle_file(candle_files / file, file, Timeframe(timeframe))
    assert (len(series), series.gaps(Timeframe(timeframe))) == (count, 0)


def test_a_real_file_is_the_same_as_parquet(candle_files: Path):
    path = candle_files / "BTCUSDT_4h.csv"
    series = read_candle_file(path, path.name, Timeframe.HOURS_4)
    content = parquet(
        Date=pa.array(series.open_time, pa.timestamp("ms", "UTC")),
        **{name: getattr(series, name) for name in ("open", "high", "low", "close", "volume")},
    )
    again = read_candle_file(content, "BTCUSDT_4h.parquet", Timeframe.HOURS_4)
    assert list(again.rows()) == list(series.rows())


def test_a_real_file_of_another_timeframe_is_refused(candle_files: Path):
    path = candle_files / "BTCUSDT_1h.csv"
    with pytest.raises(InvalidCandles, match="line 3: the time is not a multiple of 4 hours"):
        read_candle_file(path, path.name, Timeframe.HOURS_4)
