"""Agents: names, versions, what a running test forbids, lists."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from db.errors import AgentBusy, ApiKeyUnknown, NameTaken
from db.repositories.agents import AgentChanges, AgentFilter, AgentRepository
from db.repositories.api_keys import ApiKeyRepository
from db.repositories.results import ResultRepository
from tests.db.accounts import CONTENT, Account, a_result


async def listed(account: Account, **wanted: object) -> list[str]:
    async with account.database.for_user(account.id) as session:
        agents, total = await AgentRepository(session).page(AgentFilter(**wanted))  # type: ignore[arg-type]
    assert total >= len(agents)
    return [agent.name for agent in agents]


async def test_a_new_agent_has_version_one_with_its_content(account: Account):
    agent = await account.add_agent()

    assert (agent.current_version, agent.model, agent.indicators) == (
        1,
        "simulated/trend",
        ["rsi_14"],
    )
    assert agent.content_hash == CONTENT.hash()
    assert (agent.tests_run, agent.best_pnl, agent.api_key_prefix) == (0, None, None)


async def test_a_name_is_unique_among_the_living_of_one_user(account: Account, stranger: Account):
    agent = await account.add_agent("Alpha")
    await stranger.add_agent("Alpha")
    with pytest.raises(NameTaken, match="Alpha"):
        await account.add_agent("Alpha")

    async with account.database.for_user(account.id) as session:
        archived = await AgentRepository(session).archive(agent.id)
    assert archived is not None
    assert archived.is_archived
    second = await account.add_agent("Alpha")

    async with account.database.for_user(account.id) as session:
        repository = AgentRepository(session)
        with pytest.raises(NameTaken):
            await repository.restore(agent.id)
        await repository.update(second.id, AgentChanges(columns={"name": "Beta"}))
        restored = await repository.restore(agent.id)
    assert restored is not None
    assert not restored.is_archived


async def test_an_agent_gets_no_key_of_another(account: Account, stranger: Account):
    async with stranger.database.for_user(stranger.id) as session:
        key = await ApiKeyRepository(session).add(
            user_id=stranger.id, key_prefix="sk-or-", encrypted_key="cipher"
        )
    with pytest.raises(ApiKeyUnknown):
        await account.add_agent(api_key_id=key.id)

    agent = await account.add_agent()
    async with account.database.for_user(account.id) as session:
        with pytest.raises(ApiKeyUnknown):
            await AgentRepository(session).update(
                agent.id, AgentChanges(columns={"api_key_id": key.id})
            )


@pytest.mark.parametrize(
    "content",
    [
        {"strategy_prompt": "Do the opposite."},
        {"model": "simulated/other"},
        {"mode": "omni"},
        {"indicators": ("ema_20",)},
        {"custom_indicators": ({"name": "gap", "formula": "open - close"},)},
    ],
)
async def test_changed_content_makes_a_version_and_keeps_the_old_one(account: Account, content):
    agent = await account.add_agent()
    async with account.database.for_user(account.id) as session:
        repository = AgentRepository(session)
        changed = await repository.update(agent.id, AgentChanges(content=content))
        versions = await repository.versions(agent.id)

    assert changed is not None
    assert changed.current_version == 2
    assert changed.content_hash == replace(CONTENT, **content).hash()
    assert changed.mode == content.get("mode", "monk")
    assert [(each.version, each.content_hash) for each in versions] == [
        (2, changed.content_hash),
        (1, CONTENT.hash()),
    ]


async def test_a_change_of_name_or_the_same_content_makes_no_version(account: Account):
    agent = await account.add_agent()
    async with account.database.for_user(account.id) as session:
        changed = await AgentRepository(session).update(
            agent.id,
            AgentChanges(columns={"name": "Beta"}, content={"model": CONTENT.model}),
        )

    assert changed is not None
    assert (changed.name, changed.current_version) == ("Beta", 1)


async def test_changes_at_once_are_numbered_one_by_one(account: Account):
    agent = await account.add_agent()

    async def change(number: int) -> None:
        async with account.database.for_user(account.id) as session:
            content = {"strategy_prompt": f"Prompt number {number}."}
            await AgentRepository(session).update(agent.id, AgentChanges(content=content))

    await asyncio.gather(*(change(i) for i in range(6)))
    async with account.database.for_user(account.id) as session:
        versions = await AgentRepository(session).versions(agent.id)

    assert [each.version for each in versions] == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("status", ["initializing", "running", "paused"])
async def test_an_agent_under_test_is_neither_archived_nor_deleted(account: Account, status: str):
    agent = await account.add_agent()
    await account.add_session(agent, status=status)
    async with account.database.for_user(account.id) as session:
        repository = AgentRepository(session)
        with pytest.raises(AgentBusy):
            await repository.archive(agent.id)
        with pytest.raises(AgentBusy):
            await repository.delete(agent.id)


async def test_a_deleted_agent_leaves_its_results_and_its_name_on_them(account: Account):
    agent = await account.add_agent()
    ended = await account.add_session(agent, status="completed")
    async with account.database.for_user(account.id) as session:
        stored = a_result(ended)
        assert await ResultRepository(session).add(stored)
    async with account.database.for_user(account.id) as session:
        assert await AgentRepository(session).delete(agent.id) is not None
        assert await AgentRepository(session).get(agent.id) is None
        result = await ResultRepository(session).get(stored.id)

    assert result is not None
    assert (result.agent_id, result.agent_version_id, result.agent_name) == (None, None, "Alpha")


async def test_a_duplicate_begins_anew_with_the_current_content(account: Account):
    agent = await account.add_agent()
    async with account.database.for_user(account.id) as session:
        repository = AgentRepository(session)
        await repository.update(agent.id, AgentChanges(content={"model": "simulated/other"}))
        copy = await repository.duplicate(agent.id, "Beta")
        with pytest.raises(NameTaken):
            await repository.duplicate(agent.id, "Alpha")

    assert copy is not None
    assert (copy.name, copy.current_version, copy.model) == ("Beta", 1, "simulated/other")
    assert copy.id != agent.id


async def test_lists_are_searched_filtered_sorted_and_paged(account: Account):
    for name, mode in (("beta", "omni"), ("Alpha", "monk"), ("100% sure", "monk")):
        await account.add_agent(name, content=replace(CONTENT, mode=mode))
    async with account.database.for_user(account.id) as session:
        old = await AgentRepository(session).add(
            user_id=account.id, name="Old", api_key_id=None, content=CONTENT
        )
        await AgentRepository(session).archive(old.id)

    assert await listed(account) == ["100% sure", "Alpha", "beta"]
    assert await listed(account, sort="oldest") == ["beta", "Alpha", "100% sure"]
    assert await listed(account, sort="alpha") == ["100% sure", "Alpha", "beta"]
    assert await listed(account, search="ALPH") == ["Alpha"]
    assert await listed(account, search="%") == ["100% sure"]
    assert await listed(account, mode="omni") == ["beta"]
    assert await listed(account, model="none") == []
    assert await listed(account, archived=True) == ["Old"]
    assert sorted(await listed(account, archived=None)) == ["100% sure", "Alpha", "Old", "beta"]
    assert await listed(account, sort="oldest", page=2, limit=2) == ["100% sure"]


async def test_the_agent_of_another_does_not_exist(account: Account, stranger: Account):
    agent = await account.add_agent()
    assert await listed(stranger, archived=None) == []
    async with stranger.database.for_user(stranger.id) as session:
        repository = AgentRepository(session)
        assert await repository.get(agent.id) is None
        assert await repository.update(agent.id, AgentChanges(columns={"name": "Mine"})) is None
        assert await repository.archive(agent.id) is None
        assert await repository.delete(agent.id) is None
        assert await repository.duplicate(agent.id, "Mine") is None
        assert await repository.versions(agent.id) == []
        assert await repository.get(uuid4()) is None
