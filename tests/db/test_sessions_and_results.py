"""Sessions, their trades and decisions, their results, and what is told of them once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid5

import pytest
from sqlalchemy import text

from db.models import Decision, NewActivity, NewNotification, SessionRecord, Trade
from db.repositories.agents import AgentRepository
from db.repositories.decisions import DecisionFilter, DecisionRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.inbox import InboxRepository
from db.repositories.results import ResultFilter, ResultRepository
from db.repositories.sessions import ReconcileRepository, SessionRepository
from db.repositories.trades import TradeFilter, TradeRepository
from tests.db.accounts import (
    Account,
    a_decision,
    a_result,
    a_session,
    a_trade,
    store,
)


@pytest.fixture
async def running(account: Account) -> SessionRecord:
    return await account.add_session(await account.add_agent())


async def test_the_status_counts_closed_trades_decisions_and_names_the_result(
    account: Account, running: SessionRecord
):
    await store(
        account,
        Trade,
        a_trade(running.id, 1, 5.0),
        a_trade(running.id, 2, -5.0),
        a_trade(running.id, 3, None),
    )
    await store(account, Decision, a_decision(running.id, 0), a_decision(running.id, 1))
    async with account.database.for_user(account.id) as session:
        repository = SessionRepository(session)
        before = await repository.status(running.id, type="backtest")
        await ResultRepository(session).add(a_result(running))
        after = await repository.status(running.id)
        assert await repository.status(running.id, type="forward") is None

    assert before is not None
    assert (before.trades_count, before.trades_won, before.decisions_count) == (2, 1, 2)
    assert before.result_id is None
    assert before.starting_capital == 10_000.0
    assert before.rules == {"fee_rate": 0.001}
    assert after is not None
    assert after.result_id == uuid5(running.id, "result")


async def test_active_sessions_are_those_that_have_not_ended(account: Account):
    agent = await account.add_agent()
    for status in ("initializing", "running", "paused", "completed", "failed", "stopped"):
        await account.add_session(agent, status=status)
    await account.add_session(agent, type="forward", status="running")
    async with account.database.for_user(account.id) as session:
        repository = SessionRepository(session)
        active = await repository.active(type="backtest")
        assert await repository.count_active(account.id) == 4

    assert [each.status for each in active] == ["paused", "running", "initializing"]


async def test_starts_of_one_user_are_counted_one_after_the_other(account: Account):
    """Otherwise two starts at once would both find room for one."""
    agent = await account.add_agent()
    limit = 3

    async def start() -> bool:
        async with account.database.for_user(account.id) as session:
            repository = SessionRepository(session)
            if (await repository.count_active(account.id) or 0) >= limit:
                return False
            await asyncio.sleep(0.01)
            record = await repository.add(a_session(account.id, agent))
            return record.status == "running"

    assert sum(await asyncio.gather(*(start() for _ in range(8)))) == limit


async def test_reconcile_finds_the_unchanged_of_all_users_and_no_ended_one(
    account: Account, stranger: Account
):
    mine = await account.add_session(await account.add_agent(), status="paused")
    theirs = await stranger.add_session(await stranger.add_agent(), status="initializing")
    ended = await stranger.add_session(await stranger.add_agent("Beta"), status="completed")
    async with account.database.as_system() as session:
        repository = ReconcileRepository(session)
        stale = {each.id: each for each in await repository.stale(timedelta(0))}
        fresh = {each.id for each in await repository.stale(timedelta(minutes=5))}

    assert {mine.id, theirs.id} <= stale.keys()
    assert ended.id not in stale
    assert not {mine.id, theirs.id} & fresh
    assert stale[theirs.id].user_id == stranger.id


async def test_a_step_updates_its_session_within_the_page(account: Account, running: SessionRecord):
    """Heap-only: what changes at every candle is in no index, and pages have room."""
    step = text("""
        UPDATE trading_sessions SET cursor = cursor + 1, current_candle = cursor + 1,
            last_seq = last_seq + 3, last_event_at = clock_timestamp(), current_equity = 10000.5,
            current_pnl_pct = 0.1, max_drawdown_pct = -0.2, cost_usd = cost_usd + 0.001
        WHERE id = :id AND epoch = 0
    """)
    counters = text("""
        SELECT pg_stat_get_xact_tuples_updated('trading_sessions'::regclass),
            pg_stat_get_xact_tuples_hot_updated('trading_sessions'::regclass)
    """)
    async with account.database.for_user(account.id) as session:
        updated, heap_only = (await session.execute(counters)).one()
        for _ in range(5):
            await session.execute(step, {"id": running.id})
        counted = (await session.execute(counters)).one()
    assert tuple(counted) == (updated + 5, heap_only + 5)


async def test_trades_are_filtered_summed_up_and_paged(account: Account, running: SessionRecord):
    await store(
        account,
        Trade,
        a_trade(running.id, 1, 10.0, entry_reasoning="A clear trend"),
        a_trade(running.id, 2, -4.0, type="short"),
        a_trade(running.id, 3, 20.5, exit_reasoning="The TREND is over"),
        a_trade(running.id, 4, None),
    )
    async with account.database.for_user(account.id) as session:
        repository = TradeRepository(session)

        async def numbers(**wanted: Any) -> list[int]:
            trades, _, total = await repository.page(running.id, TradeFilter(**wanted))
            assert total >= len(trades)
            return [trade.trade_number for trade in trades]

        _, summary, total = await repository.page(running.id, TradeFilter(limit=1))
        assert await numbers() == [1, 2, 3, 4]
        assert await numbers(direction="short") == [2]
        assert await numbers(outcome="win") == [1, 3]
        assert await numbers(outcome="loss") == [2]
        assert await numbers(search="trend") == [1, 3]
        assert await numbers(page=2, limit=3) == [4]
        rest = await repository.after(running.id, 1, limit=2)

    assert (summary.total, summary.wins, summary.losses, total) == (3, 2, 1, 4)
    assert (summary.avg_win, summary.avg_loss) == (15.25, -4.0)
    assert [trade.trade_number for trade in rest] == [2, 3]


async def test_decisions_are_filtered_paged_and_come_without_their_prompts(
    account: Account, running: SessionRecord
):
    kinds = ["hold", "long", "hold", "close"]
    rows = [a_decision(running.id, i, decision=kind) for i, kind in enumerate(kinds)]
    await store(account, Decision, *rows)
    async with account.database.for_user(account.id) as session:
        repository = DecisionRepository(session)

        async def candles(**wanted: Any) -> list[int]:
            decisions, total = await repository.page(running.id, DecisionFilter(**wanted))
            assert total >= len(decisions)
            return [each.candle_number for each in decisions]

        assert await candles() == [0, 1, 2, 3]
        assert await candles(candle_from=1, candle_to=2) == [1, 2]
        assert await candles(acted_only=True) == [1, 3]
        assert await candles(decision="close") == [3]
        assert await candles(page=2, limit=3) == [3]
        rest = await repository.after(running.id, 0, limit=2)
        assert [each.candle_number for each in rest] == [1, 2]


async def test_a_result_is_stored_once_and_counted_in_its_agents_statistics(account: Account):
    agent = await account.add_agent()
    first, second = await account.add_session(agent), await account.add_session(agent)
    worse = a_result(
        second, total_pnl_pct=-3.0, win_rate=25.0, max_drawdown_pct=7.5, sharpe_ratio=None
    )
    async with account.database.for_user(account.id) as session:
        repository = ResultRepository(session)
        assert await repository.add(a_result(first, sharpe_ratio=1.25))
        assert await repository.add(worse)
        assert not await repository.add(worse)
        stored = await repository.get(worse.id)
        counted = await AgentRepository(session).get(agent.id)

    assert stored is not None
    assert (stored.is_profitable, stored.total_pnl_pct, stored.equity_curve) == (
        False,
        -3.0,
        worse.equity_curve,
    )
    assert counted is not None
    assert (counted.tests_run, counted.total_profitable_tests, counted.best_pnl) == (2, 1, 5.0)
    assert (counted.avg_win_rate, counted.avg_drawdown) == (50.0, 5.0)


async def test_results_of_one_agent_that_end_at_once_all_count(account: Account):
    agent = await account.add_agent()
    sessions = [await account.add_session(agent) for _ in range(6)]

    async def end(ended: SessionRecord) -> None:
        async with account.database.for_user(account.id) as session:
            await ResultRepository(session).add(a_result(ended))

    await asyncio.gather(*(end(each) for each in sessions))
    async with account.database.for_user(account.id) as session:
        counted = await AgentRepository(session).get(agent.id)
    assert counted is not None
    assert counted.tests_run == 6


async def test_a_test_that_never_traded_is_not_profitable(account: Account):
    idle = await account.add_session(await account.add_agent())
    new = a_result(idle, total_trades=0, total_pnl_pct=0.0, win_rate=None)
    async with account.database.for_user(account.id) as session:
        await ResultRepository(session).add(new)
        stored = await ResultRepository(session).get(new.id)
    assert stored is not None
    assert stored.is_profitable is False


async def test_results_are_searched_filtered_and_paged_newest_first(account: Account):
    agent, other = await account.add_agent("Alpha"), await account.add_agent("Beta")
    shown = []
    for each, asset, pnl in (
        (agent, "BTC/USDT", 5.0),
        (other, "ETH/USDT", -1.0),
        (other, "BTC/USDT", 2.0),
    ):
        ended = await account.add_session(each, asset=asset, status="completed")
        new = a_result(ended, total_pnl_pct=pnl)
        async with account.database.for_user(account.id) as session:
            await ResultRepository(session).add(new)
        shown.append(new.id)
    now = datetime.now(UTC)
    async with account.database.for_user(account.id) as session:
        repository = ResultRepository(session)

        async def found(**wanted: Any) -> list[int]:
            results, total = await repository.page(ResultFilter(**wanted))
            assert total >= len(results)
            return [shown.index(each.id) for each in results]

        assert await found() == [2, 1, 0]
        assert await found(search="eth") == [1]
        assert await found(search="bet") == [2, 1]
        assert await found(profitable=True) == [2, 0]
        assert await found(profitable=False) == [1]
        assert await found(agent_id=agent.id) == [0]
        assert await found(asset="BTC/USDT", mode="monk", type="backtest") == [2, 0]
        assert await found(type="forward") == []
        assert await found(from_date=now - timedelta(hours=1), to_date=now) == [2, 1, 0]
        assert await found(from_date=now + timedelta(hours=1)) == []
        assert await found(page=2, limit=2) == [0]


async def test_the_sessions_and_results_of_another_do_not_exist(
    account: Account, stranger: Account, running: SessionRecord
):
    await store(account, Trade, a_trade(running.id, 1, 5.0))
    await store(account, Decision, a_decision(running.id, 0))
    async with account.database.for_user(account.id) as session:
        result = a_result(running)
        await ResultRepository(session).add(result)
    async with stranger.database.for_user(stranger.id) as session:
        assert await SessionRepository(session).get(running.id) is None
        assert await SessionRepository(session).status(running.id) is None
        assert await ResultRepository(session).get(result.id) is None
        assert (await ResultRepository(session).page(ResultFilter()))[1] == 0
        assert (await TradeRepository(session).page(running.id, TradeFilter()))[2] == 0
        assert (await DecisionRepository(session).page(running.id, DecisionFilter()))[1] == 0


async def test_a_retried_notification_is_stored_once(account: Account, running: SessionRecord):
    notice: dict[str, Any] = {
        "user_id": account.id,
        "type": "success",
        "category": "test_completed",
    }
    notice |= {"title": "Done", "message": "It is done.", "dedup_key": "completed"}
    line: dict[str, Any] = {
        "user_id": account.id,
        "activity_type": "test_completed",
        "description": "Done.",
    }
    line |= {"session_id": running.id, "dedup_key": "completed", "details": {"candles": 5}}
    async with account.database.for_user(account.id) as session:
        inbox = InboxRepository(session)
        for is_first in (True, False):
            assert await inbox.notify(NewNotification(**notice)) is is_first
            in_session = NewNotification(**notice, session_id=running.id)
            assert await inbox.notify(in_session) is is_first
            assert await inbox.record(NewActivity(**line)) is is_first
        assert await inbox.notify(NewNotification(**notice | {"dedup_key": None}))
        assert await inbox.notify(NewNotification(**notice | {"dedup_key": None}))
        kept = await session.execute(text("SELECT metadata FROM activity_log"))
        assert kept.scalar_one() == {"candles": 5}


async def test_an_idempotency_key_is_claimed_once_and_then_answers(account: Account):
    expires = datetime.now(UTC) + timedelta(hours=24)
    claim = IdempotencyClaim(user_id=account.id, key="k", request_hash="h", expires_at=expires)

    async def post(number: int) -> int:
        async with account.database.for_user(account.id) as session:
            repository = IdempotencyRepository(session)
            if (found := await repository.claim(claim)) is not None:
                assert found.response is not None
                return int(found.response["number"])
            await asyncio.sleep(0.01)
            await repository.answer(account.id, "k", status_code=201, response={"number": number})
            return number

    answers = await asyncio.gather(*(post(i) for i in range(5)))

    assert len(set(answers)) == 1


async def test_an_expired_idempotency_key_is_free_again(account: Account):
    past = datetime.now(UTC) - timedelta(seconds=1)
    claim = IdempotencyClaim(user_id=account.id, key="k", request_hash="h", expires_at=past)
    for _ in range(2):
        async with account.database.for_user(account.id) as session:
            assert await IdempotencyRepository(session).claim(claim) is None
