"""What tests recorded folds to what they were, and whatever is changed afterwards is found."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from typer.testing import CliRunner, Result

from certificates.bundle import SignedDocument, bundle, material_of, trace_of
from certificates.composition import compose
from certificates.verification import verify_bundle
from cli import app
from db.recordings import load_recording, told_decisions
from db.repositories.sessions import SessionRepository
from events.payloads import result_id
from integrations.exchanges.exchange_market import open_market
from local.simulators import exchange_server
from local.simulators.exchange_clock import ExchangeClock
from tests.certificates.samples import circumstances
from tests.issuing import KEY
from tests.laboratory import Laboratory, Plan
from tests.loopback import serve_app
from trading.candles import Timeframe
from trading.parity import Difference, Parity, check_parity

HOUR = Timeframe.HOUR_1.milliseconds
# Not the asset of other tests: a live data set is there for everybody's backtests.
ASSET = "LINK/USDT"


async def parity_of(laboratory: Laboratory, session_id: UUID) -> Parity:
    async with laboratory.database.for_user(laboratory.user_id) as session:
        record = await SessionRepository(session).get(session_id)
        assert record is not None
        return check_parity(await load_recording(session, record))


async def check_bundle(laboratory: Laboratory, session_id: UUID) -> None:
    """What a certificate would carry of a test verifies, with all that was seen of its candles."""
    async with laboratory.database.for_user(laboratory.user_id) as session:
        record = await SessionRepository(session).get(session_id)
        assert record is not None
        recording = await load_recording(session, record)
    material = material_of(
        recording, lambda: told_decisions(laboratory.database, laboratory.user_id, session_id)
    )
    document = compose(circumstances(recording), recording, await trace_of(material))
    signed = SignedDocument.sign(document, KEY)
    content = io.BytesIO(b"".join([piece async for piece in bundle(signed, material)]))
    assert verify_bundle(content, [KEY.public_key]).problems == ()
    assert document.trace.sightings.lines == len(recording.sightings)


async def tamper(postgres_url: str, statement: str, session_id: UUID) -> dict[str, Any]:
    """Change a row as a superuser; return it as it was changed."""
    async with await psycopg.AsyncConnection.connect(
        postgres_url, row_factory=dict_row
    ) as connection:
        changed = await connection.execute(statement, {"id": session_id})
        assert changed.rowcount == 1
        row = await changed.fetchone()
    assert row is not None
    return row


@pytest.fixture
async def flipped(laboratory: Laboratory) -> UUID:
    """A backtest with a trade every other candle."""
    return await laboratory.plain(Plan(model="simulated/flip", candles=12))


async def test_a_backtest_is_the_same_when_it_is_folded_again(
    laboratory: Laboratory, flipped: UUID
):
    parity = await parity_of(laboratory, flipped)
    assert parity.is_equal, parity.differences
    assert (parity.candles, parity.sightings) == (12, 0)
    assert parity.trades_recorded == parity.trades_refolded >= 5
    assert parity.decisions == len(await laboratory.decisions(flipped))


async def test_a_changed_trade_is_found_and_named(
    laboratory: Laboratory, flipped: UUID, postgres_url: str
):
    row = await tamper(
        postgres_url,
        "UPDATE trades SET exit_price = exit_price + 0.01 WHERE session_id = %(id)s"
        " AND trade_number = 2 RETURNING exit_price::float8 AS exit_price",
        flipped,
    )
    (difference,) = (await parity_of(laboratory, flipped)).differences
    assert (difference.trade_number, difference.field) == (2, "exit_price")
    assert difference.recorded == row["exit_price"] != difference.refolded


async def test_a_changed_decision_is_found_by_the_trade_that_came_of_it(
    laboratory: Laboratory, flipped: UUID, postgres_url: str
):
    row = await tamper(
        postgres_url,
        "UPDATE decisions SET decision = CASE decision WHEN 'long' THEN 'short' ELSE 'long' END"
        " FROM trades t WHERE t.session_id = %(id)s AND t.trade_number = 3"
        " AND decisions.session_id = t.session_id AND candle_number = t.decided_candle"
        " RETURNING decision, t.type, t.entry_candle",
        flipped,
    )
    differences = (await parity_of(laboratory, flipped)).differences
    assert differences[0] == Difference(
        trade_number=3, field="type", recorded=row["type"], refolded=row["decision"]
    )
    points = [each.candle for each in differences if each.field == "equity"]
    assert points == [row["entry_candle"]]


@pytest.mark.parametrize("column", ["low", "volume"])
async def test_a_changed_candle_is_found_and_named(
    laboratory: Laboratory, flipped: UUID, postgres_url: str, column: str
):
    row = await tamper(
        postgres_url,
        f"UPDATE candles SET {column} = {column} * 0.9999 FROM steps p, trading_sessions s"
        " WHERE s.id = %(id)s AND p.session_id = s.id AND p.phase = 'step'"
        " AND p.candle_number = 7 AND candles.data_set_id = s.data_set_id"
        f" AND candles.open_time = p.open_time RETURNING candles.{column}::float8 AS changed",
        flipped,
    )
    first = (await parity_of(laboratory, flipped)).differences[0]
    assert (first.candle, first.field, first.refolded) == (7, column, row["changed"])


@pytest.fixture
async def live(laboratory: Laboratory) -> AsyncIterator[Laboratory]:
    """A laboratory at an exchange where an hour takes 0.8 s."""
    clock = ExchangeClock(speed=HOUR / 800)
    clock.set(now_ms=1_700_000_000_000 // HOUR * HOUR)
    with serve_app(exchange_server.create_app(clock)) as url:
        laboratory.market = market = open_market("simulated", base_url=url)
        await market.open()
        yield laboratory
        await market.close()


async def stop(laboratory: Laboratory, session_id: UUID, *, closes: bool = True) -> None:
    await laboratory.temporal.signal_stop(session_id, "a-stop", closes, "forward")
    await laboratory.ended(session_id, type="forward")


async def ended_early(laboratory: Laboratory, session_id: UUID) -> int:
    """How many trades a minute of a forming candle has ended."""
    rows = await laboratory.rows(
        "SELECT id FROM trades WHERE session_id = :id AND exit_candle IS NOT NULL"
        " AND jsonb_typeof(sighting->'minute') = 'object'",
        session_id,
    )
    return len(rows)


async def test_a_forward_test_with_exits_between_closes_is_the_backtest_of_its_recording(
    live: Laboratory,
):
    async with live.worker():
        session_id = await live.started(Plan(type="forward", asset=ASSET, model="simulated/scalp"))
        async with asyncio.timeout(30):
            while not await ended_early(live, session_id):
                await asyncio.sleep(0.05)
        await stop(live, session_id)

    parity = await parity_of(live, session_id)
    assert parity.is_equal, parity.differences
    assert parity.sightings >= 1
    assert parity.candles == (await live.session_row(session_id))["cursor"] > 2
    assert parity.drift.entries >= 1
    await check_bundle(live, session_id)


@pytest.mark.parametrize("closes", [True, False])
async def test_a_stop_within_the_candle_of_the_entry_is_folded_as_it_was(
    live: Laboratory, closes: bool
):
    holding = Plan(type="forward", asset=ASSET, model="simulated/always-long")
    async with live.worker():
        session_id = await live.started(holding)
        await live.reached(session_id, lambda row: row["open_position"] is not None)
        await stop(live, session_id, closes=closes)

    (trade,) = await live.trades(session_id)
    # The market may reach a level before the stop does.
    assert trade["exit_type"] in {"manual" if closes else None, "stop_loss", "take_profit"}
    parity = await parity_of(live, session_id)
    assert parity.is_equal, parity.differences
    assert parity.trades_recorded == (trade["exit_type"] is not None)
    await check_bundle(live, session_id)


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["parity", *arguments])


@pytest.fixture
def at_hand(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)


@pytest.mark.usefixtures("at_hand")
async def test_the_command_compares_by_the_id_of_session_or_result(flipped: UUID):
    for given in (flipped, result_id(flipped)):
        told = await asyncio.to_thread(compare, str(given))
        assert told.exit_code == 0, told.output
        assert "BTC/USDT 1h" in told.stdout
        assert "Equal: every trade" in told.stdout


@pytest.mark.usefixtures("at_hand")
async def test_the_command_says_what_differs_and_exits_with_1(flipped: UUID, postgres_url: str):
    await tamper(
        postgres_url,
        "UPDATE trades SET fees = 1 WHERE session_id = %(id)s AND trade_number = 2 RETURNING id",
        flipped,
    )
    told = await asyncio.to_thread(compare, str(flipped))
    assert told.exit_code == 1
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("trade 2")]
    assert line.split()[:4] == ["trade", "2", "fees", "1.0"]
    assert "Not equal: 1 difference." in told.stdout


@pytest.mark.usefixtures("at_hand")
async def test_the_command_says_in_a_sentence_what_it_cannot_compare(
    laboratory: Laboratory, flipped: UUID, postgres_url: str
):
    waiting = await laboratory.add_session(Plan())
    forgotten = "UPDATE trading_sessions SET data_set_id = NULL WHERE id = %(id)s RETURNING id"
    await tamper(postgres_url, forgotten, flipped)
    for given, reason in {
        "mine": "not the id",
        str(UUID(int=7)): "no test",
        str(waiting): "is initializing",
        str(flipped): "have been deleted",
    }.items():
        told = await asyncio.to_thread(compare, given)
        assert told.exit_code == 1
        assert reason in told.stderr
        assert len(told.stderr.splitlines()) == 1
