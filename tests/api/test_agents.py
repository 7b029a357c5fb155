"""Agents, their versions, and what is refused of them."""

import pytest

from db.repositories.agents import AgentRepository
from tests.api.world import PROMPT, Person, World, account_of, error_of
from tests.db.accounts import add_test

NOBODY = "00000000-0000-7000-8000-000000000000"


async def test_an_agent_is_shown_at_top_level_and_under_agent(ada: Person) -> None:
    key = await ada.add_key()
    agent = await ada.add_agent(custom_indicators=[{"name": "gap", "formula": "close - ema_20"}])

    shown = (await ada.get(f"/api/agents/{agent['id']}")).json()

    assert shown.pop("agent") == agent == shown
    assert (agent["version"], agent["tests_run"], agent["best_pnl"]) == (1, 0, None)
    assert (agent["api_key_id"], agent["api_key_masked"]) == (key, "sk-or-v1-••••••••")
    assert agent["custom_indicators"] == [{"name": "gap", "formula": "close - ema_20"}]


async def test_names_are_unique_among_the_living(ada: Person, bob: Person) -> None:
    agent = await ada.add_agent("Twin")
    await bob.add_agent("Twin")
    taken = await ada.post("/api/agents", a_body(name="Twin"))
    archived = await ada.delete(f"/api/agents/{agent['id']}?archive=true")
    second = await ada.add_agent("Twin")

    error_of(taken, 409, "NAME_TAKEN")
    assert archived.json() == {"message": "Agent archived", "id": agent["id"]}
    restore = f"/api/agents/{agent['id']}/restore"
    error_of(await ada.post(restore), 409, "NAME_TAKEN")
    await ada.put(f"/api/agents/{second['id']}", {"name": "Elder twin"})
    assert not (await ada.post(restore)).json()["agent"]["is_archived"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": "x"}, ["body", "name"]),
        ({"name": "a\x00b"}, ["body", "name"]),
        ({"mode": "zen"}, ["body", "mode"]),
        ({"model": ""}, ["body", "model"]),
        ({"model": "simulated/crystal-ball"}, ["body", "model"]),
        ({"api_key_id": NOBODY}, ["body", "api_key_id"]),
        ({"indicators": []}, ["body", "indicators"]),
        ({"indicators": ["rsi_14", "tea_leaves"]}, ["body", "indicators", 1]),
        ({"indicators": ["rsi_501"]}, ["body", "indicators", 0]),
        ({"indicators": [f"rsi_{n}" for n in range(2, 50)]}, ["body", "indicators"]),
        ({"indicators": ["rsi_14"] * 100_000}, ["body", "indicators"]),
        (
            {"custom_indicators": [{"name": "same", "formula": "close"}] * 10_000},
            ["body", "custom_indicators"],
        ),
        (
            {"custom_indicators": [{"name": "time", "formula": "close"}]},
            ["body", "custom_indicators", 0, "name"],
        ),
        ({"strategy_prompt": "buy low"}, ["body", "strategy_prompt"]),
        ({"strategy_prompt": "x" * 4001}, ["body", "strategy_prompt"]),
        (
            {
                "custom_indicators": [
                    {"name": "good", "formula": "close"},
                    {"name": "", "formula": "1"},
                ]
            },
            ["body", "custom_indicators", 1, "name"],
        ),
    ],
)
async def test_a_bad_agent_is_refused_with_the_place(
    ada: Person, change: dict[str, object], place: list[str | int]
) -> None:
    body = error_of(await ada.post("/api/agents", a_body(**change)), 422, "VALIDATION_ERROR")

    assert body["errors"][0]["loc"] == place


@pytest.mark.parametrize(
    ("formula", "column"),
    [
        ("close +", 7),
        ("close + nonsense", 9),
        ("__import__('os')", None),
        ("close.__class__", None),
        ("shift(close, -1)", None),
    ],
)
async def test_a_bad_formula_is_refused_with_the_column(
    ada: Person, formula: str, column: int | None
) -> None:
    custom = [{"name": "mine", "formula": formula}]

    answer = await ada.post("/api/agents", a_body(custom_indicators=custom))

    place = error_of(answer, 422, "VALIDATION_ERROR")["errors"][0]["loc"]
    assert place[:4] == ["body", "custom_indicators", 0, "formula"]
    assert isinstance(place[4], int)
    assert column is None or place[4] == column


async def test_changed_content_makes_a_version_and_a_new_name_does_not(ada: Person) -> None:
    agent = await ada.add_agent()
    path = f"/api/agents/{agent['id']}"

    renamed = (await ada.put(path, {"name": "Other name"})).json()["agent"]
    same = (await ada.put(path, {"strategy_prompt": PROMPT})).json()["agent"]
    changed = (await ada.put(path, {"indicators": ["macd"], "mode": "monk"})).json()["agent"]

    assert [each["version"] for each in (renamed, same, changed)] == [1, 1, 2]
    assert (changed["mode"], changed["indicators"]) == ("monk", ["macd"])
    versions = (await ada.get(f"{path}/versions")).json()["versions"]
    assert [(each["version"], each["changed"]) for each in versions] == [
        (2, ["mode", "indicators"]),
        (1, []),
    ]


async def test_a_formula_is_checked_against_the_agent_as_it_will_be(ada: Person) -> None:
    agent = await ada.add_agent(custom_indicators=[{"name": "mine", "formula": "rsi_14 / 2"}])

    answer = await ada.put(f"/api/agents/{agent['id']}", {"indicators": ["mine"]})

    error_of(answer, 422, "VALIDATION_ERROR")


async def test_lists_filter_sort_and_count(ada: Person) -> None:
    for name, mode in (("Alpha", "monk"), ("Beta", "omni"), ("Gamma", "omni")):
        await ada.add_agent(name, mode=mode)
    gone = await ada.add_agent("Old Alpha")
    await ada.delete(f"/api/agents/{gone['id']}?archive=true")

    async def names(query: str) -> tuple[list[str], int]:
        answer = (await ada.get(f"/api/agents?{query}")).json()
        return [each["name"] for each in answer["agents"]], answer["total"]

    assert await names("sort=alpha") == (["Alpha", "Beta", "Gamma"], 3)
    assert await names("sort=oldest&limit=1&page=2") == (["Beta"], 3)
    assert await names("search=alph&mode=&sort=alpha") == (["Alpha"], 1)
    assert await names("mode=omni&sort=newest") == (["Gamma", "Beta"], 2)
    assert await names("include_archived=true") == (["Old Alpha"], 1)
    assert (await names("include_archived=all"))[1] == 4


async def test_a_duplicate_is_a_new_agent(ada: Person) -> None:
    agent = await ada.add_agent()

    copied = await ada.post(f"/api/agents/{agent['id']}/duplicate", {"new_name": "Momentum Min"})

    assert copied.status_code == 201
    assert copied.json()["agent"]["id"] != agent["id"]
    assert copied.json()["agent"]["strategy_prompt"] == PROMPT


async def test_a_deleted_agent_is_gone(ada: Person) -> None:
    agent = await ada.add_agent()

    deleted = await ada.delete(f"/api/agents/{agent['id']}")

    assert deleted.json() == {"message": "Agent deleted", "id": agent["id"]}
    error_of(await ada.get(f"/api/agents/{agent['id']}"), 404, "AGENT_NOT_FOUND")


async def test_an_agent_that_was_not_tested_has_figures_of_zero(ada: Person) -> None:
    agent = await ada.add_agent()

    stats = (await ada.get(f"/api/agents/{agent['id']}/stats")).json()["stats"]

    assert stats == {
        "total_tests": 0,
        "profitable_tests": 0,
        "profit_rate": 0.0,
        "best_pnl": 0.0,
        "worst_pnl": 0.0,
        "avg_pnl": 0.0,
        "avg_win_rate": 0.0,
        "avg_drawdown": 0.0,
        "total_trades": 0,
        "best_sharpe": None,
        "total_cost_usd": 0.0,
        "performance_by_asset": {},
        "by_version": [
            {"version": 1, "tests_run": 0, "profitable_tests": 0, "best_pnl": 0.0, "avg_pnl": 0.0}
        ],
    }


async def test_figures_are_of_all_results_of_the_agent_and_of_each_version(
    world: World, ada: Person
) -> None:
    account = await account_of(world, ada)
    first, other = await account.add_agent("Alpha"), await account.add_agent("Beta")
    await add_test(account, other, total_pnl_pct=50.0)
    await add_test(account, first, total_pnl_pct=6.0, sharpe_ratio=1.5)
    path = f"/api/agents/{first.id}"
    await ada.put(path, {"indicators": ["macd"], "strategy_prompt": PROMPT})
    async with account.database.for_user(account.id) as session:
        second = await AgentRepository(session).get(first.id)
    assert second is not None
    for pnl, asset in ((-3.0, "BTC/USDT"), (3.0, "ETH/USDT")):
        await add_test(account, second, total_pnl_pct=pnl, asset=asset, win_rate=45.0)
    await account.add_session(second, status="failed", cost_usd=0.25)

    stats = (await ada.get(f"{path}/stats")).json()["stats"]
    versions = (await ada.get(f"{path}/versions")).json()["versions"]

    assert stats.pop("profit_rate") == pytest.approx(200 / 3)
    assert stats == {
        "total_tests": 3,
        "profitable_tests": 2,
        "best_pnl": 6.0,
        "worst_pnl": -3.0,
        "avg_pnl": 2.0,
        "avg_win_rate": 55.0,
        "avg_drawdown": 2.5,
        "total_trades": 12,
        "best_sharpe": 1.5,
        "total_cost_usd": 0.25,
        "performance_by_asset": {
            "BTC/USDT": {"tests": 2, "avg_pnl": 1.5},
            "ETH/USDT": {"tests": 1, "avg_pnl": 3.0},
        },
        "by_version": [
            {"version": 2, "tests_run": 2, "profitable_tests": 1, "best_pnl": 3.0, "avg_pnl": 0.0},
            {"version": 1, "tests_run": 1, "profitable_tests": 1, "best_pnl": 6.0, "avg_pnl": 6.0},
        ],
    }
    assert [(v["version"], v["changed"], v["tests_run"], v["avg_pnl"]) for v in versions] == [
        (2, ["indicators", "strategy_prompt"], 2, 0.0),
        (1, [], 1, 6.0),
    ]


async def test_another_users_agent_does_not_exist(ada: Person, bob: Person) -> None:
    path = f"/api/agents/{(await ada.add_agent())['id']}"

    for answer in (
        await bob.get(path),
        await bob.put(path, {"name": "Mine now"}),
        await bob.delete(path),
        await bob.delete(f"{path}?archive=true"),
        await bob.post(f"{path}/duplicate", {"new_name": "Mine too"}),
        await bob.post(f"{path}/restore"),
        await bob.get(f"{path}/versions"),
        await bob.get(f"{path}/stats"),
    ):
        error_of(answer, 404, "AGENT_NOT_FOUND")
    own_key = {"api_key_id": await ada.add_key()}
    error_of(await bob.post("/api/agents", a_body(**own_key)), 422, "VALIDATION_ERROR")


def a_body(**changes: object) -> dict[str, object]:
    return {
        "name": "Momentum Max",
        "mode": "monk",
        "model": "simulated/momentum",
        "indicators": ["rsi_14"],
        "strategy_prompt": PROMPT,
    } | changes
