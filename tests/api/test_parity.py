"""Parity over REST: the comparison, and where there is none."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from temporalio.client import Client as TemporalClient

from api.schemas.parity import DIFFERENCES_SHOWN, ParityOut
from events.payloads import result_id
from settings import ApiSettings
from tests.api.world import Person, World, error_of
from tests.laboratory import Laboratory, Plan
from trading.parity import Difference, Parity, TimingDrift

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def finished(
    world: World, ada: Person, settings: ApiSettings, temporal_client: TemporalClient
) -> AsyncIterator[UUID]:
    """A backtest of Ada's that has ended, run without Temporal."""
    user = (await ada.get("/api/users/me")).json()["user"]
    async with httpx.AsyncClient() as http:
        laboratory = Laboratory(
            database=world.services.database,
            redis=world.services.redis,
            client=temporal_client,
            task_queue=f"nobody-{uuid4().hex}",
            openrouter_url=settings.openrouter_base_url,
            http=http,
            user_id=UUID(user["id"]),
        )
        yield await laboratory.plain(Plan(model="simulated/flip", candles=12))


def path_of(session_id: UUID) -> str:
    return f"/api/results/{result_id(session_id)}/parity"


async def change(postgres_url: str, statement: str, session_id: UUID) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        changed = await connection.execute(statement, {"id": session_id})
        assert changed.rowcount > 0


async def test_a_result_is_compared_with_its_second_fold(ada: Person, finished: UUID) -> None:
    answer = await ada.get(path_of(finished))
    assert answer.status_code == 200, answer.text
    parity = answer.json()["parity"]
    result = (await ada.get(f"/api/results/{result_id(finished)}")).json()["result"]
    equity = result["ending_capital"]
    assert parity == {
        "equal": True,
        "candles": 12,
        "decisions": 12,
        "sightings": 0,
        "trades_recorded": result["total_trades"],
        "trades_refolded": result["total_trades"],
        "differences": [],
        "differences_total": 0,
        "ending_equity": {"recorded": equity, "refolded": equity},
        "max_equity_difference": 0.0,
        "timing_drift": {"entries": 0, "mean_pct": None, "worst_pct": None},
    }


async def test_a_difference_is_told_with_both_values(
    ada: Person, finished: UUID, postgres_url: str
) -> None:
    exits = "UPDATE trades SET exit_type = 'manual' WHERE session_id = %(id)s AND trade_number = 1"
    await change(postgres_url, exits, finished)
    parity = (await ada.get(path_of(finished))).json()["parity"]
    assert (parity["equal"], parity["differences_total"]) == (False, 1)
    assert parity["differences"] == [
        {
            "trade_number": 1,
            "candle": None,
            "field": "exit_type",
            "recorded": "manual",
            "refolded": "signal",
        }
    ]


async def test_another_users_parity_and_that_of_no_result_are_not_found(
    ada: Person, bob: Person, finished: UUID
) -> None:
    error_of(await bob.get(path_of(finished)), 404, "RESULT_NOT_FOUND")
    error_of(await ada.get(f"/api/results/{NOBODY}/parity"), 404, "RESULT_NOT_FOUND")


async def test_a_test_whose_candles_were_deleted_says_so(
    ada: Person, finished: UUID, postgres_url: str
) -> None:
    deleted = (
        "DELETE FROM data_sets USING trading_sessions s"
        " WHERE s.id = %(id)s AND data_sets.id = s.data_set_id"
    )
    await change(postgres_url, deleted, finished)
    body = error_of(await ada.get(path_of(finished)), 409, "CANDLES_DELETED")
    assert body["detail"] == "The candles of this test have been deleted."


def test_of_many_differences_so_many_are_shown_and_all_are_counted() -> None:
    differences = tuple(
        Difference(field="fees", recorded=1.0, refolded=2.0, trade_number=number)
        for number in range(DIFFERENCES_SHOWN + 5)
    )
    shown = ParityOut.of(
        Parity(
            candles=1,
            decisions=1,
            sightings=0,
            trades_recorded=1,
            trades_refolded=1,
            differences=differences,
            recorded_equity=1.0,
            refolded_equity=1.0,
            max_equity_difference=0.0,
            drift=TimingDrift(entries=2, mean=0.001, worst=0.002),
        )
    )
    assert (len(shown.differences), shown.differences_total) == (100, 105)
    assert (shown.timing_drift.mean_pct, shown.timing_drift.worst_pct) == (0.1, 0.2)
