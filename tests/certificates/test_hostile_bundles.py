"""A file that was made to do harm is refused in a sentence, within bounded memory."""

import contextlib
import io
import random
import re
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable

import pytest

from certificates.bundle import SignedDocument
from certificates.bundle_reading import MAX_MEMBER_BYTES, BundleRefused
from certificates.canonical import sha256_hex
from certificates.verification import Verification, verify_bundle
from tests.certificates.samples import archive_of, backtest, bundled, files_of
from tests.issuing import KEY

BUNDLE = bundled(backtest(), includes_reasoning=True)
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


def before(name: str) -> io.BytesIO:
    """A gap before a file, which the directory knows of."""
    content = bytearray(archive_of(FILES).getvalue())
    at = content.index(name.encode()) - 30
    gap = b"A certificate of somebody else."
    for each in [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]:
        (offset,) = struct.unpack_from("<I", content, each + 42)
        struct.pack_into("<I", content, each + 42, offset + (len(gap) if offset >= at else 0))
    end = len(content) - 22
    (directory,) = struct.unpack_from("<I", content, end + 16)
    struct.pack_into("<I", content, end + 16, directory + len(gap))
    return io.BytesIO(bytes(content[:at] + gap + content[at:]))


def commented() -> io.BytesIO:
    file = archive_of(FILES)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(16) + b"!!"
    return file


def annotated() -> io.BytesIO:
    file = archive_of({})
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in FILES.items():
            info = zipfile.ZipInfo(name)
            info.comment = b"Genuine."
            archive.writestr(info, content)
    return file


HOSTILE: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "nothing": (io.BytesIO, "does not end as a ZIP"),
    "a text": (lambda: io.BytesIO(b"certificate" * 100), "does not end as a ZIP"),
    "half of one": (lambda: io.BytesIO(BUNDLE[: len(BUNDLE) // 2]), "does not end as a ZIP"),
    "two files of a name": (doubled, "two files called trades.jsonl"),
    "a file too many": (lambda: archive_of(FILES | {"../etc/passwd": b""}), "no bundle has"),
    "a crowd of files": (crowded, "more files than a bundle"),
    "no readme": (lambda: without("README.txt"), "no README.txt"),
    "a program before it": (lambda: io.BytesIO(b"MZ" * 50 + BUNDLE), "more in it than its files"),
    "a text before its files": (lambda: before("README.txt"), "more in it than its files"),
    "a text between its files": (lambda: before("trades.jsonl"), "more in it than its files"),
    "a comment that is an end": (commented, "has a comment"),
    "comments of files": (annotated, "more in it than its files"),
    "something behind it": (lambda: io.BytesIO(BUNDLE + b"!"), "does not end as a ZIP"),
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
FIRST, SECOND, *_ = FILES["reasoning.jsonl"].splitlines(keepends=True)
LAST_LINK = FILES["trades.jsonl"].splitlines()[-1][9:73]
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
    "words in another order": ("reasoning.jsonl", FIRST + SECOND + b"->" + SECOND + FIRST),
    "words twice": ("reasoning.jsonl", FIRST + b"->" + FIRST + FIRST),
    "a field of the words twice": ("reasoning.jsonl", b'{"candle":0,->{"candle":5,"candle":0,'),
    "a space among the words": ("reasoning.jsonl", b'{"candle":0,->{"candle": 0,'),
    "words written otherwise": ("reasoning.jsonl", b"At candle 0->\\u0041t candle 0"),
    "the words of an endless candle": (
        "reasoning.jsonl",
        b'{"candle":0,->{"candle":' + b"9" * 400 + b",",
    ),
    "a head that is no hash": ("certificate.json", LAST_LINK + b"->" + b"g" * 64),
    "a head that is too long": ("certificate.json", LAST_LINK + b"->" + LAST_LINK + b"0"),
    "a head of less than no lines": ("certificate.json", b'"lines":->"lines":-'),
    "an endless number": ("certificate.json", b'"trials":4->"trials":' + b"9" * 4_000),
    "other steps by hand": ("README.txt", b"SHA-256->MD5"),
    "more steps by hand": ("README.txt", b"To verify->Trust us.\nTo verify"),
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


def test_a_hostile_name_is_not_repeated():
    change = b'"trials":4->"trials":4,"\\u001b[2J Genuine":1'
    old, _, new = change.partition(b"->")
    content = FILES["certificate.json"].replace(old, new)
    found = verified(archive_of(FILES | {"certificate.json": content}))
    assert found.outcome == "tampered"
    assert not any("Genuine" in each.message for each in found.problems)


def signed_with(document: bytes) -> io.BytesIO:
    """What an issuer that means harm would sign."""
    signed = SignedDocument(
        text=document,
        canonical_sha256=sha256_hex(document),
        public_key_id=KEY.public_key.id,
        signature=KEY.sign(document),
    )
    return archive_of(FILES | {"certificate.json": signed.to_bytes()})


LEAVES = re.compile(rb'(?<=:)(-?[0-9][0-9.e+-]*|"[^"]*"|true|false|null)(?=[,}])')
VALUES = (b"-1", b"0", b"1e+300", b"9007199254740992", b'""', b'"x"', b"null", b"true")


@pytest.mark.parametrize("value", VALUES)
def test_no_signed_value_makes_it_fail_otherwise(value: bytes):
    document = SignedDocument.from_bytes(FILES["certificate.json"]).text
    for each in LEAVES.finditer(document):
        changed = document[: each.start()] + value + document[each.end() :]
        if changed == document:
            continue
        with contextlib.suppress(BundleRefused):
            found = verified(signed_with(changed))
            assert found.outcome in {"genuine", "tampered", "not_reproduced"}


# Of a header of a file, and of its entry in the directory: what unpacking does not depend on.
IN_HEADER = {*range(4, 6), *range(6, 8), *range(8, 10), *range(10, 26)}
# A size that is larger than what is there is read to its end all the same, and an empty file is
# empty however it was packed.
IN_ENTRY = {*range(4, 12), *range(12, 16), *range(24, 28), *range(34, 42)}
# Disks, and how many files there are on them.
IN_END = range(4, 12)


def metadata(content: bytes) -> set[int]:
    """Where a byte may change without a file's content changing, unless it lies in that content."""
    found = {len(content) - 22 + each for each in IN_END}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        at = archive.start_dir
        for member in archive.infolist():
            begin = member.header_offset
            found |= {begin + each for each in IN_HEADER} | {at + each for each in IN_ENTRY}
            end = begin + 30 + len(member.filename) + member.compress_size
            found |= set(range(end, end + 16))  # its sizes once more
            at += 46 + len(member.filename)
    return found


def packed(content: bytes) -> set[int]:
    """Where the files are: there are several ways to pack one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            member.header_offset + 30 + len(member.filename) + each
            for member in archive.infolist()
            for each in range(member.compress_size)
        }


def test_a_bundle_with_any_byte_changed_is_refused_or_not_genuine():
    """Unless what changed is none of its content."""
    rng, says_nothing, files = random.Random(4), metadata(BUNDLE), packed(BUNDLE)
    outside = [at for at in range(len(BUNDLE)) if at not in files]
    for at in [*rng.sample(outside, 250), *rng.sample(sorted(files), 250)]:
        content = bytearray(BUNDLE)
        content[at] ^= rng.randrange(1, 256)
        changed = io.BytesIO(bytes(content))
        try:
            is_genuine = verified(changed).is_genuine
        except BundleRefused:
            continue
        if is_genuine:
            assert at in says_nothing or at in files, at
            assert files_of(bytes(content)) == FILES, at
