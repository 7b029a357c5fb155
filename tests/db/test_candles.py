"""Candles go in and come out exactly, quickly, and to those who may see them."""

import csv
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import psycopg
import pytest

from db.models.columns import AmountType, PercentType
from db.repositories.candles import CandleRepository, CandleSpan
from db.repositories.data_sets import DataSetRepository, SharedDataRepository
from tests.db.accounts import HOUR_MS, START, Account, a_series
from trading.candles import CandleSeries, Timeframe

HOUR = Timeframe.HOUR_1
START_MS = int(START.timestamp() * 1000)


def an_asset() -> str:
    return f"A{uuid4().hex[:12].upper()}/USDT"


def assert_same(left: CandleSeries, right: CandleSeries) -> None:
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


async def add_shared(account: Account, series: CandleSeries, asset: str, source: str = "import"):
    async with account.database.as_system() as session:
        return await SharedDataRepository(session).add(
            asset=asset, timeframe=HOUR, source=source, series=series
        )


async def add_upload(account: Account, series: CandleSeries, asset: str):
    async with account.database.for_user(account.id) as session:
        return await DataSetRepository(session).add_upload(
            user_id=account.id, asset=asset, timeframe=HOUR, series=series
        )


async def load(account: Account, data_set_id, span: CandleSpan | None = None) -> CandleSeries:
    async with account.database.for_user(account.id) as session:
        return await CandleRepository(session).load(data_set_id, span)


@pytest.mark.parametrize("add", [add_shared, add_upload])
async def test_candles_come_back_to_the_last_bit(account: Account, add):
    series = a_series(500)
    data_set, is_new = await add(account, series, an_asset())

    assert is_new
    assert (data_set.candle_count, data_set.gaps) == (500, 0)
    assert data_set.first_open_time == START
    assert data_set.content_sha256 == series.fingerprint()
    assert_same(await load(account, data_set.id), series)


async def test_extreme_prices_come_back_to_the_last_bit(account: Account):
    prices = np.array([5e-324, 1.1e-8, 0.1 + 0.2, 123_456.789_012_345_67, 1.7e308])
    series = CandleSeries(
        open_time=START_MS + HOUR_MS * np.arange(5),
        open=prices,
        high=prices,
        low=prices,
        close=prices,
        volume=np.zeros(5),
    )
    data_set, _ = await add_shared(account, series, an_asset())

    assert_same(await load(account, data_set.id), series)


async def test_spans_limits_and_ends(account: Account):
    series = a_series(100)
    data_set, _ = await add_shared(account, series, an_asset())
    at = START_MS + HOUR_MS * np.arange(100)

    for span, expected in (
        (CandleSpan(start_ms=int(at[10]), end_ms=int(at[20])), slice(10, 21)),
        (CandleSpan(limit=7), slice(0, 7)),
        (CandleSpan(limit=7, newest=True), slice(93, 100)),
        (CandleSpan(end_ms=int(at[50]) - 1, limit=5, newest=True), slice(45, 50)),
        (CandleSpan(start_ms=int(at[99]) + 1), slice(0, 0)),
        (CandleSpan(limit=0), slice(0, 0)),
    ):
        found = await load(account, data_set.id, span)
        np.testing.assert_array_equal(found.open_time, at[expected], err_msg=str(span))


async def test_a_window_comes_with_as_much_warm_up_as_there_is(account: Account):
    series = a_series(100)
    data_set, _ = await add_shared(account, series, an_asset())
    async with account.database.for_user(account.id) as session:
        repository = CandleRepository(session)
        for warm_up, found in ((20, 20), (50, 30), (0, 0)):
            window, before = await repository.load_window(
                data_set.id,
                start_ms=START_MS + 30 * HOUR_MS,
                end_ms=START_MS + 39 * HOUR_MS,
                warm_up=warm_up,
            )
            assert before == found
            assert_same(window, series.slice(30 - found, 40))


async def test_the_same_candles_again_are_the_same_set(account: Account, stranger: Account):
    series, asset = a_series(50), an_asset()
    shared, _ = await add_shared(account, series, asset)
    again, is_new = await add_shared(account, series, asset)
    uploaded, is_own = await add_upload(account, series, asset)
    theirs, is_theirs = await add_upload(stranger, series, asset)

    assert (again.id, is_new) == (shared.id, False)
    assert is_own
    assert is_theirs
    assert len({shared.id, uploaded.id, theirs.id}) == 3
    assert len(await load(account, shared.id)) == 50


async def test_own_uploads_come_first_then_imports_then_the_newest(
    account: Account, stranger: Account
):
    asset = an_asset()
    exchange, _ = await add_shared(account, a_series(50, seed=1), asset, "exchange:binance")
    older, _ = await add_shared(account, a_series(50, seed=2), asset)
    newer, _ = await add_shared(account, a_series(50, seed=3), asset)
    upload, _ = await add_upload(account, a_series(50, seed=4), asset)

    async def candidates(of: Account, **wanted: str) -> list[object]:
        async with of.database.for_user(of.id) as session:
            found = await DataSetRepository(session).candidates(asset, HOUR, **wanted)
            return [each.id for each in found]

    assert await candidates(account) == [upload.id, newer.id, older.id, exchange.id]
    assert await candidates(stranger) == [newer.id, older.id, exchange.id]
    assert await candidates(account, source="exchange:binance") == [exchange.id]


async def test_an_upload_is_seen_by_nobody_else(account: Account, stranger: Account):
    upload, _ = await add_upload(account, a_series(50), an_asset())

    assert len(await load(stranger, upload.id)) == 0
    async with stranger.database.for_user(stranger.id) as session:
        assert await DataSetRepository(session).get(upload.id) is None
        found = await DataSetRepository(session).available()
    assert upload.asset not in {each.asset for each in found}


async def test_what_is_available_is_told_with_its_span(account: Account):
    asset = an_asset()
    await add_shared(account, a_series(24), asset)
    await add_upload(account, a_series(72), asset)
    async with account.database.for_user(account.id) as session:
        found = await DataSetRepository(session).available()

    (mine,) = [each for each in found if each.asset == asset]
    assert (mine.timeframe, mine.first_open_time) == ("1h", START)
    assert mine.last_open_time == START + timedelta(hours=71)


@pytest.mark.parametrize(
    ("prices", "volume"),
    [
        ("1, 1, 0, 1", "1"),
        ("-1, 1, -1, 1", "1"),
        ("2, 1, 1, 1", "1"),
        ("1, 2, 1.5, 2", "1"),
        ("1, 'NaN', 1, 1", "1"),
        ("1, 'Infinity', 1, 1", "1"),
        ("1, 1, 1, 1", "-1"),
        ("1, 1, 1, 1", "'NaN'"),
    ],
)
def test_no_impossible_candle_is_stored(postgres_url: str, prices: str, volume: str):
    with psycopg.connect(postgres_url) as connection:
        data_set = uuid4()
        connection.execute(
            "INSERT INTO data_sets (id, asset, timeframe, source, content_sha256)"
            " VALUES (%s, 'X/Y', '1h', 'import', %s)",
            (data_set, data_set.hex),
        )
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(
                f"INSERT INTO candles VALUES ('{data_set}', now(), {prices}, {volume})".encode()
            )
        connection.rollback()


async def test_real_candles_are_imported_and_loaded(account: Account, candle_files: Path):
    series = read_csv(candle_files / "BTCUSDT_1h.csv")
    asset = an_asset()

    data_set, _ = await add_shared(account, series, asset)
    loaded = await load(account, data_set.id)

    assert len(series) == 37_660
    assert_same(loaded, series)


def read_csv(path: Path) -> CandleSeries:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["Date"]).astimezone(UTC) for row in rows]
    return CandleSeries(
        open_time=np.array([int(t.timestamp()) * 1000 for t in times]),
        **{
            name.lower(): np.array([float(row[name]) for row in rows])
            for name in ("Open", "High", "Low", "Close", "Volume")
        },
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_amount_is_finite(value: float):
    with pytest.raises(ValueError, match="amount"):
        AmountType().process_bind_param(value, None)  # type: ignore[arg-type]


def test_a_percentage_beyond_its_column_is_clamped_and_nan_refused():
    bind = PercentType().process_bind_param
    assert float(bind(1e12, None) or 0) == 999_999.999999  # type: ignore[arg-type]
    assert float(bind(-math.inf, None) or 0) == -999_999.999999  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        bind(math.nan, None)  # type: ignore[arg-type]
