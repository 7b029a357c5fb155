"""Candle files that people have: CSV and Parquet, read whole or refused at the first wrong line."""

import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trading.candles import CandleSeries, Timeframe
from trading.errors import InvalidCandles

MAX_BYTES = 256 * 1024 * 1024
MAX_CANDLES = 2_000_000
MAX_ROW_LENGTH = 10_000
MAX_CELL_BYTES = 100

_PARQUET_MAGIC = b"PAR1"
_DELIMITERS = ",;\t|"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 7_258_118_400_000  # the year 2200
_MICROSECOND = timedelta(microseconds=1)
_NUMBER = re.compile(
    r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE
)
_WHOLE_NUMBER = re.compile(r"(\d{1,20})(?:\.0*)?", re.ASCII)

# What the columns are called once case, blanks and brackets are gone; the surest name first.
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "time": (
        *("open_time", "opentime", "open_timestamp", "timestamp", "time", "datetime", "date_time"),
        *("date", "unix", "unix_timestamp", "unix_time", "epoch", "ts", "t", "start", "begins_at"),
        *("time_utc", "date_utc", "datetime_utc", "timestamp_utc", "index", "__index_level_0__"),
    ),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "h"),
    "low": ("low", "low_price", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "base_volume", "volume_base", "vol", "v"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The rows of a file in our columns; a row comes with its line or number in the file."""

    place: str  # what its rows are counted in: line, row
    rows: Iterable[tuple[int, Sequence[Any]]]


def read_candle_file(source: Path | bytes, name: str, timeframe: Timeframe) -> CandleSeries:
    """The candles of a CSV or Parquet file, told apart by their content; naive times are UTC.

    Raises `InvalidCandles` with the first line that is wrong; the header of a CSV file is line 1,
    and the rows of a Parquet file count from 1.
    """
    try:
        return _read(_content(source), name, timeframe)
    except InvalidCandles as error:
        raise InvalidCandles(f"{name}: {error}", line=error.line) from None


def _read(content: bytes, name: str, timeframe: Timeframe) -> CandleSeries:
    is_parquet = content.startswith(_PARQUET_MAGIC)
    if not is_parquet and name.lower().endswith((".parquet", ".pq")):
        raise InvalidCandles("this is not a Parquet file.")
    table = _parquet_table(content) if is_parquet else _csv_table(content)
    rows = _Rows()
    fault = rows.take(table)
    if len(rows) or fault is None:
        _validate(rows, table.place, timeframe)
    if fault is not None:
        raise fault
    return rows.series()


def _validate(rows: "_Rows", place: str, timeframe: Timeframe) -> None:
    try:
        rows.series().validate(timeframe)
    except InvalidCandles as error:
        if error.line is None:
            raise
        raise _fault(place, rows.lines[error.line], str(error)) from None


def _fault(place: str, line: int, reason: str) -> InvalidCandles:
    sentence = reason[0].lower() + reason[1:].removesuffix(".")
    return InvalidCandles(f"{place} {line}: {sentence}.", line=line)


def _content(source: Path | bytes) -> bytes:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_BYTES:
        raise InvalidCandles(
            f"the file is {size // 1024 // 1024} MB large; "
            f"at most {MAX_BYTES // 1024 // 1024} MB are read."
        )
    return source if isinstance(source, bytes) else source.read_bytes()


def _csv_table(content: bytes) -> _Table:
    reader = _csv_reader(_text(content))
    header = next(reader, None)
    if header is None:
        raise InvalidCandles("the file is empty.")
    line, names = header
    columns = _columns(names, f"line {line}: ", line)
    return _Table(place="line", rows=_csv_rows(reader, columns, len(names)))


def _text(content: bytes) -> str:
    zero = content.find(b"\0")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        zero = error.start if zero < 0 else min(zero, error.start)
    else:
        if zero < 0:
            return text
    line = content.count(b"\n", 0, zero) + 1
    raise InvalidCandles(f"line {line}: this is not text in UTF-8, so not a CSV file.", line=line)


def _csv_reader(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file that are not blank."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            lines.begin_row()
            if reader.line_num > 2 * MAX_CANDLES:
                raise _too_many()
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error:
        raise _fault("line", max(lines.number, 1), "the line is no row of a CSV file") from None


class _Lines:
    """The lines of a text, of which no row may take more than a candle needs."""

    def __init__(self, text: str) -> None:
        self.number = 0
        self._lines = io.StringIO(text, newline="")
        self._length = 0

    def begin_row(self) -> None:
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self._length += len(line)
        if self._length > MAX_ROW_LENGTH:
            raise csv.Error
        return line


def _csv_rows(
    reader: Iterator[tuple[int, list[str]]], columns: Sequence[int], width: int
) -> Iterator[tuple[int, Sequence[str]]]:
    for line, row in reader:
        if len(row) != width:
            raise _fault("line", line, f"it has {len(row)} values where the header has {width}")
        yield line, [row[column] for column in columns]


def _parquet_table(content: bytes) -> _Table:
    try:
        schema = pq.read_schema(io.BytesIO(content))
        chosen = [schema.names[column] for column in _columns(schema.names, "", None)]
        texts = [name for name in chosen if _is_text(schema.field(name).type)]
        # As dictionaries texts take the memory of the file, however often each of them occurs.
        file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        _check_size(file.metadata)
        _check_types(schema, chosen)
        table = file.read(columns=chosen)
        columns = [_python_values(table.column(name), name) for name in chosen]
    except (pa.ArrowException, OSError) as error:
        raise InvalidCandles("this Parquet file cannot be read.") from error
    return _Table(place="row", rows=enumerate(zip(*columns, strict=True), start=1))


def _check_size(metadata: Any) -> None:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if max(metadata.num_rows, sum(group.num_rows for group in groups)) > MAX_CANDLES:
        raise _too_many()
    if sum(group.total_byte_size for group in groups) > MAX_BYTES:
        raise InvalidCandles(f"unpacked the file has more than {MAX_BYTES // 1024 // 1024} MB.")


def _check_types(schema: Any, names: Sequence[str]) -> None:
    """A list in a cell could unpack to any size."""
    for name in names:
        kind = schema.field(name).type
        is_value = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
        if not (is_value or pa.types.is_null(kind) or _is_text(kind)):
            raise InvalidCandles(f"the column {name[:50]} is of no type that candles have.")


def _is_text(kind: Any) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _python_values(column: Any, name: str) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        _check_texts(column, name)
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # has no datetime
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        raise _fault("row", _first_unreadable(column), f"its {name[:50]} is out of range") from None
    return values


def _first_unreadable(column: Any) -> int:
    for row, value in enumerate(column, start=1):
        try:
            value.as_py()
        except (OverflowError, ValueError):
            return row
    return len(column)


def _check_texts(column: Any, name: str) -> None:
    for chunk in column.chunks:
        longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        if longest > MAX_CELL_BYTES:
            raise InvalidCandles(f"the column {name[:50]} holds a text that is no number or time.")


def _columns(names: Sequence[str], place: str, line: int | None) -> list[int]:
    """Where time, open, high, low, close and volume stand among the columns."""
    plain = [_plain(name) for name in names]
    found = {
        wanted: next((spelling for spelling in spellings if spelling in plain), None)
        for wanted, spellings in _SPELLINGS.items()
    }
    missing = [wanted for wanted, spelling in found.items() if spelling is None]
    if missing:
        what = "column" if len(missing) == 1 else "columns"
        raise InvalidCandles(f"{place}there is no {what} {', '.join(missing)}.", line=line)
    twice = [spelling for spelling in found.values() if plain.count(str(spelling)) > 1]
    if twice:
        raise InvalidCandles(f"{place}there are two columns {twice[0]}.", line=line)
    return [plain.index(str(spelling)) for spelling in found.values()]


def _plain(name: str) -> str:
    """`Open Time (UTC)` as `open_time`."""
    without_units = re.sub(r"[(\[].*?[)\]]", "", name.strip().lower())
    return re.sub(r"[^a-z0-9]+", "_", without_units).strip("_")


def _too_many() -> InvalidCandles:
    return InvalidCandles(f"the file has more than {MAX_CANDLES:,} candles.")


class _Rows:
    """Candles as they are read, with the line of each."""

    def __init__(self) -> None:
        self.lines = array("q")
        self._times = array("q")
        self._values = [array("d") for _ in range(5)]
        self._clock = _Clock()

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, table: _Table) -> InvalidCandles | None:
        """Reads up to the first row that cannot be read, and says what is wrong with it."""
        try:
            for line, row in table.rows:
                self._append(table.place, line, row)
        except InvalidCandles as fault:
            return fault
        return None

    def series(self) -> CandleSeries:
        open_, high, low, close, volume = (np.array(values) for values in self._values)
        return CandleSeries(
            open_time=np.array(self._times),
            open=open_,
            high=high,
            low=low,
            close=close,
            volume=volume,
        )

    def _append(self, place: str, line: int, row: Sequence[Any]) -> None:
        if len(self) == MAX_CANDLES:
            raise _too_many()
        try:
            time = self._clock.milliseconds(row[0])
            numbers = [_number(cell, name) for cell, name in zip(row[1:], _NUMBERS, strict=True)]
        except _Unreadable as error:
            raise _fault(place, line, str(error)) from None
        self.lines.append(line)
        self._times.append(time)
        for column, number in zip(self._values, numbers, strict=True):
            column.append(number)


_NUMBERS = ("open", "high", "low", "close", "volume")


class _Unreadable(Exception):
    """What is wrong with a cell."""


def _number(cell: object, name: str) -> float:
    if isinstance(cell, str):
        if not _NUMBER.fullmatch(cell):
            raise _not_a("number", cell, name)
        return float(cell)
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        raise _not_a("number", cell, name)
    try:
        return float(cell)
    except OverflowError:
        return float("inf")


class _Clock:
    """Reads times: ISO, or a count since 1970 in the unit that the file's first count is in."""

    def __init__(self) -> None:
        self._microseconds: int | None = None

    def milliseconds(self, cell: object) -> int:
        microseconds = self._read(cell.strip() if isinstance(cell, str) else cell)
        milliseconds, rest = divmod(microseconds, 1000)
        if not 0 <= milliseconds < _LATEST:
            raise _Unreadable("the time is not between 1970 and 2200")
        if rest:
            raise _Unreadable("the time has a fraction of a millisecond")
        return milliseconds

    def _read(self, cell: object) -> int:
        if isinstance(cell, str):
            whole = _WHOLE_NUMBER.fullmatch(cell)
            return self._count(int(whole[1])) if whole else _iso_microseconds(cell)
        if isinstance(cell, datetime):
            return _since_epoch(cell)
        if isinstance(cell, date):
            return _since_epoch(datetime(cell.year, cell.month, cell.day, tzinfo=UTC))
        if isinstance(cell, bool) or not isinstance(cell, int | float) or cell != cell // 1:
            raise _not_a("time", cell, "time")
        return self._count(int(cell))

    def _count(self, count: int) -> int:
        if self._microseconds is None:
            self._microseconds = _unit(count)
        if self._microseconds:
            return count * self._microseconds
        whole, rest = divmod(count, 1000)  # nanoseconds
        return whole if not rest else whole * 1000 + 1


def _unit(count: int) -> int:
    """Microseconds in the unit of a count, 0 for nanoseconds; seconds reach 1e11 in 5138."""
    for digits, microseconds in ((11, 1_000_000), (14, 1000), (17, 1)):
        if count < 10**digits:
            return microseconds
    return 0


def _iso_microseconds(text: str) -> int:
    try:
        return _since_epoch(datetime.fromisoformat(text.removesuffix("UTC").rstrip()))
    except ValueError:
        raise _not_a("time", text, "time") from None


def _since_epoch(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _not_a(what: str, cell: object, name: str) -> _Unreadable:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return _Unreadable(f"the {name} is missing")
    return _Unreadable(f"the {name} {str(cell)[:30]!r} is not a {what}")
