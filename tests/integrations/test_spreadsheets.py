"""What spreadsheets are given to read."""

import csv
import io

import pytest

from integrations.spreadsheets import csv_text


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_would_run_is_only_shown(sign: str):
    assert read(csv_text([[f"{sign}1+1", "safe"]])) == [[f"'{sign}1+1", "safe"]]


def test_numbers_keep_their_sign_and_all_their_digits():
    assert csv_text([[-4.5, 0.1 + 0.2, -3, 1e-7]]) == "-4.5,0.30000000000000004,-3,1e-07\r\n"


def test_every_kind_of_value_has_its_form():
    row: list[object] = [None, True, False, {"a": [1, None]}, [], "two\nlines", 'say "so", twice']

    assert read(csv_text([row])) == [
        ["", "true", "false", '{"a":[1,null]}', "[]", "two\nlines", 'say "so", twice']
    ]


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))
