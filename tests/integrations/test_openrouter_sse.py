"""Events come out of bytes the same way, however the network cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.openrouter.sse import EventDecoder, LineTooLong

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
PAYLOADS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)
    .filter(lambda text: not text.startswith(" "))
    .filter(lambda text: not text.startswith("\ufeff")),
    max_size=5,
)


def decode(stream: bytes, cuts: list[int]) -> list[str]:
    decoder = EventDecoder(1_000_000)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [event for start, end in pairwise(edges) for event in decoder.feed(stream[start:end])]


@given(PAYLOADS, LINE_ENDS, st.lists(st.integers(min_value=0), max_size=12))
def test_every_cut_gives_the_same_events(payloads: list[str], end: str, cuts: list[int]):
    text = "".join(
        f": OPENROUTER PROCESSING{end}{end}id: 7{end}data: {payload}{end}{end}"
        for payload in payloads
    )

    assert decode(text.encode(), cuts) == payloads


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_cr_and_lf_end_a_line(separator: str):
    assert decode(f"data: a{separator}b\n\n".encode(), []) == [f"a{separator}b"]


def test_data_lines_of_one_event_are_joined():
    assert decode(b"data: {\ndata:}\n\n", []) == ["{\n}"]


def test_a_byte_order_mark_is_skipped():
    assert decode(b"\xef\xbb\xbfdata: x\n\n", [1, 2]) == ["x"]


def test_a_field_that_only_begins_like_data_is_skipped():
    assert decode(b"database: x\ndata: y\n\n", []) == ["y"]


def test_an_event_without_its_blank_line_is_dropped():
    assert decode(b"data: x\n", []) == []


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: " + b"x" * 94 + b"\n"])
def test_a_line_or_event_beyond_the_limit_is_refused(piece: bytes):
    decoder = EventDecoder(1_000)

    with pytest.raises(LineTooLong):
        [list(decoder.feed(piece)) for _ in range(20)]
