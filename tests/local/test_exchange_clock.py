"""The simulated exchange's clock of a stack: never set back, whatever is restarted."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.data_directory import DataDirectory
from local.processes import ServerNotStarted
from local.services import Service
from local.simulators.exchange_clock import ClockOrigin, ExchangeClock
from local.stack import Ports, StackPlan
from settings import InvalidSettings

NOW = 1_795_000_000_000
HOUR = 3_600_000
SPEEDS = st.floats(min_value=1, max_value=86_400)
# A speed, and for how many milliseconds of ours it is kept.
STAYS = st.lists(st.tuples(SPEEDS, st.integers(0, 10**9)), min_size=1, max_size=6)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "d")
    directory.create()
    directory.create_keys()
    return directory


@pytest.fixture
def ports() -> Iterator[Ports]:
    chosen = Ports.choose({}, api=None)
    yield chosen
    chosen.close()


def simulators(directory: DataDirectory, ports: Ports, **settings: str) -> tuple[Service, str]:
    """The simulators as a stack would start them, and where their exchange tells its time."""
    plan = StackPlan(directory, ports, settings)
    service = next(each for each in plan.servers if each.name == "simulators")
    return service, f"{plan.settings['EXCHANGE_BASE_URL']}/clock"


def time_at(address: str) -> tuple[int, float]:
    """The exchange's time and speed."""
    told = httpx.get(address, timeout=10, trust_env=False).json()
    return int(told["now_ms"]), float(told["speed"])


def test_a_first_clock_starts_at_our_time():
    origin = ClockOrigin.going_on_from(None, speed=1800, wall_ms=NOW + 0.75)

    assert origin.time_ms(NOW) == NOW
    assert origin.time_ms(NOW + 2_000) == NOW + HOUR


def test_at_the_same_speed_it_has_run_on_meanwhile():
    origin = ClockOrigin.going_on_from(None, speed=1800, wall_ms=NOW)

    assert ClockOrigin.going_on_from(origin, speed=1800, wall_ms=NOW + 86_400_000) == origin


def test_at_speed_one_it_keeps_its_lead():
    fast = ClockOrigin.going_on_from(None, speed=1800, wall_ms=NOW)

    slow = ClockOrigin.going_on_from(fast, speed=1, wall_ms=NOW + 2_000)

    assert slow.time_ms(NOW + 2_000) == NOW + HOUR
    assert slow.time_ms(NOW + 3_000) == NOW + HOUR + 1_000


@given(stays=STAYS)
def test_no_change_of_speed_sets_it_back_or_lets_it_jump(stays: list[tuple[float, int]]):
    origin, wall = None, NOW
    for speed, stay in stays:
        shown = NOW if origin is None else origin.time_ms(wall)
        origin = ClockOrigin.going_on_from(origin, speed=speed, wall_ms=wall)
        assert origin.time_ms(wall) == shown
        wall += stay
        assert origin.time_ms(wall) == pytest.approx(shown + stay * speed, abs=2)


def test_the_process_is_told_exactly(directory: DataDirectory):
    origin = ClockOrigin(exchange_ms=NOW + 7, wall_ms=NOW - 0.25, speed=1799.5)

    told = dict(argument.split("=") for argument in origin.arguments)

    clock = ExchangeClock(
        origin_ms=int(told["--exchange-origin"]),
        wall_origin_ms=float(told["--exchange-wall-origin"]),
        speed=float(told["--exchange-speed"]),
        wall=lambda: NOW / 1000 + 10,
    )
    assert clock.now_ms == origin.time_ms(NOW + 10_000)


def test_it_is_stored_once_and_again_only_at_another_speed(directory: DataDirectory):
    first = directory.exchange_clock(speed=1800, wall_ms=NOW)
    stored = (directory.path / "exchange-clock.json").read_text()

    assert directory.exchange_clock(speed=1800, wall_ms=NOW + 5_000) == first
    assert (directory.path / "exchange-clock.json").read_text() == stored

    slower = directory.exchange_clock(speed=60, wall_ms=NOW + 5_000)
    assert slower.time_ms(NOW + 5_000) == first.time_ms(NOW + 5_000)
    assert directory.exchange_clock(speed=60, wall_ms=NOW + 9_000) == slower


def test_a_clock_that_cannot_be_read_is_not_started_anew(directory: DataDirectory):
    (directory.path / "exchange-clock.json").write_text("{}")

    with pytest.raises(ServerNotStarted, match=r"exchange-clock\.json"):
        directory.exchange_clock(speed=1, wall_ms=NOW)


@pytest.mark.parametrize("speed", ["0.5", "inf", "nan", "fast", "86401"])
def test_an_impossible_speed_is_refused(directory: DataDirectory, ports: Ports, speed: str):
    with pytest.raises(InvalidSettings, match="SIMULATED_EXCHANGE_SPEED"):
        StackPlan(directory, ports, {"SIMULATED_EXCHANGE_SPEED": speed})


def test_where_no_exchange_is_simulated_no_clock_is_stored(directory: DataDirectory, ports: Ports):
    StackPlan(directory, ports, {"MARKET_DATA_SOURCE": "ccxt:binance"})

    assert not (directory.path / "exchange-clock.json").exists()


def test_simulators_that_die_and_later_ones_go_on_in_time(directory: DataDirectory, ports: Ports):
    service, address = simulators(directory, ports, SIMULATED_EXCHANGE_SPEED="1800")
    with service:
        first, speed = time_at(address)
        assert service.process is not None
        os.kill(service.process.pid, signal.SIGKILL)
        service.stop()
        service.start()  # as the supervisor does
        second, _ = time_at(address)
    stored = json.loads((directory.path / "exchange-clock.json").read_text())
    again, address = simulators(directory, ports, SIMULATED_EXCHANGE_SPEED="1800")
    with again:
        earliest = ClockOrigin(**stored).time_ms(time.time() * 1000)
        third, _ = time_at(address)
        latest = ClockOrigin(**stored).time_ms(time.time() * 1000)

    assert speed == 1800
    assert first < second < third
    # Three processes, one clock: all that passed is our time, 1800 times as fast.
    assert earliest <= third <= latest
