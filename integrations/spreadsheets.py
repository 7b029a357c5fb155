"""CSV as spreadsheets read it, of which no cell is a formula."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

# Spreadsheets run what begins with one of these, some of them after a tab or a carriage return.
_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Lines of CSV (RFC 4180); None is an empty cell, a list or a dict is written as JSON.

    A text that a spreadsheet would run gets an apostrophe before it; numbers stay as they are.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    match value:
        case str():
            return f"'{value}" if value.startswith(_FORMULA_SIGNS) else value
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return orjson.dumps(value).decode()
        case _:
            return value
