"""A file that was made to do harm is refused in a sentence, within bounded memory."""

import contextlib
import io
import random
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable

import pytest

from certificates.bundle_reading import MAX_MEMBER_BYTES, BundleRefused
from certificates.verification import Verification, verify_bundle
from tests.certificates.samples import archive_of, backtest, bundled, files_of
from tests.issuing import KEY

BUNDLE = bundled(backtest())
FILES = files_of(BUNDLE)
MEGABYTE = 1 << 20


def verified(file: io.BytesIO) -> Verification:
    return verify_bundle(file, [KEY.public_key])


def doubled() -> io.BytesIO:
    file = archive_of(FILES)
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("trades.jsonl", b"")
    return file


def claimed(size: int) -> io.BytesIO:
    """The directory says that the candles have so many bytes."""
    content = bytearray(archive_of(FILES).getvalue())
    at = content.rindex(b"candles.csv") - 46
    struct.pack_into("<I", content, at + 24, size)
    return io.BytesIO(bytes(content))


def crowded() -> io.BytesIO:
    return archive_of({f"{i}.txt": b"" for i in range(2_000)})


def without(name: str) -> io.BytesIO:
    return archive_of({key: content for key, content in FILES.items() if key != name})


def encrypted() -> io.BytesIO:
    content = bytearray(archive_of(FILES).getvalue())
    for at in (content.index(b"certificate.json") - 30, content.rindex(b"certificate.json") - 46):
        content[at + (6 if content[at + 2] == 3 else 8)] |= 1
    return io.BytesIO(bytes(content))


HOSTILE: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "nothing": (io.BytesIO, "does not end as a ZIP"),
    "a text": (lambda: io.BytesIO(b"certificate" * 100), "does not end as a ZIP"),
    "half of one": (lambda: io.BytesIO(BUNDLE[: len(BUNDLE) // 2]), "does not end as a ZIP"),
    "two files of a name": (doubled, "two files called trades.jsonl"),
    "a file too many": (lambda: archive_of(FILES | {"../etc/passwd": b""}), "no bundle has"),
    "a crowd of files": (crowded, "more files than a bundle"),
    "a file too few": (lambda: without("decisions.jsonl"), "no decisions.jsonl"),
    "five gigabytes": (lambda: claimed(MAX_MEMBER_BYTES + 1), "larger than"),
    "less than is there": (lambda: claimed(10), "candles.csv"),
    "a secret": (encrypted, "certificate.json is broken"),
    "a long certificate": (
        lambda: archive_of(FILES | {"certificate.json": b" " * MEGABYTE}),
        "certificate.json is longer",
    ),
    "a line without end": (
        lambda: archive_of(FILES | {"decisions.jsonl": b" " * MEGABYTE}),
        "decisions.jsonl line 1: the line is too long",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_bundle_is_refused_in_a_sentence(name: str):
    make, reason = HOSTILE[name]
    with pytest.raises(BundleRefused, match=reason) as refused:
        verified(make())
    assert "\n" not in str(refused.value)


NOT_A_NUMBER = FILES["candles.csv"].splitlines()[1].split(b",")[1]
LINE = FILES["decisions.jsonl"].splitlines()[0]
WRONG: dict[str, tuple[str, bytes]] = {
    "NaN as a price": ("candles.csv", NOT_A_NUMBER + b"->nan"),
    "infinity as a price": ("candles.csv", NOT_A_NUMBER + b"->inf"),
    "a price of digits": ("candles.csv", NOT_A_NUMBER + b"->" + b"9" * 400),
    "a price in another form": ("candles.csv", NOT_A_NUMBER + b"->1_0"),
    "NaN in a record": ("decisions.jsonl", b"73.5->NaN"),
    "an infinite number": ("decisions.jsonl", b"73.5->1e999"),
    "a text for a number": ("decisions.jsonl", b'73.5->"73.5"'),
    "a deep list": ("decisions.jsonl", b"73.5->" + b"[" * 20_000 + b"]" * 20_000),
    "a field too many": ("decisions.jsonl", b'"late":->"latex":1,"late":'),
    "a field twice": ("decisions.jsonl", b'"late":->"late":true,"late":'),
    "a space": ("decisions.jsonl", b'"late":->"late": '),
    "no UTF-8": ("decisions.jsonl", b"vendor->\xff\xfe"),
    "a deep certificate": (
        "certificate.json",
        b'"trials":4->"trials":' + b"[" * 20_000 + b"]" * 20_000,
    ),
    "a NaN in the certificate": ("certificate.json", b'"trials":4->"trials":NaN'),
    "a field of the certificate too many": (
        "certificate.json",
        b'"trials":4->"trial":1,"trials":4',
    ),
    "a rule too many": ("certificate.json", b'"rules":{->"rules":{"a":1,'),
    "a rule that is none": ("certificate.json", b'"starting_capital":10000->"starting_capital":-1'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_bundle_holds_is_named_with_its_file(name: str):
    file, change = WRONG[name]
    old, _, new = change.partition(b"->")
    assert old in FILES[file]
    found = verified(archive_of(FILES | {file: FILES[file].replace(old, new)}))
    assert found.outcome == "tampered"
    assert file in {each.file for each in found.problems}
    assert all(len(each.message) < 300 for each in found.problems)


def test_a_bomb_goes_off_in_little_memory():
    bomb = b"".join([FILES["decisions.jsonl"], b"{}\n" * (20 * MEGABYTE)])
    file = archive_of(FILES | {"decisions.jsonl": bomb})
    assert len(file.getvalue()) < MEGABYTE
    del bomb
    tracemalloc.start()
    try:
        found = verified(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.outcome == "tampered"
    assert peak < 5 * MEGABYTE


def test_a_bundle_with_any_bytes_changed_is_refused_or_found_and_nothing_else():
    rng = random.Random(4)
    for _ in range(300):
        content = bytearray(BUNDLE)
        for _ in range(rng.choice([1, 1, 4])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        with contextlib.suppress(BundleRefused):
            verified(io.BytesIO(bytes(content)))
