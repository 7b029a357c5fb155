"""`alphalab verify`: verifies a bundle offline, and says what of it holds."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from certificates.bundle_reading import BundleRefused
from certificates.canonical import Document
from certificates.problems import PARTS, Part, Problem
from certificates.signing import PublicKey
from certificates.verification import Verification, verify_bundle
from local.data_directory import DataDirectory, NothingToVerifyWith

MAX_KEY_BYTES = 4_096
_WHAT: dict[Part, str] = {
    "document": "what is certified is in canonical form",
    "signature": "it is what the key has signed",
    "candles": "the candles are such as a market makes",
    "chain": "no line was changed, added or left out",
    "reasoning": "the words are those of the decisions",
    "trades": "the trades follow from candles and decisions",
    "figures": "the figures follow from the trades",
}


def chosen_key(given: str | None, directory: DataDirectory) -> PublicKey:
    """The key that was given as PEM, as base64 or as a file of either; else the directory's.

    Raises `NothingToVerifyWith`, `InvalidKey` or OSError.
    """
    if given is not None:
        return PublicKey.parse(_text_of(given))
    key = directory.certificate_public_key
    if key is None:
        raise NothingToVerifyWith(
            "Whose signature is it to be? Give --public-key KEY, as the service that issued the "
            "certificate tells it at /.well-known/alphalab-certificate-key."
        )
    return key


def verified(file: Path, key: PublicKey) -> Verification:
    """Raises `BundleRefused` or OSError."""
    with file.open("rb") as opened:
        return verify_bundle(opened, [key])


def report(found: Verification, key: PublicKey) -> Group:
    """The checks, what does not hold, and the verdict."""
    parts: list[Text | Table] = [Text(""), _checks(found)]
    if found.problems:
        parts += [Text(""), _problems(found.problems)]
    heading = [] if found.document is None else [_heading(found.document)]
    return Group(*heading, *parts, Text(""), _verdict(found, key))


def as_json(found: Verification) -> str:
    """The same for programs."""
    told = {
        "verified": found.is_genuine,
        "outcome": found.outcome,
        "public_key_id": found.public_key_id,
        "checks": {part: _state(found, part) for part in PARTS},
        "problems": [asdict(each) for each in found.problems],
        "certificate": None if found.document is None else found.document.to_json(),
    }
    return json.dumps(told, indent=1, ensure_ascii=False)


def refusal_as_json(refused: BundleRefused) -> str:
    return json.dumps({"verified": False, "outcome": "refused", "detail": str(refused)})


def _text_of(given: str) -> str:
    if "-----BEGIN" in given:
        return given
    path = Path(given)
    try:
        if not path.is_file():
            return given
    except OSError:  # a key is too long for a name, or has what none may have
        return given
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES).decode(errors="replace")


def _heading(document: Document) -> Text:
    test, result = document.test, document.result
    return Text.assemble(
        (f"{document.code}  ", "bold"),
        f"{document.agent.name} on {test.asset} {test.timeframe}, {test.type}, ",
        f"{result.trades} trades, {(document.metrics.total_return or 0.0) * 100:+.2f} %",
    )


def _checks(found: Verification) -> Table:
    table = Table("", "part", "what it means", box=None, pad_edge=False)
    marks = {
        "passed": Text("ok", style="green"),
        "failed": Text("no", style="bold red"),
        "not_looked_at": Text("-", style="dim"),
    }
    for part in PARTS:
        table.add_row(marks[_state(found, part)], part, _WHAT[part])
    return table


def _state(found: Verification, part: Part) -> str:
    if any(each.part == part for each in found.problems):
        return "failed"
    return "passed" if part in found.looked_at else "not_looked_at"


def _problems(problems: tuple[Problem, ...]) -> Table:
    table = Table("where", "what does not hold", box=None, pad_edge=False)
    for place, message in _rows(problems):
        table.add_row(Text(place, style="cyan"), Text(message))
    return table


def _rows(problems: tuple[Problem, ...]) -> Iterator[tuple[str, str]]:
    for each in problems:
        yield each.place or "the test", each.message


def _verdict(found: Verification, key: PublicKey) -> Text:
    match found.outcome:
        case "genuine":
            return Text(f"Genuine: signed with key {key.id}, and reproduced.", style="green")
        case "not_reproduced":
            text = "Not reproduced: signed, but another result comes of it here."
            return Text(text, style="bold red")
        case "tampered":
            return Text("Not genuine: it is not what was signed.", style="bold red")
