"""`alphalab demo` as a newcomer runs it: from nothing, again, cut off, and left."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app, mint_token
from local.data_directory import DataDirectory, ForeignIssuer, StackRecord
from local.demo import run_demo
from local.demo_market import market_of
from local.demo_tour import SUBJECT
from local.simulators.exchange import SIMULATED_SOURCE, simulated_candles
from tests.local.test_stack import HTTP, alphalab, environment, wait_for
from trading.candles import Timeframe

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CANDLES = 60
COLOUR, MOVEMENT = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataDirectory]:
    """A directory of which the first demo makes a stack, and which is left without one."""
    path = tmp_path_factory.mktemp("demo") / "data"
    yield DataDirectory(path)
    stopped = alphalab(path, "down")
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A candle file, and what it is; the last of its trades is closed by the end of the test."""
    file = tmp_path_factory.mktemp("candles") / "candles.csv"
    series = simulated_candles(
        "BTC/USDT", Timeframe.HOUR_1, start_ms=1_700_000_000_000, count=CANDLES, seed=12
    )
    rows = [",".join(repr(value) for value in row) for row in series.rows()]
    file.write_text("\n".join(["time,open,high,low,close,volume", *rows]))
    return ["--candles", str(file), "--asset", "btc-usdt", "--timeframe", "1h"]


@pytest.fixture(scope="module")
def first(directory: DataDirectory, options: list[str]) -> str:
    """What the first demo prints, without a terminal."""
    demo = alphalab(directory.path, "demo", *options)
    assert demo.returncode == 0, f"{demo.stdout}{demo.stderr}"
    return demo.stdout


class DemoOnTerminal:
    """A demo in a terminal of its own."""

    def __init__(self, directory: DataDirectory, options: list[str]) -> None:
        self._terminal, its_side = pty.openpty()
        command = ["-m", "cli", "demo", *options, "--data-dir", str(directory.path)]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={**environment(), "TERM": "xterm"},
            cwd=directory.path.parent,
            stdin=its_side,
            stdout=its_side,
            stderr=its_side,
        )
        os.close(its_side)
        self._seen = b""

    @property
    def shown(self) -> str:
        return MOVEMENT.sub("\n", COLOUR.sub("", self._seen.decode(errors="replace")))

    def read_until(self, words: str) -> None:
        while words not in self.shown:
            self._seen += os.read(self._terminal, 65_536)

    def end(self) -> int:
        while True:
            try:
                self._seen += os.read(self._terminal, 65_536)
            except OSError:  # the other side is closed
                break
        os.close(self._terminal)
        return self.process.wait(30)


def test_it_goes_from_nothing_to_a_result_in_plain_lines(first: str):
    assert "\x1b" not in first
    assert re.search(r"^Stack +started in ", first, re.MULTILINE)
    assert re.search(r"^User +user_local, created", first, re.MULTILINE)
    assert re.search(rf"^candle +{CANDLES}/{CANDLES}  equity ", first, re.MULTILINE)
    assert re.search(r"^Model +SIMULATED", first, re.MULTILINE)
    assert re.search(r"^Market +upload: .*candles\.csv", first, re.MULTILINE)
    assert "buy & hold" in first


def test_where_it_points_to_there_is_something(first: str, directory: DataDirectory):
    curl = shlex.split(matched(r"^ +(curl .*)$", first))
    web_ui = matched(r"^Web UI +(.*)$", first)

    result = body_of(directory, curl[-1])["result"]
    workflow = HTTP.get(web_ui.replace("/namespaces/", "/api/v1/namespaces/")).json()

    assert f"alphalab token --data-dir {directory.path})" in curl[-2]
    assert result["total_candles"] == CANDLES
    assert workflow["workflowExecutionInfo"]["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"
    assert HTTP.get(matched(r"^API docs +(.*)$", first)).status_code == 200
    check_figures(result, first)


def test_it_ends_with_a_certificate_that_verifies(first: str, directory: DataDirectory):
    page = HTTP.get(matched(r"^Page +(.*)$", first))
    files = [Path(file) for file in re.findall(r"^File +(.*)$", first, re.MULTILINE)]
    verified = alphalab(directory.path, "verify", str(files[-1]))

    assert page.status_code == 200
    assert matched(r"^Code +(ALX-\S+), seal: simulated$", first) in page.text
    assert "Genuine" in page.text
    assert [file.read_bytes()[:4] for file in files] == [b"%PDF", b"\x89PNG", b"PK\x03\x04"]
    assert verified.returncode == 0, verified.stdout


def check_figures(result: dict[str, Any], printed: str) -> None:
    """The figures are those of the result, and agree with one another."""
    assert f"{result['total_pnl_pct']:+,.2f} %" in matched(r"^Return +(.*)$", printed)
    assert result["winning_trades"] + result["losing_trades"] == result["total_trades"] > 0
    share = 100 * result["winning_trades"] / result["total_trades"]
    assert result["win_rate"] == pytest.approx(share)
    assert result["avg_trade_pnl"] * result["total_trades"] == pytest.approx(
        result["total_pnl_amount"]
    )


def test_on_a_terminal_it_outlives_the_api_and_comes_to_the_same_result(
    first: str, directory: DataDirectory, options: list[str]
):
    demo = DemoOnTerminal(directory, options)
    demo.read_until("trades ")
    os.kill(directory.record.children["api"].pid, signal.SIGKILL)

    assert demo.end() == 0, demo.shown
    assert "already running" in demo.shown
    assert "known already" in demo.shown
    assert "found: simulated/momentum" in demo.shown
    for name in ("Return", "Trades", "Fees", "Max drawdown"):
        line = rf"^{name} +(.*?) *$"
        assert matched(line, demo.shown) == matched(line, first)


@pytest.mark.usefixtures("first")
def test_who_leaves_is_told_that_the_backtest_goes_on(directory: DataDirectory, options: list[str]):
    demo = DemoOnTerminal(directory, options)
    demo.read_until("trades ")
    demo.process.send_signal(signal.SIGINT)

    assert demo.end() == 130, demo.shown
    assert "goes on" in demo.shown
    assert "Traceback" not in demo.shown
    address = matched(r"^Backtest +(http.*)$", demo.shown)
    wait_for(lambda: body_of(directory, address)["session"]["status"] == "completed", seconds=60)


@pytest.mark.usefixtures("first")
def test_without_a_file_the_market_is_simulated_and_said_to_be(
    directory: DataDirectory, capsys: pytest.CaptureFixture[str]
):
    market = market_of(None, asset=None, timeframe=None)

    run_demo(directory, market, sign_in=lambda: _token(directory), candles=24)

    printed = capsys.readouterr().out
    address = matched(r"^Result +(http.*)$", printed)
    result = body_of(directory, address)["result"]
    assert (result["data_source"], result["total_candles"]) == (SIMULATED_SOURCE, 24)
    assert re.search(r"^Market +SIMULATED", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--candles", "no-such-file.csv"], "--asset"),
        (["--candles", "no-such-file.csv", "--asset", "BTC/USDT", "--timeframe", "1h"], "no-such"),
        (["--timeframe", "7x"], "timeframe"),
        (["--asset", "nothing"], "asset"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_before_anything_starts(
    options: list[str], reason: str, tmp_path: Path
):
    directory = tmp_path / "data"

    demo = CliRunner().invoke(app, ["demo", *options, "--data-dir", str(directory)])

    assert demo.exit_code == 1
    assert reason in demo.stderr
    assert len(demo.stderr.splitlines()) == 1
    assert not directory.exists()


def test_a_stack_that_others_sign_in_to_is_refused(tmp_path: Path):
    directory = DataDirectory(tmp_path)
    settings = {"CLERK_JWKS_URL": "https://clerk.example.com/.well-known/jwks.json"}
    directory.write(StackRecord(state="ready", ports={"simulators": 9000}, settings=settings))

    with directory.locked(), pytest.raises(ForeignIssuer, match=r"clerk\.example\.com"):
        run_demo(directory, market_of(None, asset=None, timeframe=None), sign_in=str)


@cache
def _token(directory: DataDirectory) -> str:
    return mint_token(directory, sub=SUBJECT, email=None, lifetime=timedelta(minutes=10))


def body_of(directory: DataDirectory, address: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {_token(directory)}"}
    answer = HTTP.get(address, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def matched(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, f"{pattern} in {text}"
    return found[1]
