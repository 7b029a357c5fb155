"""Tests that never began are removed, and no others."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from temporalio.client import Client as TemporalClient

from api.session_cleanup import LOCKED_AT_ONCE, remove_unstarted
from db.repositories.results import ResultRepository
from db.repositories.running_sessions import RunningSessionRepository
from db.repositories.sessions import SessionRepository
from settings import ApiSettings
from tests.api.world import (
    Person,
    World,
    a_backtest,
    account_of,
    created,
    error_of,
    opened_world,
    upload,
)
from tests.db.accounts import Account, a_result
from tests.laboratory import Laboratory, Plan

AT_ONCE = timedelta(0)
PATH = "/api/arena/cleanup"


@pytest.fixture
async def account(world: World, ada: Person) -> Account:
    return await account_of(world, ada)


async def aged(postgres_url: str, *session_ids: UUID) -> None:
    """Make sessions a minute old; the trigger that keeps `updated_at` would undo it."""
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute("SET session_replication_role = replica")
        changed = await connection.execute(
            "UPDATE trading_sessions SET updated_at = now() - interval '1 minute'"
            " WHERE id = ANY (%s)",
            (list(session_ids),),
        )
        assert changed.rowcount == len(session_ids)


async def remaining(account: Account, *session_ids: UUID) -> set[UUID]:
    async with account.database.for_user(account.id) as session:
        found = [await SessionRepository(session).get(each) for each in session_ids]
    return {each.id for each in found if each is not None}


async def test_what_never_began_is_removed_and_all_else_stays(
    ada: Person, bob: Person, world: World, account: Account, postgres_url: str
) -> None:
    agent, theirs = await account.add_agent(), await account_of(world, bob)
    stuck = await account.add_session(agent, status="initializing")
    fresh = await account.add_session(agent, status="initializing")
    forward = await account.add_session(agent, status="initializing", type="forward")
    kept = [
        await account.add_session(agent, status=status)
        for status in ("running", "paused", "completed", "failed", "stopped")
    ]
    claimed = await account.add_session(agent, status="initializing", epoch=1)
    measured = await account.add_session(agent, status="initializing")
    async with account.database.for_user(account.id) as session:
        await ResultRepository(session).add(a_result(measured))
    foreign = await theirs.add_session(await theirs.add_agent(), status="initializing")
    old = (stuck, forward, *kept, claimed, measured, foreign)
    await aged(postgres_url, *(each.id for each in old))

    first = await ada.delete(f"{PATH}?session_type=backtest")
    second = await ada.delete(f"{PATH}?session_type=")

    assert first.json() == {
        "deleted_sessions": 1,
        "stopped_in_memory": 0,
        "message": "1 session removed",
        "session_type": "backtest",
    }
    assert second.json()["deleted_sessions"] == 1
    assert second.json()["session_type"] == "all"
    stay = [fresh.id, *(each.id for each in kept), claimed.id, measured.id]
    assert await remaining(account, stuck.id, forward.id, *stay) == set(stay)
    assert await remaining(theirs, foreign.id) == {foreign.id}
    error_of(await ada.delete(f"{PATH}?session_type=dream"), 422, "VALIDATION_ERROR")


async def test_a_test_that_waits_for_a_worker_stays(
    world: World, ada: Person, account: Account
) -> None:
    """No worker serves the tests of this API, but their workflows are there."""
    session_id = await started(ada)

    removed = await remove(world, account)

    assert removed == 0
    assert await remaining(account, session_id) == {session_id}


async def test_more_are_removed_than_are_locked_at_once_and_one_among_them_stays(
    world: World, ada: Person, account: Account
) -> None:
    agent, waiting = await account.add_agent("Stuck"), await started(ada)
    stuck = [
        await account.add_session(agent, status="initializing") for _ in range(LOCKED_AT_ONCE + 1)
    ]

    removed = await remove(world, account)

    assert removed == len(stuck)
    assert await remaining(account, waiting, *(each.id for each in stuck)) == {waiting}


async def test_nothing_is_removed_while_temporal_is_away(
    settings: ApiSettings, world: World, ada: Person, account: Account, postgres_url: str
) -> None:
    stuck = await account.add_session(await account.add_agent(), status="initializing")
    await aged(postgres_url, stuck.id)
    lost = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with opened_world(lost, world.issuer, world.issuer_url) as stranded:
        answer = await stranded.again(ada).delete(PATH)

    error_of(answer, 503, "UPSTREAM_UNAVAILABLE")
    assert await remaining(account, stuck.id) == {stuck.id}


async def test_a_start_whose_session_was_removed_can_be_sent_again(
    settings: ApiSettings, world: World, ada: Person, account: Account
) -> None:
    agent_id, key = await an_agent_to_test(ada), {"Idempotency-Key": "a-click"}
    url, body = "/api/arena/backtest/start", a_backtest(agent_id)
    lost = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with opened_world(lost, world.issuer, world.issuer_url) as stranded:
        refused = await stranded.again(ada).http.post(url, json=body, headers=key)
    error_of(refused, 503, "UPSTREAM_UNAVAILABLE")

    assert await remove(world, account) == 1
    again = await ada.http.post(url, json=body, headers=key)

    active = (await ada.get("/api/arena/backtest/active")).json()["sessions"]
    assert [each["id"] for each in active] == [created(again)["session"]["id"]]


async def test_a_claim_and_a_removal_at_once_never_both_go_well(
    world: World, account: Account
) -> None:
    agent = await account.add_agent()

    async def claim(session_id: UUID) -> bool:
        async with account.database.for_user(account.id) as session:
            running = RunningSessionRepository(session)
            if await running.lock(session_id) is None:
                return False
            await running.own(session_id, "a-run")
            return True

    for _ in range(20):
        stored = await account.add_session(agent, status="initializing")
        was_claimed, removed = await asyncio.gather(claim(stored.id), remove(world, account))
        assert was_claimed == (removed == 0)
        assert bool(await remaining(account, stored.id)) == was_claimed


async def test_a_workflow_that_comes_too_late_ends_and_leaves_nothing(
    world: World, account: Account, settings: ApiSettings, temporal_client: TemporalClient
) -> None:
    async with httpx.AsyncClient() as http:
        laboratory = Laboratory(
            database=world.services.database,
            redis=world.services.redis,
            client=temporal_client,
            task_queue=f"late-{uuid4().hex}",
            openrouter_url=settings.openrouter_base_url,
            http=http,
            user_id=account.id,
        )
        session_id = await laboratory.add_session(Plan(candles=3))
        async with account.database.for_user(account.id) as session:
            stored = await SessionRepository(session).get(session_id)
        assert stored is not None
        assert await remove(world, account) == 1
        async with laboratory.worker():
            await laboratory.temporal.start_again(stored)
            result = await laboratory.temporal.wait_result(session_id, timedelta(seconds=30))
            is_running = await laboratory.temporal.is_running(session_id)

    assert (result, is_running) == (None, False)
    assert await remaining(account, session_id) == set()


async def remove(world: World, account: Account) -> int:
    services = world.services
    return await remove_unstarted(
        services.database, services.temporal, account.id, None, unchanged_for=AT_ONCE
    )


async def an_agent_to_test(person: Person) -> str:
    await person.add_key()
    await upload(person)
    agent: dict[str, Any] = await person.add_agent()
    return str(agent["id"])


async def started(person: Person) -> UUID:
    session = created(await person.start(await an_agent_to_test(person)))["session"]
    return UUID(session["id"])
