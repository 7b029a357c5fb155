"""Agents, their versions, and what is refused of them."""

import pytest

from tests.api.world import PROMPT, Person, error_of

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
    ):
        error_of(answer, 404, "AGENT_NOT_FOUND")
    for key in (await ada.add_key(), NOBODY):
        answer = await bob.post("/api/agents", a_body(api_key_id=key))
        error_of(answer, 404, "API_KEY_NOT_FOUND")


def a_body(**changes: object) -> dict[str, object]:
    return {
        "name": "Momentum Max",
        "mode": "monk",
        "model": "simulated/momentum",
        "indicators": ["rsi_14"],
        "strategy_prompt": PROMPT,
    } | changes
