"""`alphalab verify`: verifies a bundle offline, and says what of it holds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from certificates.bundle_reading import BundleRefused
from certificates.canonical import Document
from certificates.legible import legible
from certificates.problems import PARTS, Part, Problem
from certificates.signing import InvalidKey, PublicKey
from certificates.verification import Verification, verify_bundle
from local.data_directory import DataDirectory, NothingToVerifyWith

MAX_KEY_BYTES = 64 * 1024
# Whatever comes out of a bundle is shown as one line of at most so many characters.
MAX_SHOWN = 300
_WHAT: dict[Part, str] = {
    "document": "what is certified is in canonical form",
    "signature": "it is what the key has signed",
    "candles": "the candles are such as a market makes",
    "chain": "no line was changed, added or left out",
    "reasoning": "the words are those of the decisions",
    "trades": "the trades follow from candles and decisions",
    "figures": "the figures follow from the trades",
}
_SINCE = "Whether it was withdrawn since, only the service's page /verify/CODE tells."


class _PublishedKey(TypedDict):
    public_key: str


class _PublishedKeys(TypedDict):
    keys: list[_PublishedKey]


_PUBLISHED = TypeAdapter(_PublishedKeys)


def chosen_keys(given: Sequence[str], directory: DataDirectory) -> list[PublicKey]:
    """The keys that were given; else the directory's.

    Each is PEM, base64, the JSON that a service tells its keys in, or a file of either.
    Raises `NothingToVerifyWith`, `InvalidKey` or OSError.
    """
    if given:
        return [key for each in given for key in _keys_in(_text_of(each))]
    key = directory.certificate_public_key
    if key is None:
        raise NothingToVerifyWith(
            "Whose signature is it to be? Give --public-key KEY, as the service that issued the "
            "certificate tells it at /.well-known/alphalab-certificate-key."
        )
    return [key]


def verified(file: Path, keys: Sequence[PublicKey]) -> Verification:
    """Raises `BundleRefused` or OSError."""
    with file.open("rb") as opened:
        return verify_bundle(opened, keys)


def printed(text: str) -> str:
    """What somebody else wrote, so that it is nothing but text on a terminal."""
    shown = legible(text[: MAX_SHOWN + 1])
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"


def report(found: Verification) -> Group:
    """The checks, what does not hold, and the verdict; of what nobody signed, no heading."""
    parts: list[Text | Table] = [Text(""), _checks(found)]
    if found.problems:
        parts += [Text(""), _problems(found.problems)]
    document = found.document if found.is_signed else None
    heading = [] if document is None else [_heading(document)]
    return Group(*heading, *parts, Text(""), _verdict(found))


def as_json(found: Verification) -> str:
    """The same for programs, in ASCII; of what nobody signed, nothing is repeated."""
    document = found.document if found.is_signed else None
    told = {
        "verified": found.is_genuine,
        "outcome": found.outcome,
        "public_key_id": found.public_key_id,
        "checks": {part: _state(found, part) for part in PARTS},
        "problems": [asdict(each) for each in found.problems],
        "certificate": None if document is None else document.to_json(),
    }
    return json.dumps(told, indent=1)


def refusal_as_json(refused: BundleRefused) -> str:
    return json.dumps({"verified": False, "outcome": "refused", "detail": printed(str(refused))})


def _keys_in(text: str) -> list[PublicKey]:
    if not text.lstrip().startswith("{"):
        return [PublicKey.parse(text)]
    try:
        told = _PUBLISHED.validate_json(text)
    except ValidationError:
        raise InvalidKey("This JSON is not that in which a service tells its keys.") from None
    return [PublicKey.parse(each["public_key"]) for each in told["keys"]]


def _text_of(given: str) -> str:
    if "-----BEGIN" in given or given.lstrip().startswith("{"):
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
        (f"{printed(document.code)}  ", "bold"),
        printed(f"{document.agent.name} on {test.asset} {test.timeframe}, {test.type}") + ", ",
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
        yield printed(each.place or "the test"), printed(each.message)


def _verdict(found: Verification) -> Text:
    match found.outcome:
        case "genuine":
            text = f"Genuine: signed with key {found.public_key_id}, and reproduced. {_SINCE}"
            return Text(text, style="green")
        case "unknown_key":
            text = (
                "Signed with a key that was not given, so whose it is cannot be said: give the "
                "keys of the service that issued it."
            )
            return Text(text, style="bold red")
        case "not_reproduced":
            text = "Not reproduced: signed, but another result comes of it here."
            return Text(text, style="bold red")
        case "tampered":
            return Text("Not genuine: it is not what was signed.", style="bold red")
