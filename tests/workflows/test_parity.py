"""What tests recorded folds to what they were, and whatever is changed afterwards is found."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from typer.testing import CliRunner, Result

from cli import app
from db.recordings import load_recording
from db.repositories.sessions import SessionRepository
from events.payloads import result_id
from tests.laboratory import Laboratory, Plan
from trading.parity import Difference, Parity, check_parity


async def parity_of(laboratory: Laboratory, session_id: UUID) -> Parity:
    async with laboratory.database.for_user(laboratory.user_id) as session:
        record = await SessionRepository(session).get(session_id)
        assert record is not None
        return check_parity(await load_recording(session, record))


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
