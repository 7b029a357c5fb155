"""One digit changed in any field of any file of a bundle, and it verifies no more."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from certificates.bundle import SignedDocument
from certificates.canonical import Document, Head, NotCanonical, canonical_json
from certificates.chain import Chain
from certificates.problems import Findings, Problem
from certificates.verification import Verification, verify_bundle
from tests.certificates.samples import (
    archive_of,
    backtest,
    bundled,
    files_of,
    forward_test,
)
from tests.issuing import KEY

FILES = {
    "backtest": files_of(bundled(backtest(), includes_reasoning=True)),
    "forward": files_of(bundled(forward_test(), includes_reasoning=True)),
}
EACH_TEST = pytest.mark.parametrize("test", FILES)
JSON_FILES = ("decisions.jsonl", "sightings.jsonl", "trades.jsonl")


def with_file(test: str, name: str, content: bytes) -> Verification:
    return verify_bundle(archive_of(FILES[test] | {name: content}), [KEY.public_key])


def other(value: Any) -> Any:
    """The value with one digit, letter or truth changed, of the same kind where it has one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value % 10 < 9 else value - 1
    if isinstance(value, float):
        texts = [
            repr(value).replace(old, new, 1)
            for old, new in zip("123456789", "234567891", strict=True)
        ]
        return next(found for text in texts if (found := float(text)) != value)
    if isinstance(value, str):
        return flipped(value) if value else "1"
    return 1


def flipped(text: str) -> str:
    """Another digit in place of the last one that there is; else another first letter."""
    at = max((i for i, char in enumerate(text) if char.isdigit()), default=0)
    if "e" in text and text[0].isdigit():
        at = 0
    return text[:at] + ("3" if text[at] != "3" else "4") + text[at + 1 :]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value or [])
    for key, each in items:
        if isinstance(each, dict | list):
            yield from leaves(each, (*path, key))
        else:
            yield (*path, key)


def changed_at(
    value: Any, path: tuple[Any, ...], change: Callable[[Any], Any] | None = None
) -> Any:
    copy = json.loads(json.dumps(value))
    held = copy
    for key in path[:-1]:
        held = held[key]
    held[path[-1]] = (change or other)(held[path[-1]])
    return copy


def places(problems: tuple[Problem, ...]) -> set[tuple[str | None, int | None]]:
    return {(each.file, each.line) for each in problems}


@EACH_TEST
def test_a_changed_field_of_the_certificate_is_found(test: str):
    certificate = json.loads(FILES[test]["certificate.json"])
    found_at = list(leaves(certificate))
    assert len(found_at) > 80
    for path in found_at:
        content = canonical_json(changed_at(certificate, path))
        found = with_file(test, "certificate.json", content)
        is_key = path == ("public_key_id",)
        assert found.outcome == ("unknown_key" if is_key else "tampered"), path
        assert "certificate.json" in {each.file for each in found.problems}, path


def moved(value: Any) -> Any:
    """A figure that says something else, not only in its last decimals."""
    return value + 0.001 if isinstance(value, float) else other(value)


def signed(document: dict[str, Any]) -> bytes:
    """What an issuer that lies would put into a bundle."""
    return SignedDocument.sign(Document.from_bytes(canonical_json(document)), KEY).to_bytes()


@EACH_TEST
def test_a_figure_that_its_issuer_made_up_is_named(test: str):
    document = json.loads(FILES[test]["certificate.json"])["canonical"]
    groups = ({"metrics": document["metrics"]}, {"result": document["result"]})
    for path in [path for group in groups for path in leaves(group)]:
        try:
            content = signed(changed_at(document, path, moved))
        except NotCanonical:
            assert path[-1] in {"longest_drawdown_ms", "daily_returns"}
            continue
        found = with_file(test, "certificate.json", content)
        assert {each.field for each in found.problems} == {".".join(path)}
        assert found.outcome == "not_reproduced"


@EACH_TEST
def test_a_trade_that_its_issuer_made_up_is_named_with_its_line_and_field(test: str):
    lines = FILES[test]["trades.jsonl"].splitlines()
    document = json.loads(FILES[test]["certificate.json"])["canonical"]
    records = [json.loads(line)["record"] for line in lines]
    records[1]["exit_price"] *= 1.01
    chain, written = Chain(), []
    chain.rejoin(Head(**document["trace"]["sightings"]))
    for record in records:
        link = chain.add(canonical_json(record))
        written.append(canonical_json({"link": link, "record": record}) + b"\n")
    document["trace"]["trades"] = asdict(chain.head())
    files = {"trades.jsonl": b"".join(written), "certificate.json": signed(document)}
    found = verify_bundle(archive_of(FILES[test] | files), [KEY.public_key])
    (problem,) = found.problems
    assert (problem.file, problem.line, problem.field) == ("trades.jsonl", 2, "exit_price")
    assert found.outcome == "not_reproduced"


@EACH_TEST
def test_a_changed_number_of_a_candle_is_found_on_its_line(test: str):
    lines = FILES[test]["candles.csv"].decode().splitlines()
    for number in range(1, len(lines), 4):
        cells = lines[number].split(",")
        for column, cell in enumerate(cells):
            line = ",".join([*cells[:column], flipped(cell), *cells[column + 1 :]])
            content = "\n".join([*lines[:number], line, *lines[number + 1 :], ""]).encode()
            found = with_file(test, "candles.csv", content)
            assert found.outcome == "tampered", (number, column)
            assert ("candles.csv", number + 1) in places(found.problems), (number, column)


@EACH_TEST
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_changed_field_of_a_record_is_found_on_its_line(test: str, name: str):
    lines = FILES[test][name].splitlines()
    for number in range(0, len(lines), 4):
        record = json.loads(lines[number])
        for path in leaves(record):
            changed = canonical_json(changed_at(record, path))
            content = b"\n".join([*lines[:number], changed, *lines[number + 1 :], b""])
            found = with_file(test, name, content)
            assert found.outcome == "tampered", (number, path)
            assert (name, number + 1) in places(found.problems), (number, path)


@EACH_TEST
def test_other_words_than_the_agents_are_found_on_their_line(test: str):
    lines = FILES[test]["reasoning.jsonl"].splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        for path in leaves(record):
            changed = canonical_json(changed_at(record, path))
            content = b"\n".join([*lines[:number], changed, *lines[number + 1 :], b""])
            found = with_file(test, "reasoning.jsonl", content)
            assert found.outcome == "tampered", (number, path)
            assert ("reasoning.jsonl", number + 1) in places(found.problems), (number, path)


def test_a_changed_text_for_readers_is_found():
    content = FILES["backtest"]["README.txt"]
    for at in range(0, len(content), 16):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        found = with_file("backtest", "README.txt", changed)
        assert found.outcome == "tampered", at
        assert "README.txt" in {each.file for each in found.problems}


def test_a_part_with_many_problems_hides_no_other():
    found = Findings()
    found.extend(Problem(part="trades", message="…") for _ in range(1_000))
    found.add(Problem(part="figures", message="…"))
    told = found.summed_up()
    assert {each.part for each in told} == {"trades", "figures"}
    assert told[-1] == Problem(part="trades", message="… and 950 more.")
    assert len(told) == 52


@EACH_TEST
@pytest.mark.parametrize("name", ["candles.csv", *JSON_FILES, "reasoning.jsonl"])
def test_a_line_that_is_gone_or_there_twice_is_found(test: str, name: str):
    lines = FILES[test][name].splitlines(keepends=True)
    if not lines:
        return
    for content in (b"".join(lines[:-1]), b"".join([*lines, lines[-1]])):
        found = with_file(test, name, content)
        assert found.outcome == "tampered"
        assert name in {each.file for each in found.problems}


@EACH_TEST
def test_lines_in_another_order_are_found(test: str):
    first, second, *others = FILES[test]["decisions.jsonl"].splitlines(keepends=True)
    found = with_file(test, "decisions.jsonl", b"".join([second, first, *others]))
    assert ("decisions.jsonl", 1) in places(found.problems)
