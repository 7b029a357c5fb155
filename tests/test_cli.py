"""The commands say in one sentence what is wrong, and exit with 1."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli import app
from local.data_directory import DataDirectory, StackRecord
from settings import ApiSettings, MigrationSettings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in {**ApiSettings.model_fields, **MigrationSettings.model_fields}:
        monkeypatch.delenv(name.upper(), raising=False)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("token",),
        ("down",),
        ("keys", "rotate"),
        ("parity", "00000000-0000-7000-8000-000000000000"),
        ("certificates", "revoke", "ALX-2026-1127-AAAAA", "--reason", "A mistake."),
        ("candles", "import", "candles.csv", "--asset", "BTC/USDT", "--timeframe", "1h"),
    ],
)
def test_a_command_that_needs_the_stack_says_that_there_is_none(arguments: tuple[str, ...]):
    result = _run(*arguments, "--data-dir", "nowhere")

    assert result.exit_code == 1
    assert "running" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path("nowhere").exists()


def test_migrating_without_addresses_names_them():
    result = _run("migrate")

    assert result.exit_code == 1
    assert "DATABASE_URL, TEMPORAL_ADDRESS" in result.stderr


def test_migrating_a_database_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")

    result = _run("migrate")

    assert result.exit_code == 1
    assert "refused" in result.stderr
    assert "Traceback" not in result.output


def test_migrating_twice_changes_nothing(
    empty_postgres_url: str, temporal_address: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_address)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "migrated-twice")

    results = [_run("migrate"), _run("migrate")]

    assert [result.exit_code for result in results] == [0, 0], results[0].output


def test_doctor_without_a_stack_says_what_to_do():
    result = _run("doctor", "--data-dir", "nowhere")

    assert result.exit_code == 1
    assert "alphalab up" in result.stdout


def test_a_lifetime_without_a_unit_is_refused():
    result = _run("token", "--ttl", "12")

    assert result.exit_code == 2
    assert "12h" in result.stderr


def test_a_stack_that_is_not_ready_yet_is_said_to_be_starting(tmp_path: Path):
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    directory.write(StackRecord(state="starting"))
    with directory.locked():
        result = _run("token", "--data-dir", str(directory.path))

    assert result.exit_code == 1
    assert "is starting" in result.stderr


CANDLES = """Date,Open,High,Low,Close,Volume
2024-01-01 00:00,10,12,9,11,5
2024-01-01 01:00,11,12,10,11,5
2024-01-01 03:00,11,13,11,12,5
"""


def _import(file: Path, *options: str) -> Result:
    return _run(
        "candles", "import", str(file), "--asset", "btc-usdt", "--timeframe", "1h", *options
    )


def test_importing_candles_reports_rows_gaps_and_fingerprint(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    file = tmp_path / "candles.csv"
    file.write_text(CANDLES)

    first, second = _import(file, "--source", "mine"), _import(file, "--source", "mine")

    assert first.exit_code == 0, first.output
    assert "imported 3 candles of BTC/USDT 1h, 1 missing between them" in first.stdout
    assert "source import:mine" in first.stdout
    assert "there already: 3 candles" in second.stdout
    assert first.stdout.splitlines()[1] == second.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CANDLES.replace("11,12,10,11,5", "11,12,10,,5"), "line 3"),
        (CANDLES.replace("Close", "Last"), "close"),
        ("", ""),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: str,
    message: str,
):
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    file = tmp_path / "candles.csv"
    file.write_text(content)

    result = _import(file)

    assert result.exit_code == 1, result.output
    assert message in result.stderr.lower()
    assert len(result.stderr.splitlines()) == 1


def test_a_file_that_is_not_there_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", postgres_url)

    result = _import(Path("no-such-file.csv"))

    assert result.exit_code == 1
    assert "no-such-file.csv" in result.stderr


def test_a_certificate_that_nobody_has_cannot_be_revoked(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE_URL", postgres_url)

    result = _run("certificates", "revoke", "ALX-2026-1127-aaaaa", "--reason", "A mistake.")

    assert result.exit_code == 1
    assert "no certificate with the code ALX-2026-1127-aaaaa" in result.stderr
