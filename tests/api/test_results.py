"""Results over REST: lists, figures, trades, reasoning, and files to take away."""

import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from uuid import UUID, uuid4

import httpx
import numpy as np
import psutil
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from temporalio.client import Client as TemporalClient

from activities.measuring import benchmark_points, equity_points
from activities.step_rows import STATE
from api import result_files
from api.result_files import ROWS_PER_PAGE
from db.models import Decision, SessionRecord, Trade
from db.recordings import recorded_decision, trade_of
from db.repositories.finished_sessions import FinishedSessionRepository
from db.repositories.steps import StepRepository
from events.durations import display_duration
from events.payloads import result_id
from settings import ApiSettings
from tests.api.sockets import Address
from tests.api.world import Person, World, account_of, error_of
from tests.db.accounts import HOUR_MS, Account, a_decision, a_trade, add_test, store
from tests.laboratory import WARM_UP, Laboratory, Plan, default_rules, walk
from tests.loopback import eventually
from trading.metrics import buy_and_hold, compute_metrics
from trading.rules import Intrabar
from trading.simulation import replay

NOBODY = "00000000-0000-7000-8000-000000000000"
EVIL = "=HYPERLINK(\"http://evil.example\"; 'win')"


@pytest.fixture
async def account(world: World, ada: Person) -> Account:
    return await account_of(world, ada)


@pytest.fixture
async def tested(account: Account) -> SessionRecord:
    """A finished test without trades, decisions or candles."""
    return await add_test(account, await account.add_agent())


@pytest.fixture
async def laboratory(
    world: World, account: Account, settings: ApiSettings, temporal_client: TemporalClient
) -> AsyncIterator[Laboratory]:
    """Where a backtest is really run, of Ada's."""
    async with httpx.AsyncClient() as http:
        yield Laboratory(
            database=world.services.database,
            redis=world.services.redis,
            client=temporal_client,
            task_queue=f"nobody-{uuid4().hex}",
            openrouter_url=settings.openrouter_base_url,
            http=http,
            user_id=account.id,
        )


@pytest.fixture
async def ran(laboratory: Laboratory) -> UUID:
    """30 candles, with trades."""
    return await laboratory.plain(Plan(model="simulated/flip", candles=30))


def path_of(session_id: UUID, of: str = "") -> str:
    return f"/api/results/{result_id(session_id)}{of}"


# Lists and figures


async def test_each_filter_of_the_list_in_either_vocabulary(ada: Person, account: Account) -> None:
    alpha, beta = await account.add_agent("Alpha"), await account.add_agent("Beta_1")
    await add_test(account, alpha, total_pnl_pct=5.0)
    await add_test(account, alpha, total_pnl_pct=-5.0, asset="ETH/USDT", mode="omni")
    await add_test(account, beta, total_pnl_pct=0.0, type="forward")
    await add_test(account, beta, total_pnl_pct=1.0, total_trades=0)

    async def found(query: str) -> list[float]:
        answer = await ada.get(f"/api/results?{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["pagination"]["total"] >= len(answer.json()["results"])
        return sorted(each["total_pnl_pct"] for each in answer.json()["results"])

    assert await found("type=all&result=all") == [-5.0, 0.0, 1.0, 5.0]
    assert await found("result=profitable") == await found("profitable=true") == [0.0, 5.0]
    assert await found("result=loss") == await found("profitable=false") == [-5.0, 1.0]
    assert await found("type=forward") == [0.0]
    assert await found(f"agent_id={alpha.id}&type=backtest") == [-5.0, 5.0]
    assert await found("asset=eth-usdt") == await found("asset=ETH/USDT") == [-5.0]
    assert await found("search=ETH") == await found("search=eth-usdt") == [-5.0]
    assert await found("mode=omni") == [-5.0]
    assert await found("search=a_1&asset=&mode=") == [0.0, 1.0]
    for since, until in (("from_date", "to_date"), ("date_from", "date_to")):
        assert len(await found(f"{since}=2020-01-01&{until}=2199-01-01")) == 4
        assert await found(f"{since}=2198-01-01") == await found(f"{until}=2020-01-01") == []
    assert len(await found("limit=3")) == 3
    assert len(await found("limit=3&page=2")) == 1
    error_of(await ada.get("/api/results?limit=51"), 422, "VALIDATION_ERROR")
    error_of(await ada.get("/api/results?from_date=soon"), 422, "VALIDATION_ERROR")


async def test_figures_of_all_results(ada: Person, bob: Person, account: Account) -> None:
    nothing = {"count": 0, "profitable": 0}
    assert (await ada.get("/api/results/stats")).json()["stats"] == {
        "total_tests": 0,
        "profitable": 0,
        "profitable_pct": 0.0,
        "best_result": 0.0,
        "worst_result": 0.0,
        "avg_pnl": 0.0,
        "by_type": {"backtest": nothing, "forward": nothing},
    }
    agent = await account.add_agent()
    for pnl, type_ in ((6.0, "backtest"), (-3.0, "backtest"), (-9.0, "forward")):
        await add_test(account, agent, total_pnl_pct=pnl, type=type_)

    stats = (await ada.get("/api/results/stats")).json()["stats"]

    assert stats.pop("profitable_pct") == pytest.approx(100 / 3)
    assert stats == {
        "total_tests": 3,
        "profitable": 1,
        "best_result": 6.0,
        "worst_result": -9.0,
        "avg_pnl": -2.0,
        "by_type": {
            "backtest": {"count": 2, "profitable": 1},
            "forward": {"count": 1, "profitable": 0},
        },
    }
    assert (await bob.get("/api/results/stats")).json()["stats"]["total_tests"] == 0


async def test_trades_are_filtered_and_summed_up(
    ada: Person, account: Account, tested: SessionRecord
) -> None:
    rows = [
        a_trade(tested.id, 1, 10.0, entry_reasoning="With the trend"),
        a_trade(tested.id, 2, -4.0, type="short", exit_reasoning="Stopped"),
        a_trade(tested.id, 3, None),
    ]
    await store(account, Trade, *rows)

    async def numbers(query: str) -> list[int]:
        answer = (await ada.get(path_of(tested.id, f"/trades?{query}"))).json()
        return [trade["trade_number"] for trade in answer["trades"]]

    assert await numbers("direction=short") == await numbers("outcome=loss") == [2]
    assert await numbers("outcome=win") == await numbers("search=TREND") == [1]
    assert await numbers("direction=&outcome=&page=2&limit=2") == [3]
    answer = (await ada.get(path_of(tested.id, "/trades"))).json()
    assert answer["summary"] == {
        "total": 2,
        "wins": 1,
        "losses": 1,
        "avg_win": 10.0,
        "avg_loss": -4.0,
    }
    for query in ("limit=501", "direction=up", "outcome=draw"):
        error_of(await ada.get(path_of(tested.id, f"/trades?{query}")), 422, "VALIDATION_ERROR")


async def test_reasoning_is_filtered_in_either_vocabulary(
    ada: Person, account: Account, tested: SessionRecord
) -> None:
    kinds = ["hold", "long", "hold", "close"]
    await store(
        account, Decision, *(a_decision(tested.id, i, decision=k) for i, k in enumerate(kinds))
    )

    async def candles(query: str) -> list[int]:
        answer = (await ada.get(path_of(tested.id, f"/reasoning?{query}"))).json()
        assert answer["reasoning"] == answer["thoughts"]
        assert answer["total_entries"] == answer["pagination"]["total"]
        return [each["candle_number"] for each in answer["thoughts"]]

    assert await candles("candle_start=1&candle_end=2") == [1, 2]
    assert await candles("candle_from=0&candle_to=0") == [0]
    assert await candles("decisions_only=true") == [1, 3]
    assert await candles("decision=close") == [3]
    assert await candles("limit=1000&page=1") == [0, 1, 2, 3]
    for query in ("limit=1001", "candle_start=-1", "decision=maybe"):
        error_of(await ada.get(path_of(tested.id, f"/reasoning?{query}")), 422, "VALIDATION_ERROR")


# One result


@pytest.fixture
async def scalped(laboratory: Laboratory) -> UUID:
    """40 candles, with levels so near that some candles reach both."""
    return await laboratory.plain(Plan(model="simulated/scalp", candles=40))


async def test_a_result_has_every_metric_of_its_curve_and_trades(
    ada: Person, laboratory: Laboratory, ran: UUID
) -> None:
    shown = (await ada.get(path_of(ran))).json()["result"]
    curve = (await ada.get(path_of(ran, "/export?include=equity"))).json()["equity"]
    async with laboratory.database.for_user(laboratory.user_id) as session:
        trades = [trade_of(row) for row in await FinishedSessionRepository(session).trades(ran)]
        state = STATE.validate_json(await StepRepository(session).latest_state(ran) or "")
    metrics = compute_metrics(
        np.array([point["time"] for point in curve]) - HOUR_MS,
        np.array([point["value"] for point in curve]),
        trades,
        exposed_candles=state.exposed_candles,
        starting_capital=shown["starting_capital"],
        timeframe_ms=HOUR_MS,
        benchmark=np.array([point["value"] for point in shown["buy_and_hold_curve"]]),
    )

    figures = asdict(metrics)
    held = display_duration(figures.pop("average_holding_ms") / 1000)
    assert shown["avg_holding_time_display"] == held
    assert SHOWN_AS.keys() == figures.keys()
    for name, (shown_as, factor) in SHOWN_AS.items():
        assert figures[name] is not None, name
        assert shown[shown_as] == pytest.approx(figures[name] * factor, rel=1e-6), name


async def test_a_result_lists_what_it_cost_and_what_went_wrong(ada: Person, scalped: UUID) -> None:
    shown = (await ada.get(path_of(scalped))).json()["result"]
    trades = (await ada.get(path_of(scalped, "/trades"))).json()["trades"]
    thoughts = (await ada.get(path_of(scalped, "/reasoning"))).json()["thoughts"]

    costs = shown["costs"]
    assert costs["fees"] == pytest.approx(sum(trade["fees"] for trade in trades))
    assert costs["slippage"] > 0
    net = costs["gross_pnl"] - costs["fees"] - costs["slippage"]
    assert shown["total_pnl_amount"] == pytest.approx(net)
    assert costs["model_usd"] == pytest.approx(sum(each["cost_usd"] for each in thoughts))
    assert shown["tokens"] == sum(each["tokens"] for each in thoughts) > 0
    changed = sum(1 for each in thoughts if each["overrides"])
    assert shown["config"]["overridden_decisions"] == changed
    for count in ("missed_candles", "paused_candles", "late_decisions", "invalid_replies", "gaps"):
        assert shown[count] == 0


async def test_ambiguous_candles_come_with_the_other_outcome(
    ada: Person, laboratory: Laboratory, ran: UUID, scalped: UUID
) -> None:
    shown = (await ada.get(path_of(scalped))).json()["result"]
    trades = (await ada.get(path_of(scalped, "/trades"))).json()["trades"]
    plain = (await ada.get(path_of(ran))).json()["result"]

    async with laboratory.database.for_user(laboratory.user_id) as session:
        rows = await FinishedSessionRepository(session).decisions(scalped)
    decisions = {row.candle_number: recorded_decision(row) for row in rows}
    candles = walk(WARM_UP + 40).slice(WARM_UP, WARM_UP + 40)
    kinder = replay(candles, decisions, default_rules(intrabar=Intrabar.OPTIMISTIC))
    assert shown["ambiguous_candles"] == sum(trade["ambiguous"] for trade in trades) > 0
    assert shown["optimistic_pnl_pct"] == pytest.approx(kinder.state.equity / 100 - 100, abs=1e-6)
    assert shown["optimistic_pnl_pct"] > shown["total_pnl_pct"]
    assert (plain["ambiguous_candles"], plain["optimistic_pnl_pct"]) == (0, None)


async def test_the_detail_of_a_very_long_test_is_small(ada: Person, account: Account) -> None:
    """No figure of 50,000 candles is a round one."""
    candles = walk(50_000)
    times, held = candles.open_time + HOUR_MS, buy_and_hold(candles, default_rules())
    curves = {
        "equity_curve": equity_points(times, held[::-1], 10_000.0),
        "buy_and_hold_curve": benchmark_points(times, held),
    }
    long = await add_test(account, await account.add_agent(), **curves)

    answer = await ada.get(path_of(long.id))

    shown = answer.json()["result"]
    assert (len(shown["equity_curve"]), len(shown["buy_and_hold_curve"])) > (900, 900)
    assert len(answer.content) < 300_000


# Metrics as a result shows them: under which name, in which unit.
SHOWN_AS = {
    "total_return": ("total_return_pct", 100),
    "cagr": ("cagr_pct", 100),
    "max_drawdown": ("max_drawdown_pct", 100),
    "longest_drawdown_ms": ("longest_drawdown_seconds", 1 / 1000),
    "sharpe": ("sharpe_ratio", 1),
    "sortino": ("sortino_ratio", 1),
    "calmar": ("calmar_ratio", 1),
    "volatility": ("volatility_pct", 100),
    "probabilistic_sharpe": ("probabilistic_sharpe_pct", 100),
    "win_rate": ("win_rate", 100),
    "profit_factor": ("profit_factor", 1),
    "expectancy": ("expectancy", 1),
    "sqn": ("sqn", 1),
    "kelly": ("kelly_pct", 100),
    "best_trade_pnl": ("best_trade_pnl", 1),
    "worst_trade_pnl": ("worst_trade_pnl", 1),
    "average_trade_pnl": ("avg_trade_pnl", 1),
    "exposure": ("exposure_pct", 100),
    "buy_and_hold_return": ("buy_and_hold_return_pct", 100),
    "excess_return": ("excess_return_pct", 100),
    "daily_returns": ("daily_returns", 1),
    "low_sample": ("low_sample", 1),
}


# Files


async def test_a_json_file_has_the_whole_result(ada: Person, ran: UUID) -> None:
    answer = await ada.get(path_of(ran, "/export"))

    assert answer.headers["content-type"] == "application/json"
    file = answer.json()
    assert list(file) == ["result", "trades", "reasoning", "equity"]
    result = (await ada.get(path_of(ran))).json()["result"]
    trades = (await ada.get(path_of(ran, "/trades"))).json()["trades"]
    thoughts = (await ada.get(path_of(ran, "/reasoning"))).json()["thoughts"]
    for thought in thoughts:
        del thought["indicator_values"]
    assert trades
    assert file["result"] == result
    assert file["trades"] == trades
    assert file["reasoning"] == thoughts
    curve = [{name: point[name] for name in ("time", "value")} for point in file["equity"]]
    assert curve == [
        {name: point[name] for name in ("time", "value")} for point in result["equity_curve"]
    ]
    assert [point["drawdown"] for point in file["equity"]] == pytest.approx(
        [point["drawdown"] for point in result["equity_curve"]]
    )
    assert file["equity"][-1]["value"] == result["ending_capital"]


async def test_several_parts_as_csv_come_zipped(ada: Person, ran: UUID) -> None:
    answer = await ada.get(path_of(ran, "/export?format=csv"))

    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        files = {name: rows_of(archive.read(name)) for name in archive.namelist()}
    assert list(files) == ["trades.csv", "reasoning.csv", "equity.csv"]
    trades = (await ada.get(path_of(ran, "/trades"))).json()["trades"]
    assert [float(row["pnl_amount"]) for row in files["trades.csv"]] == [
        trade["pnl_amount"] for trade in trades
    ]
    assert len(files["reasoning.csv"]) == len(files["equity.csv"]) == 30
    assert set(json.loads(files["reasoning.csv"][0]["indicators"])) == {"rsi_14", "ema_20"}


async def test_one_part_is_one_file(ada: Person, ran: UUID) -> None:
    answer = await ada.get(path_of(ran, "/export?format=csv&include=equity"))
    pair = await ada.get(path_of(ran, "/export?include=equity,trades&include=equity"))
    everything = await ada.get(path_of(ran, "/export?include="))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert list(rows_of(answer.content)[0]) == ["candle_number", "time", "value", "drawdown"]
    assert list(pair.json()) == ["result", "trades", "equity"]
    assert list(everything.json()) == ["result", "trades", "reasoning", "equity"]
    for query in ("format=xlsx", "include=secrets", "include=trades,secrets"):
        error_of(await ada.get(path_of(ran, f"/export?{query}")), 422, "VALIDATION_ERROR")


async def test_no_text_of_a_model_becomes_a_formula_or_a_header(
    ada: Person, account: Account
) -> None:
    agent = await account.add_agent('../x"\r\nSet-Cookie: a=b; ünï')
    tested = await add_test(account, agent)
    await store(account, Trade, a_trade(tested.id, 1, -4.5, entry_reasoning=EVIL))

    answer = await ada.get(path_of(tested.id, "/export?format=csv&include=trades"))

    (row,) = rows_of(answer.content)
    assert row["entry_reasoning"] == f"'{EVIL}"
    assert row["pnl_amount"] == "-4.5"
    name = f"alphalab-x-set-cookie-a-b-n-btc-usdt-1h-{result_id(tested.id).hex[:8]}-trades.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("rows", [0, 1, ROWS_PER_PAGE, ROWS_PER_PAGE + 1])
async def test_no_row_is_lost_between_two_pages(
    ada: Person, account: Account, tested: SessionRecord, rows: int
) -> None:
    await store(account, Decision, *(a_decision(tested.id, i) for i in range(rows)))

    answer = await ada.get(path_of(tested.id, "/export?include=reasoning"))
    table = await ada.get(path_of(tested.id, "/export?include=reasoning&format=csv"))

    assert [each["candle_number"] for each in answer.json()["reasoning"]] == list(range(rows))
    assert len(rows_of(table.content)) == rows
    assert table.content.startswith(b"id,candle_number,timestamp,")


@pytest.mark.parametrize("rows_per_page", [7, 10, 30])
async def test_the_curve_is_the_same_however_long_its_pages_are(
    ada: Person, ran: UUID, monkeypatch: pytest.MonkeyPatch, rows_per_page: int
) -> None:
    whole = (await ada.get(path_of(ran, "/export?include=equity"))).json()["equity"]
    monkeypatch.setattr(result_files, "EQUITY_ROWS_PER_PAGE", rows_per_page)
    paged = (await ada.get(path_of(ran, "/export?include=equity"))).json()["equity"]

    assert len(whole) == 30
    assert paged == whole


async def test_another_users_result_has_no_file(
    ada: Person, bob: Person, tested: SessionRecord
) -> None:
    error_of(await bob.get(path_of(tested.id, "/export")), 404, "RESULT_NOT_FOUND")
    error_of(await ada.get(f"/api/results/{NOBODY}/export"), 404, "RESULT_NOT_FOUND")


MANY_DECISIONS = text("""
    INSERT INTO decisions (id, session_id, candle_number, timestamp, candle_data,
        indicator_values, reasoning, decision, prompt_hash, model_requested)
    SELECT gen_random_uuid(), :id, i, now(), '{"close": 1.5}', '{"rsi_14": 50.5}',
        repeat(md5(i::text), 125), 'hold', 'h', 'simulated/trend'
    FROM generate_series(0, :count - 1) AS i
""")


async def test_a_long_file_is_never_in_memory_as_a_whole(
    world: World, ada: Person, account: Account, tested: SessionRecord, address: Address
) -> None:
    count, megabyte = 6_000, 1 << 20
    async with account.database.for_user(account.id) as session:
        await session.execute(MANY_DECISIONS, {"id": tested.id, "count": count})
    process = psutil.Process()

    async def download(query: str) -> tuple[int, int]:
        """The size of the file, and by how much the process has grown at most."""
        before, size, most = process.memory_info().rss, 0, 0
        url = f"http://127.0.0.1:{address.port}{path_of(tested.id, '/export')}?{query}"
        headers = {"Authorization": f"Bearer {ada.token}"}
        async with httpx.AsyncClient(headers=headers) as http, http.stream("GET", url) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                size += len(piece)
                most = max(most, process.memory_info().rss - before)
        return size, most

    await download("format=csv&include=trades,reasoning")
    for query in ("include=reasoning", "format=csv&include=reasoning"):
        size, growth = await download(query)
        assert size > 20 * megabyte
        assert growth < 12 * megabyte


async def test_a_download_that_is_broken_off_is_no_failure(
    ada: Person,
    account: Account,
    tested: SessionRecord,
    address: Address,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with account.database.for_user(account.id) as session:
        await session.execute(MANY_DECISIONS, {"id": tested.id, "count": 3_000})
    url = f"http://127.0.0.1:{address.port}{path_of(tested.id, '/export')}"
    headers = {"Authorization": f"Bearer {ada.token}"}

    async def is_over() -> bool:
        return not address.server.server_state.tasks

    with capture_logs() as logged:
        for query in ("format=json", "format=csv", "format=csv&include=reasoning"):
            async with (
                httpx.AsyncClient(headers=headers) as http,
                http.stream("GET", f"{url}?{query}") as answer,
            ):
                await anext(answer.aiter_raw())
            await eventually(is_over)

    assert [each["event"] for each in logged] == ["request"] * 3
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []
    assert (await ada.get(path_of(tested.id))).status_code == 200


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
