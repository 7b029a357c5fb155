"""The simulated exchange: one endless market, seen through Binance's words, and told to fail."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.issuer import Issuer, create_key
from local.simulators import app as simulators
from local.simulators.exchange import WEEK_MINUTES, WEEK_MS, market_week
from local.simulators.exchange_clock import ExchangeClock
from local.simulators.exchange_history import LISTED_MS, History, Span
from local.simulators.exchange_server import ASSETS, create_app
from tests.loopback import TLS, eventually, serve_app
from trading.candles import Candle, Timeframe

BTC = "BTC/USDT"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_750_250_070_000  # 12:34:30 on a Wednesday
HOUR_OPEN = NOW // HOUR * HOUR


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=10, verify=TLS) as client:
        client.post("/debug/clock", json={"now_ms": NOW, "speed": 0})
        client.delete("/debug/faults")
        client.delete("/debug/requests")
        yield client


def klines(http: httpx.Client, interval: str = "1h", **asked: Any) -> list[list[Any]]:
    response = http.get(
        "/api/v3/klines", params={"symbol": "BTCUSDT", "interval": interval} | asked
    )
    response.raise_for_status()
    rows: list[list[Any]] = response.json()
    return rows


def fail(http: httpx.Client, kind: str, **fields: Any) -> None:
    http.post("/debug/faults", json=[{"kind": kind} | fields]).raise_for_status()


# The market


@pytest.mark.parametrize("asset", ASSETS)
def test_a_week_is_valid_and_whole(asset: str):
    week = market_week(asset, 2893, seed=1)

    week.validate(Timeframe.MINUTE_1)
    assert len(week) == WEEK_MINUTES
    assert week.gaps(Timeframe.MINUTE_1) == 0
    assert week.open_time[0] == 2893 * WEEK_MS


def test_the_weeks_meet():
    weeks = [market_week(BTC, number, seed=1) for number in range(2890, 2898)]
    usual = abs(weeks[0].close / weeks[0].open - 1).max()

    for before, after in pairwise(weeks):
        assert abs(after.open[0] / before.close[-1] - 1) < usual
    assert len({week.fingerprint() for week in weeks}) == len(weeks)


@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_longer_candles_are_the_sum_of_their_minutes(timeframe: Timeframe):
    step, history = timeframe.milliseconds, History(seed=3)
    span = Span(start_ms=NOW // step * step - 9 * step, end_ms=NOW + 1)
    minutes = history.candles(BTC, Timeframe.MINUTE_1, span, now_ms=NOW)
    longer = history.candles(BTC, timeframe, span, now_ms=NOW)

    assert len(longer) == 10
    parts = [list(part) for _, part in groupby(minutes, key=lambda c: c.open_time // step)]
    for candle, part in zip(longer, parts, strict=True):
        assert (candle.open, candle.close) == (part[0].open, part[-1].close)
        assert candle.high == max(minute.high for minute in part)
        assert candle.low == min(minute.low for minute in part)
        assert candle.volume == pytest.approx(sum(minute.volume for minute in part))


@pytest.mark.parametrize("timeframe", [Timeframe.MINUTE_1, Timeframe.HOUR_1])
def test_a_candle_only_grows_until_it_closes(timeframe: Timeframe):
    step, history = timeframe.milliseconds, History(seed=3)
    span = Span(start_ms=HOUR_OPEN, end_ms=HOUR_OPEN + step)

    def at(elapsed: float) -> Candle:
        now_ms = HOUR_OPEN + int(elapsed * step)
        return history.candles(BTC, timeframe, span, now_ms=now_ms).candle(0)

    stages = [at(percent / 100) for percent in range(101)]
    for before, after in pairwise(stages):
        assert (after.open, after.open_time) == (before.open, before.open_time)
        assert after.high >= before.high >= before.close >= before.low >= after.low
        assert after.volume >= before.volume
    assert stages[0].close == stages[0].open
    assert stages[99] != stages[100]


def test_a_restart_and_another_clock_show_the_same_market():
    def told(clock: ExchangeClock, seed: int) -> list[list[Any]]:
        with serve_app(create_app(clock, seed=seed)) as url, httpx.Client(base_url=url) as http:
            return klines(http, "5m", startTime=HOUR_OPEN - 3 * DAY, limit=1000)

    first = told(ExchangeClock(), 1)
    again = told(ExchangeClock(origin_ms=NOW - HOUR, speed=1000), 1)
    assert len(first) == 1000
    assert first[:800] == again[:800]
    assert told(ExchangeClock(), 2) != first


# The clock


def test_time_passes_from_the_origin_at_its_speed_also_after_a_restart():
    wall = 1_000.0

    def started() -> ExchangeClock:
        return ExchangeClock(origin_ms=900_000, speed=3600, wall=lambda: wall)

    clock = started()
    assert clock.now_ms == 900_000 + 100_000 * 3600
    wall = 1_001.0
    assert clock.now_ms == started().now_ms == 900_000 + 101_000 * 3600


def test_a_clock_is_set_stopped_and_let_go():
    wall = 50.0
    clock = ExchangeClock(wall=lambda: wall)
    assert clock.now_ms == 50_000

    clock.set(now_ms=NOW, speed=0)
    wall = 60.0
    assert clock.now_ms == NOW
    clock.set(advance_ms=500)
    assert clock.now_ms == NOW + 500
    clock.set(speed=2)
    wall = 61.0
    assert clock.now_ms == NOW + 500 + 2_000


def test_the_clock_is_told_and_set_over_http(http: httpx.Client):
    assert http.get("/clock").json() == {"now_ms": NOW, "speed": 0, "simulated": True}
    http.post("/debug/clock", json={"advance_ms": HOUR})
    assert http.get("/api/v3/time").json()["serverTime"] == NOW + HOUR

    http.post("/debug/clock", json={"speed": 3600})
    assert http.get("/clock").json()["speed"] == 3600


# Binance's words


def test_without_a_start_the_last_candles_come(http: httpx.Client):
    assert [row[0] for row in klines(http, limit=3)] == [
        HOUR_OPEN - 2 * HOUR, HOUR_OPEN - HOUR, HOUR_OPEN,
    ]  # fmt: skip
    assert klines(http, limit=1, endTime=HOUR_OPEN - 1)[0][0] == HOUR_OPEN - HOUR


def test_with_a_start_the_first_ones_come(http: httpx.Client):
    rows = klines(http, startTime=HOUR_OPEN - 5 * HOUR + 1, limit=2)

    assert [row[0] for row in rows] == [HOUR_OPEN - 4 * HOUR, HOUR_OPEN - 3 * HOUR]
    assert rows[0][6] == rows[1][0] - 1


@pytest.mark.parametrize(("asked", "given"), [({}, 500), ({"limit": 5000}, 1000)])
def test_a_page_has_its_limits(http: httpx.Client, asked: dict[str, Any], given: int):
    assert len(klines(http, **asked)) == given


def test_the_history_begins_somewhere(http: httpx.Client):
    assert klines(http, "1d", startTime=0, limit=1)[0][0] == LISTED_MS


def test_the_future_is_not_told(http: httpx.Client):
    assert klines(http, startTime=HOUR_OPEN + HOUR) == []
    assert klines(http, endTime=NOW + DAY)[-1][0] == HOUR_OPEN


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"symbol": "NOBODY"}, -1121),
        ({"interval": "7m"}, -1120),
        ({"startTime": "yesterday"}, -1100),
        ({"limit": "-3"}, -1100),
    ],
)
def test_a_wrong_question_gets_its_code(http: httpx.Client, asked: dict[str, str], code: int):
    response = http.get("/api/v3/klines", params={"symbol": "BTCUSDT", "interval": "1h"} | asked)

    assert response.status_code == 400
    assert response.json()["code"] == code


def test_everything_is_labelled_simulated(http: httpx.Client):
    for path in ("time", "exchangeInfo", "klines", "ticker/24hr"):
        response = http.get(f"/api/v3/{path}", params={"symbol": "BTCUSDT", "interval": "1h"})
        assert response.headers["x-simulated"] == "exchange"
        assert path == "klines" or response.json()["simulated"] is True


def test_requests_are_counted_by_path(http: httpx.Client):
    http.get("/api/v3/time")
    klines(http)
    klines(http, "1m")

    counted = http.get("/debug/requests").json()["by_path"]
    assert counted == {"/api/v3/time": 1, "/api/v3/klines": 2}


# What it is told to do wrong


def test_an_answer_goes_wrong_as_often_as_told_and_where_told(http: httpx.Client):
    fail(http, "answer", status=429, path="/time", times=2, retry_after=9)

    answers = [http.get("/api/v3/time") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "9"
    fail(http, "answer", status=503, path="/time")
    assert klines(http)


def test_a_hanging_request_is_counted_and_not_answered(http: httpx.Client):
    fail(http, "hang", path="/time")

    with pytest.raises(httpx.ReadTimeout):
        http.get("/api/v3/time", timeout=0.1)
    assert http.get("/debug/requests").json()["by_path"] == {"/api/v3/time": 1}
    assert http.get("/api/v3/time").status_code == 200


def test_a_late_candle_is_published_on_the_exchanges_clock(http: httpx.Client):
    opened = HOUR_OPEN - HOUR
    fail(http, "late", asset=BTC, timeframe="1h", open_time=opened, by_ms=NOW - HOUR_OPEN + 1)

    assert [row[0] for row in klines(http, limit=2)] == [HOUR_OPEN]
    http.post("/debug/clock", json={"advance_ms": 1})
    assert [row[0] for row in klines(http, limit=2)] == [opened, HOUR_OPEN]


def test_a_candle_is_revised_after_it_was_served_closed(http: httpx.Client):
    fail(http, "revised", asset=BTC, timeframe="1h", open_time=HOUR_OPEN, factor=0.5)
    forming = [klines(http, limit=1) for _ in range(2)]
    http.post("/debug/clock", json={"now_ms": HOUR_OPEN + HOUR})
    closed = [klines(http, limit=2)[0] for _ in range(3)]

    assert forming[0] == forming[1]
    assert float(closed[1][4]) == pytest.approx(float(closed[0][4]) / 2)
    assert closed[1][3] == closed[1][4]
    assert closed[1] == closed[2]


@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_a_halt_is_a_gap_at_every_length(timeframe: Timeframe):
    step, history = timeframe.milliseconds, History(seed=3)
    whole = Span(start_ms=NOW // step * step - 9 * step, end_ms=NOW + 1)
    # From the middle of the third candle to that of the sixth.
    halt = Span(start_ms=whole.start_ms + 5 * step // 2, end_ms=whole.start_ms + 11 * step // 2)
    usual, halted = (
        history.candles(BTC, timeframe, whole, now_ms=NOW, halts=halts) for halts in ((), (halt,))
    )

    missing = [3, 4, 5] if timeframe is Timeframe.MINUTE_1 else [3, 4]
    kept = [index for index in range(10) if index not in missing]
    assert halted.open_time.tolist() == usual.open_time[kept].tolist()
    assert list(halted)[-4:] == list(usual)[-4:]


def test_an_asset_that_is_gone_is_neither_listed_nor_known(http: httpx.Client):
    def symbols() -> set[str]:
        return {item["symbol"] for item in http.get("/api/v3/exchangeInfo").json()["symbols"]}

    assert "BTCUSDT" in symbols()
    fail(http, "gone", asset=BTC)
    assert "BTCUSDT" not in symbols()
    assert http.get("/api/v3/ticker/24hr?symbol=BTCUSDT").json()["code"] == -1121
    http.delete("/debug/faults")
    assert "BTCUSDT" in symbols()


@pytest.mark.parametrize(
    "faults",
    [
        [{"kind": "earthquake"}],
        [{"kind": "answer"}],
        [{"kind": "hang", "times": 0}],
        [{"kind": "gone", "asset": BTC, "for": "ever"}],
        {"kind": "hang"},
    ],
)
def test_a_fault_that_is_none_is_refused(http: httpx.Client, faults: object):
    assert http.post("/debug/faults", json=faults).status_code == 422
    assert klines(http)


# Within the process of the simulators


@pytest.fixture(scope="module")
def issuer_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "issuer.pem"
    create_key(path)
    return path


def test_it_stands_beside_the_other_simulators(issuer_key: Path):
    app = simulators.create_app(Issuer.from_file(issuer_key))
    with serve_app(app) as url, httpx.Client(base_url=url + simulators.EXCHANGE_PATH) as http:
        assert http.get("/clock").json()["speed"] == 1
        assert len(klines(http, limit=2)) == 2
        assert http.get("/debug/requests").json()["by_path"] == {"/api/v3/klines": 1}
        fail(http, "answer", status=503, path="/klines")
        assert http.get("/api/v3/klines").status_code == 503


async def test_the_process_takes_its_origin_and_speed(issuer_key: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}{simulators.EXCHANGE_PATH}/clock"
        process = subprocess.Popen(
            _command(issuer_key, listener.fileno(), "--exchange-origin=0", "--exchange-speed=0.5"),
            pass_fds=[listener.fileno()],
        )
    try:
        async with httpx.AsyncClient() as http:
            told: dict[str, Any] = {}

            async def answers() -> bool:
                try:
                    told.update(json.loads((await http.get(address)).content))
                except httpx.TransportError:
                    return False
                return True

            await eventually(answers, seconds=20)
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert told["speed"] == 0.5
    assert told["now_ms"] == pytest.approx(ExchangeClock(speed=0.5).now_ms, abs=30_000)


def test_a_speed_without_an_origin_is_refused(issuer_key: Path):
    refused = subprocess.run(
        _command(issuer_key, 99, "--exchange-speed=3600"),
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "--exchange-speed needs --exchange-origin" in refused.stderr


def _command(issuer_key: Path, descriptor: int, *more: str) -> list[str]:
    module = [sys.executable, "-m", "local.simulators.app"]
    return [*module, f"--fd={descriptor}", f"--issuer-key={issuer_key}", *more]
