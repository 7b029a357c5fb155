"""`alphalab verify`: a bundle and a key, and nothing else on the machine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from certificates.bundle import SignedDocument
from certificates.canonical import Document, canonical_json
from certificates.signing import PublicKey, SigningKey, new_seed
from cli import app
from local.data_directory import DataDirectory
from tests.certificates.samples import archive_of, backtest, bundled, files_of
from tests.issuing import KEY

BUNDLE = bundled(backtest())
FILES = files_of(BUNDLE)
OTHER = SigningKey.from_seed(new_seed()).public_key


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bundle.zip").write_bytes(BUNDLE)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", "bundle.zip", *arguments])


@pytest.mark.parametrize("form", ["base64", "pem", "file", "json"])
def test_a_genuine_bundle_is_said_to_be_one(form: str):
    given = KEY.public_key.pem if form == "pem" else KEY.public_key.base64
    if form == "file":
        Path("key.pem").write_text(KEY.public_key.pem)
        given = "key.pem"
    if form == "json":
        keys = [{"id": each.id, "public_key": each.base64} for each in (OTHER, KEY.public_key)]
        Path("keys.json").write_text(json.dumps(keys[0] | {"keys": keys}))
        given = "keys.json"
    result = _run("--public-key", given)
    assert result.exit_code == 0, result.output
    assert "ALX-2026-1127-K7M3Q" in result.stdout
    assert f"Genuine: signed with key {KEY.public_key.id}" in result.stdout
    assert "withdrawn since, only the service's page /verify/CODE tells" in result.stdout


def test_any_of_several_keys_may_have_signed():
    assert _run("--public-key", OTHER.base64).exit_code == 1
    both = _run("--public-key", OTHER.base64, "--public-key", KEY.public_key.base64)
    assert both.exit_code == 0
    assert f"Genuine: signed with key {KEY.public_key.id}" in both.stdout


def test_another_key_is_not_said_to_be_a_change():
    result = _run("--public-key", OTHER.base64)
    assert "Signed with a key that was not given" in result.stdout
    assert "ALX-2026-1127-K7M3Q" not in result.stdout
    told = json.loads(_run("--public-key", OTHER.base64, "--json").stdout)
    assert (told["outcome"], told["certificate"]) == ("unknown_key", None)


EVIL = "\x1b[2J\r\u202eGenuine: signed\n" * 60


def test_nothing_that_others_wrote_moves_the_cursor():
    document = json.loads(FILES["certificate.json"])["canonical"]
    document["agent"]["name"] = EVIL
    signed = SignedDocument.sign(Document.from_bytes(canonical_json(document)), KEY)
    files = FILES | {"certificate.json": signed.to_bytes()}
    Path("bundle.zip").write_bytes(archive_of(files).getvalue())
    result = _run("--public-key", KEY.public_key.base64)
    assert result.exit_code == 0, result.output
    assert not {"\x1b", "\r", "\u202e"} & set(result.stdout)
    assert max(map(len, result.stdout.splitlines())) < 500
    told = _run("--public-key", KEY.public_key.base64, "--json").stdout
    assert told.isascii()
    assert json.loads(told)["certificate"]["agent"]["name"] == EVIL


def test_of_what_nobody_signed_there_is_no_heading():
    content = FILES["certificate.json"].replace(b'"trials":4', b'"trials":1')
    assert content != FILES["certificate.json"]
    files = archive_of(FILES | {"certificate.json": content})
    Path("bundle.zip").write_bytes(files.getvalue())
    result = _run("--public-key", KEY.public_key.base64)
    assert "Not genuine" in result.stdout
    assert "ALX-2026-1127-K7M3Q" not in result.stdout


def test_the_key_of_the_data_directory_is_taken_where_none_is_given():
    directory = DataDirectory(Path("data"))
    directory.create()
    directory.create_keys()
    key = SigningKey.from_seed(directory.certificate_signing_key)
    Path("bundle.zip").write_bytes(bundled(backtest(), key=key))
    assert _run("--data-dir", "data").exit_code == 0
    assert (directory.path / "certificates.key").stat().st_mode & 0o077 == 0


def test_without_any_key_it_is_said_where_there_is_one():
    result = _run("--data-dir", "nowhere")
    assert result.exit_code == 1
    assert "--public-key" in result.stderr
    assert "/.well-known/alphalab-certificate-key" in result.stderr


def test_what_does_not_hold_is_shown_with_its_place():
    lines = FILES["trades.jsonl"].replace(b'"exit_candle":', b'"exit_candle":1')
    Path("bundle.zip").write_bytes(archive_of(FILES | {"trades.jsonl": lines}).getvalue())
    result = _run("--public-key", KEY.public_key.base64)
    assert result.exit_code == 1
    assert "trades.jsonl line 1" in result.stdout
    assert "Not genuine" in result.stdout


def test_a_program_is_told_the_same():
    Path("bundle.zip").write_bytes(
        archive_of(FILES | {"candles.csv": FILES["candles.csv"][:-200]}).getvalue()
    )
    result = _run("--public-key", KEY.public_key.base64, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["outcome"]) == (1, "refused")
    Path("bundle.zip").write_bytes(BUNDLE)
    told = json.loads(_run("--public-key", KEY.public_key.base64, "--json").stdout)
    assert told["verified"] is True
    assert told["checks"] == dict.fromkeys(told["checks"], "passed") | {
        "reasoning": "not_looked_at"
    }
    assert told["certificate"]["code"] == "ALX-2026-1127-K7M3Q"


@pytest.mark.parametrize(
    ("content", "key", "sentence"),
    [
        (b"no archive", KEY.public_key.base64, "does not end as a ZIP"),
        (BUNDLE, "x" * 300, "base64 of 32 bytes"),
        (BUNDLE, "no-such-file.pem", "base64 of 32 bytes"),
        (None, KEY.public_key.base64, "bundle.zip"),
    ],
    ids=["no archive", "a long key", "no key", "no file"],
)
def test_what_cannot_be_verified_is_said_in_a_sentence(
    content: bytes | None, key: str, sentence: str
):
    Path("bundle.zip").unlink()
    if content is not None:
        Path("bundle.zip").write_bytes(content)
    result = _run("--public-key", key)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_new_pair_of_keys_is_one():
    result = CliRunner().invoke(app, ["keys", "new-certificate-key"])
    pair = dict(line.split("=", 1) for line in result.stdout.splitlines())
    seed, public = pair["CERTIFICATE_SIGNING_KEY"], pair["CERTIFICATE_PUBLIC_KEYS"]
    assert SigningKey.from_seed(seed).public_key == PublicKey.parse(public)
    assert seed != new_seed()
