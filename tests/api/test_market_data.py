"""Candles and indicators: what there is, what one may upload, what is refused."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
import talib

from api.middleware import MAX_CANDLE_UPLOAD_BYTES
from tests.api.world import Person, World, csv, error_of, upload
from tests.laboratory import FIRST_CANDLE, walk

SPAN = {"asset": "btc-usdt", "timeframe": "1h"}
FIRST_MS = int(FIRST_CANDLE.timestamp() * 1000)
HOUR_MS = 3_600_000


async def test_an_upload_is_seen_by_its_user_only(ada: Person, bob: Person) -> None:
    stored = await upload(ada, asset="XYZ/USDT")

    data_set = stored["data_set"]
    assert (data_set["candle_count"], data_set["gaps"], data_set["source"]) == (240, 0, "upload")
    assert assets(await ada.get("/api/data/assets"))["xyz-usdt"]
    assert "xyz-usdt" not in assets(await bob.get("/api/data/assets"))
    query = SPAN | {"asset": "XYZ-usdt"}
    assert (await ada.get("/api/data/candles", params=query)).json()["count"] == 240
    error_of(await bob.get("/api/data/candles", params=query), 422, "NO_CANDLES")


async def test_the_same_upload_again_is_the_same_set(ada: Person) -> None:
    first, second = await upload(ada), await upload(ada)

    assert first["data_set"]["id"] == second["data_set"]["id"]
    assert second["message"] == "These candles were there already"


async def test_candles_come_back_as_they_were(ada: Person) -> None:
    series = walk(240)
    await upload(ada, series)

    body = (await ada.get("/api/data/candles", params=SPAN | {"limit": 3})).json()

    assert body["count"] == 3
    assert body["candles"] == [
        dict(zip(("time", "open", "high", "low", "close", "volume"), row, strict=True))
        for row in list(series.rows())[-3:]
    ]


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({"start": "2024-01-02", "end": "2024-01-02"}, 24, 47),
        ({"start": "2024-01-02T00:00:00Z", "end": "2024-01-02T03:30:00Z"}, 24, 26),
        ({"start": "2024-01-02T02:00:00+02:00", "limit": "2"}, 24, 25),
        ({"end": "2024-01-02T00:00:00", "limit": "2"}, 22, 23),
        ({"start": "2024-01-10", "limit": ""}, 216, 239),
    ],
)
async def test_a_range_takes_whole_candles(
    ada: Person, query: dict[str, str], first: int, last: int
) -> None:
    await upload(ada)

    candles = (await ada.get("/api/data/candles", params=SPAN | query)).json()["candles"]

    times = [candle["time"] for candle in candles]
    assert (times[0], times[-1]) == (FIRST_MS + first * HOUR_MS, FIRST_MS + last * HOUR_MS)
    assert len(times) == last - first + 1


@pytest.mark.parametrize(
    "query",
    [
        {"asset": "bitcoin"},
        {"timeframe": "7m"},
        {"start": "yesterday"},
        {"start": "2024-01-02", "end": "2024-01-01"},
        {"start": "9999-12-31"},
        {"limit": "5001"},
        {"limit": "0"},
        {"asset": "btc/\x00usdt"},
    ],
)
async def test_a_bad_query_is_refused(ada: Person, query: dict[str, str]) -> None:
    await upload(ada)

    error_of(await ada.get("/api/data/candles", params=SPAN | query), 422, "VALIDATION_ERROR")


async def test_indicators_are_warmed_up_and_null_before_their_time(ada: Person) -> None:
    series = walk(240)
    await upload(ada, series)
    query = SPAN | {"start": "2024-01-01", "limit": 200, "indicators": "sma_20,rsi_14"}

    data = (await ada.get("/api/data/indicators", params=query)).json()["data"]
    late = (await ada.get("/api/data/indicators", params=query | {"start": "2024-01-05"})).json()

    expected = talib.SMA(np.array(series.close), 20)
    assert [point["sma_20"] for point in data[:19]] == [None] * 19
    assert data[19]["sma_20"] == pytest.approx(expected[19])
    assert late["data"][0]["sma_20"] == pytest.approx(expected[96])
    assert set(data[0]) == {"time", "sma_20", "rsi_14"}


async def test_indicators_take_lists_bodies_and_formulas(ada: Person) -> None:
    await upload(ada)
    names = ["sma_20", "rsi_14"]

    repeated = await ada.get("/api/data/indicators", params=SPAN | {"indicators": names})
    posted = await ada.post("/api/data/indicators", SPAN | {"indicators": names})
    with_formula = await ada.post(
        "/api/data/indicators",
        SPAN
        | {
            "indicators": "sma_20",
            "custom_indicators": [{"name": "ratio", "formula": "close / sma_20"}],
        },
    )

    assert repeated.json() == posted.json()
    assert all(
        point["ratio"] is None or math.isfinite(point["ratio"])
        for point in with_formula.json()["data"]
    )


async def test_unknown_indicators_and_bad_formulas_are_refused(ada: Person) -> None:
    await upload(ada)
    formula = [{"name": "bad", "formula": "close +"}]

    unknown = await ada.get("/api/data/indicators", params=SPAN | {"indicators": "tea"})
    bad = await ada.post(
        "/api/data/indicators", SPAN | {"indicators": ["rsi"], "custom_indicators": formula}
    )

    where = error_of(unknown, 422, "VALIDATION_ERROR")["errors"][0]["loc"]
    assert where == ["query", "indicators", 0]
    place = error_of(bad, 422, "VALIDATION_ERROR")["errors"][0]["loc"]
    assert place == ["body", "custom_indicators", 0, "formula", 7]


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [*lines[:5], "x,1,1,1,1,1", *lines[5:]], 6),
        (lambda lines: [*lines[:4], lines[2], *lines[4:]], 5),
        (lambda lines: [lines[0].replace("close", "end"), *lines[1:]], None),
        (lambda lines: [lines[0]], None),
    ],
    ids=["no time", "a time twice", "no close", "no candle"],
)
async def test_a_bad_file_is_refused_with_its_line_and_nothing_of_it_is_stored(
    ada: Person, spoil: Callable[[list[str]], list[str]], line: int | None
) -> None:
    lines = spoil(csv(walk(20)).decode().splitlines())

    answer = await ada.http.post(
        "/api/data/candles/import",
        files={"file": ("candles.csv", "\n".join(lines).encode(), "text/csv")},
        data={"asset": "ABC/USDT", "timeframe": "1h"},
    )

    place = error_of(answer, 422, "VALIDATION_ERROR")["errors"][0]["loc"]
    assert place[:2] == ["body", "file"]
    assert line is None or place[2] == line
    assert "abc-usdt" not in assets(await ada.get("/api/data/assets"))


async def test_an_upload_may_be_larger_than_other_bodies_but_not_endless(ada: Person) -> None:
    padding = b"\n" * (2 << 20)
    files = {"file": ("candles.csv", csv(walk(5)) + padding, "text/csv")}
    large = await ada.http.post("/api/data/candles/import", files=files, data=SPAN)
    announced = {"Content-Length": str(MAX_CANDLE_UPLOAD_BYTES + 1)}
    endless = await ada.http.post("/api/data/candles/import", content=b"", headers=announced)

    assert large.status_code == 201, large.text
    error_of(endless, 413, "REQUEST_TOO_LARGE")


async def test_a_file_is_read_only_from_those_who_are_signed_in(world: World) -> None:
    read: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        read.append(b"candles")
        yield read[-1]

    async with world.http({"Authorization": "Bearer x.y.z"}) as stranger:
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await stranger.post("/api/data/candles/import", content=pieces(), headers=form)

    error_of(answer, 401, "UNAUTHORIZED")
    assert not read


async def test_one_file_is_imported_at_a_time(world: World, ada: Person) -> None:
    async with world.services.importing:
        waiting = asyncio.create_task(upload(ada))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done

    assert (await waiting)["message"] == "Candles imported"


async def test_presets_timeframes_and_catalogue_are_there(ada: Person) -> None:
    presets = (await ada.get("/api/data/presets")).json()
    timeframes = (await ada.get("/api/data/timeframes")).json()["timeframes"]
    catalogue = (await ada.get("/api/data/indicators/catalog")).json()

    bull = next(each for each in presets["date_presets"] if each["id"] == "bull")
    assert (bull["start_date"], bull["end_date"]) == ("2023-10-01", "2024-03-31")
    assert [each["ms"] for each in presets["playback_speeds"]] == [1000, 500, 200, 0]
    assert {"id": "1h", "name": "1 hour", "minutes": 60} in timeframes
    entries = [entry for group in catalogue.values() for entry in group]
    assert all({"id", "name", "values", "min_history", "params"} <= set(each) for each in entries)


def assets(answer: object) -> dict[str, bool]:
    found = answer.json()["assets"]  # type: ignore[attr-defined]
    return {asset["id"]: asset["available"] for asset in found}
