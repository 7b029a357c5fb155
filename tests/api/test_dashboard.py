"""What a user sees first: figures, what happened last, and the next step."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db.models import NewActivity
from db.repositories.certificates import CertificateRepository
from db.repositories.inbox import InboxRepository
from db.repositories.results import ResultFilter, ResultRepository
from tests.api.world import (
    Person,
    World,
    a_backtest,
    account_of,
    created,
    error_of,
    upload,
)
from tests.db.accounts import a_certificate, a_result, add_test

NOTHING = {
    "total_agents": 0,
    "tests_run": 0,
    "best_pnl": 0.0,
    "avg_win_rate": 0.0,
    "trends": {"agents_this_week": 0, "tests_today": 0, "win_rate_change": 0.0},
    "best_agent": None,
}


async def moved(world: World, table: str, row_id: object, days: float) -> None:
    """Make a row as old as that."""
    async with world.services.database.as_system() as session:
        await session.execute(
            text(f"UPDATE {table} SET created_at = :at WHERE id = :id"),
            {"at": datetime.now(tz=UTC) - timedelta(days=days), "id": row_id},
        )


async def stats(person: Person) -> dict[str, Any]:
    found: dict[str, Any] = (await person.get("/api/dashboard/stats")).json()["stats"]
    return found


async def activity(person: Person, query: str = "") -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = (await person.get(f"/api/dashboard/activity{query}")).json()[
        "activity"
    ]
    return lines


async def test_an_empty_dashboard_is_full_of_zeros(ada: Person) -> None:
    assert await stats(ada) == NOTHING
    assert await activity(ada) == []


async def test_figures_are_of_ones_own_agents_and_results(
    world: World, ada: Person, bob: Person
) -> None:
    account = await account_of(world, ada)
    alpha, beta = await account.add_agent("Alpha"), await account.add_agent("Beta")
    await add_test(account, alpha, total_pnl_pct=5.0, win_rate=80.0)
    await add_test(account, beta, total_pnl_pct=-3.0, win_rate=40.0)

    assert await stats(ada) == {
        "total_agents": 2,
        "tests_run": 2,
        "best_pnl": 5.0,
        "avg_win_rate": 60.0,
        "trends": {"agents_this_week": 2, "tests_today": 2, "win_rate_change": 0.0},
        "best_agent": {"id": str(alpha.id), "name": "Alpha"},
    }
    assert await stats(bob) == NOTHING


async def test_trends_compare_this_week_with_the_one_before(world: World, ada: Person) -> None:
    account = await account_of(world, ada)
    agent = await account.add_agent()
    for win_rate, days in ((70.0, 1), (50.0, 6), (40.0, 8), (10.0, 20)):
        tested = await add_test(account, agent, win_rate=win_rate)
        await moved(world, "trading_sessions", tested.id, days + 1)
        async with world.services.database.as_system() as session:
            result_id = await session.scalar(
                text("SELECT id FROM test_results WHERE session_id = :id"), {"id": tested.id}
            )
        await moved(world, "test_results", result_id, days)
    await moved(world, "agents", agent.id, 8)

    trends = (await stats(ada))["trends"]

    assert trends == {"agents_this_week": 0, "tests_today": 0, "win_rate_change": 20.0}


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"])
async def test_today_begins_where_the_user_lives(world: World, ada: Person, zone: str) -> None:
    await ada.put("/api/users/me", {"timezone": zone})
    world.services.known_users.clear()
    account = await account_of(world, ada)
    agent = await account.add_agent()
    now, yesterday = await account.add_session(agent), await account.add_session(agent)
    await moved(world, "trading_sessions", now.id, 0)
    await moved(world, "trading_sessions", yesterday.id, 1)

    assert (await stats(ada))["trends"]["tests_today"] == 1


async def test_what_agents_go_through_is_told_the_newest_first(ada: Person) -> None:
    agent = await ada.add_agent("Alpha")
    path = f"/api/agents/{agent['id']}"
    await ada.put(path, {"name": "Beta"})
    await ada.post(f"{path}/duplicate", {"new_name": "Gamma"})
    await ada.delete(f"{path}?archive=true")
    await ada.post(f"{path}/restore")
    await ada.delete(path)

    lines = await activity(ada)

    assert [(line["type"], line["agent_name"], line["description"]) for line in lines] == [
        ("agent_deleted", "Beta", "Agent deleted"),
        ("agent_updated", "Beta", "Agent restored"),
        ("agent_updated", "Beta", "Agent archived"),
        ("agent_created", "Gamma", "Agent created as a copy"),
        ("agent_updated", "Beta", "Agent changed"),
        ("agent_created", "Alpha", "Agent created"),
    ]
    assert lines[0]["action_url"] is None
    assert len({line["id"] for line in lines}) == 6
    assert all(line["timestamp"].endswith("Z") for line in lines)


async def test_a_change_that_is_refused_is_not_told(ada: Person) -> None:
    await ada.add_agent("Alpha")
    beta = await ada.add_agent("Beta")

    error_of(await ada.put(f"/api/agents/{beta['id']}", {"name": "Alpha"}), 409, "NAME_TAKEN")

    assert [line["type"] for line in await activity(ada)] == ["agent_created"] * 2


async def test_two_deletions_at_once_are_told_as_one(ada: Person) -> None:
    path = f"/api/agents/{(await ada.add_agent())['id']}"

    answers = await asyncio.gather(*(ada.delete(path) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [200, 404, 404]
    assert [line["type"] for line in await activity(ada)] == ["agent_deleted", "agent_created"]


async def test_a_start_that_is_sent_again_is_told_once(ada: Person) -> None:
    await ada.add_key()
    await upload(ada)
    body = a_backtest((await ada.add_agent())["id"])
    url, key = "/api/arena/backtest/start", {"Idempotency-Key": "a-click"}

    answers = [await ada.http.post(url, json=body, headers=key) for _ in range(2)]

    session_id = created(answers[1])["session"]["id"]
    told = [(line["type"], line["session_id"]) for line in await activity(ada)]
    assert told == [("test_started", session_id), ("agent_created", None)]


async def test_tests_are_told_from_their_start_to_their_end(
    world: World, ada: Person, bob: Person
) -> None:
    account = await account_of(world, ada)
    agent = await account.add_agent("Alpha")
    failed = await account.add_session(
        agent, status="failed", completed_at=datetime.now(tz=UTC) + timedelta(seconds=1)
    )
    finished = await add_test(account, agent)
    async with account.database.for_user(account.id) as session:
        result = a_result(finished)
        await InboxRepository(session).record(
            NewActivity(
                user_id=account.id,
                activity_type="test_completed",
                agent_id=agent.id,
                agent_name=agent.name,
                session_id=finished.id,
                result_id=result.id,
                description="Backtest on BTC/USDT 1h: +5.00 % in 4 trades",
                pnl=5.0,
            )
        )

    lines = {(line["type"], line["session_id"]): line for line in await activity(ada)}

    assert set(lines) == {
        ("test_failed", str(failed.id)),
        ("test_started", str(failed.id)),
        ("test_started", str(finished.id)),
        ("test_completed", str(finished.id)),
    }
    assert len({line["id"] for line in lines.values()}) == 4
    completed = lines["test_completed", str(finished.id)]
    assert (completed["pnl"], completed["result_id"]) == (5.0, str(result.id))
    assert completed["action_url"] == f"/dashboard/results/{result.id}"
    broken = lines["test_failed", str(failed.id)]
    assert broken["description"] == "Backtest on BTC/USDT 1h failed"
    assert broken["action_url"] == f"/dashboard/arena/backtest/{failed.id}"
    assert await activity(bob) == []


async def test_as_many_lines_as_are_asked_for(ada: Person) -> None:
    for number in range(12):
        await ada.add_agent(f"Agent {number}")

    assert len(await activity(ada)) == 10
    assert [line["agent_name"] for line in await activity(ada, "?limit=2")] == [
        "Agent 11",
        "Agent 10",
    ]
    error_of(await ada.get("/api/dashboard/activity?limit=101"), 422, "VALIDATION_ERROR")


async def test_first_steps_are_ticked_off_as_they_are_taken(world: World, ada: Person) -> None:
    async def done() -> tuple[list[bool], float]:
        answer = (await ada.get("/api/dashboard/quick-start")).json()
        assert [step["id"] for step in answer["steps"]] == [
            "create_agent",
            "run_backtest",
            "get_certificate",
        ]
        return [step["is_complete"] for step in answer["steps"]], answer["progress_pct"]

    assert await done() == ([False] * 3, 0.0)
    account = await account_of(world, ada)
    agent = await account.add_agent()
    assert await done() == ([True, False, False], 33.33)
    await add_test(account, agent)
    assert await done() == ([True, True, False], 66.67)
    async with account.database.for_user(account.id) as session:
        (listed,), _ = await ResultRepository(session).page(ResultFilter())
        result = await ResultRepository(session).get(listed.id)
        assert result is not None
        await CertificateRepository(session).add(a_certificate(result))
    assert await done() == ([True, True, True], 100.0)
