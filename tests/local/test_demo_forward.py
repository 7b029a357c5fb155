"""`alphalab demo --forward` as a newcomer runs it: left, found again, and shown to its end."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app
from local.data_directory import DataDirectory
from local.demo_forward import FAST
from local.simulators.exchange_clock import ClockOrigin
from tests.local.test_demo import DemoOnTerminal, body_of, matched
from tests.local.test_stack import HTTP, alphalab, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataDirectory]:
    """A directory of which the first demo makes a stack, and which is left without one."""
    path = tmp_path_factory.mktemp("forward") / "data"
    yield DataDirectory(path)
    stopped = alphalab(path, "down")
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def left(directory: DataDirectory) -> str:
    """What a demo shows that is left while the agent holds a position."""
    demo = DemoOnTerminal(directory, ["--forward"])
    demo.read_until("  unrealized ")
    demo.read_until("next candle in ")
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.shown
    return demo.shown


def test_it_earns_the_test_and_shows_it_live(left: str):
    assert re.search(r"^Stack +started in ", left, re.MULTILINE)
    assert re.search(r"^ +\+[\d.]+ % in \d+ trades?: the gate is open", left, re.MULTILINE)
    assert re.search(r"^Forward +BTC/USDT 1h of the SIMULATED exchange", left, re.MULTILINE)
    assert "20 candles take about 40 s" in left
    assert re.search(r"candle +\d+/20 ", left)
    assert re.search(r"long since [\d,.]+.*  unrealized [+-][\d.]+", left)
    assert re.search(r"next candle in [012]\.\d s", left)
    assert re.search(r"candle \d+: LONG 70 %", left)


def test_who_leaves_is_told_how_to_come_back(left: str, directory: DataDirectory):
    assert "the forward test goes on without you" in left
    assert "Traceback" not in left
    assert matched(r"^Come back +(.*)$", left).endswith(
        f"alphalab demo --forward --data-dir {directory.path}"
    )


def test_a_test_that_was_left_outlives_the_exchange_and_is_found_again(
    left: str, directory: DataDirectory
):
    address = matched(r"^Forward +(http.*)$", left)
    before = body_of(directory, address)["session"]
    kill_exchange(directory)
    wait_for(lambda: candles_of(directory, address) > before["current_candle"])

    demo = alphalab(directory.path, "demo", "--forward", "--candles-to-watch", "1")

    assert demo.returncode == 0, f"{demo.stdout}{demo.stderr}"
    assert "\x1b" not in demo.stdout
    found = matched(r"^Forward +goes on where it was left: .*, (\d+) candles? so far", demo.stdout)
    session = body_of(directory, address)["session"]
    result = body_of(directory, matched(r"^Result +(http.*)$", demo.stdout))["result"]
    assert before["status"] == "running"
    assert (session["status"], session["open_position"]) == ("completed", None)
    assert (session["result_id"], result["type"]) == (result["id"], "forward")
    assert result["total_candles"] > int(found)
    assert result["total_trades"] > 0
    assert re.search(r"^Market +SIMULATED", demo.stdout, re.MULTILINE)


def candles_of(directory: DataDirectory, address: str) -> int:
    return int(body_of(directory, address)["session"]["current_candle"])


def kill_exchange(directory: DataDirectory) -> None:
    """Kill the simulators, wait until they are back, and see that their clock has not jumped."""
    stored = (directory.path / "exchange-clock.json").read_text()
    origin = ClockOrigin.model_validate_json(stored)
    former = directory.record.children["simulators"].pid
    before = exchange_ms(directory)
    os.kill(former, signal.SIGKILL)
    wait_for(lambda: directory.record.children["simulators"].pid != former)

    earliest = origin.time_ms(time.time() * 1000)
    after = exchange_ms(directory)
    assert before < earliest <= after <= origin.time_ms(time.time() * 1000)
    assert origin.speed == float(FAST["SIMULATED_EXCHANGE_SPEED"])


def exchange_ms(directory: DataDirectory) -> int:
    """Its time; the port stays open while the process is started again."""
    address = f"{directory.record.settings['EXCHANGE_BASE_URL']}/clock"
    told: dict[str, Any] = HTTP.get(address).json()
    return int(told["now_ms"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--candles", "candles.csv"], "leave --candles out"),
        (["--timeframe", "7x"], "timeframe"),
        (["--asset", "nothing"], "asset"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_before_anything_starts(
    options: list[str], reason: str, tmp_path: Path
):
    path = tmp_path / "data"

    demo = CliRunner().invoke(app, ["demo", "--forward", *options, "--data-dir", str(path)])

    assert demo.exit_code == 1
    assert reason in demo.stderr
    assert len(demo.stderr.splitlines()) == 1
    assert not path.exists()
