"""What a user prefers, and the limits that tests start with."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from tests.api.world import Person, World, created, error_of, upload

DEFAULTS: dict[str, Any] = {
    "theme": "dark",
    "accent_color": "cyan",
    "sidebar_collapsed": False,
    "chart_grid_lines": True,
    "chart_crosshair": True,
    "chart_candle_colors": "green-red",
    "email_notifications": {
        "test_completed": True,
        "trade_executed": False,
        "daily_summary": False,
        "stop_loss_hit": True,
        "marketing": False,
    },
    "inapp_notifications": {
        "show_toasts": True,
        "sound_effects": False,
        "desktop_notifications": False,
    },
    "default_asset": "BTC/USDT",
    "default_timeframe": "1h",
    "default_capital": 10_000.0,
    "default_playback_speed": "normal",
    "safety_mode_default": True,
    "allow_leverage_default": False,
    "max_position_size_pct": 50.0,
    "max_leverage": 5,
    "max_loss_per_trade_pct": 5.0,
    "max_daily_loss_pct": 10.0,
    "max_total_drawdown_pct": 20.0,
}
PATH = "/api/users/me/settings"


async def test_first_reads_that_race_all_see_the_defaults(ada: Person) -> None:
    answers = await asyncio.gather(*(ada.get(PATH) for _ in range(8)))

    assert [answer.json() for answer in answers] == [{"settings": DEFAULTS}] * 8


async def test_what_is_not_named_stays(ada: Person) -> None:
    changes = {
        "theme": "light",
        "accent_color": None,
        "email_notifications": {"trade_executed": True, "marketing": None, "smoke": True},
        "inapp_notifications": {},
        "default_asset": "eth-usdt",
        "default_timeframe": "4H",
        "default_capital": 250.5,
        "max_leverage": 10,
        "max_position_size_pct": 12.345678,
        "max_daily_loss_pct": 0,
        "of_a_newer_front_end": 1,
    }

    changed = await ada.put(PATH, changes)

    expected = DEFAULTS | {
        "theme": "light",
        "email_notifications": DEFAULTS["email_notifications"] | {"trade_executed": True},
        "default_asset": "ETH/USDT",
        "default_timeframe": "4h",
        "default_capital": 250.5,
        "max_leverage": 10,
        "max_position_size_pct": 12.345678,
        "max_daily_loss_pct": 0.0,
    }
    assert changed.json() == {"settings": expected}
    assert (await ada.get(PATH)).json() == {"settings": expected}


async def test_no_change_changes_nothing(ada: Person) -> None:
    assert (await ada.put(PATH, {})).json() == {"settings": DEFAULTS}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("theme", "pink"),
        ("accent_color", "red"),
        ("chart_candle_colors", ""),
        ("chart_candle_colors", "a\x00b"),
        ("sidebar_collapsed", "perhaps"),
        ("default_asset", "bitcoin"),
        ("default_timeframe", "7h"),
        ("default_capital", 99.99),
        ("default_capital", 1_000_001),
        ("default_playback_speed", "warp"),
        ("max_position_size_pct", 0.99),
        ("max_position_size_pct", 100.01),
        ("max_leverage", 0),
        ("max_leverage", 11),
        ("max_leverage", 2.5),
        ("max_loss_per_trade_pct", 0),
        ("max_daily_loss_pct", -1),
        ("max_total_drawdown_pct", 101),
        ("email_notifications", {"marketing": "often"}),
    ],
)
async def test_what_cannot_be_is_refused_by_name_and_nothing_changes(
    ada: Person, field: str, value: object
) -> None:
    answer = await ada.put(PATH, {"theme": "light", field: value})

    assert error_of(answer, 422, "VALIDATION_ERROR")["detail"].startswith(field)
    assert (await ada.get(PATH)).json() == {"settings": DEFAULTS}


async def test_a_number_that_is_none_is_refused(ada: Person) -> None:
    headers = {"Content-Type": "application/json"}
    body = '{"max_daily_loss_pct": NaN}'

    answer = await ada.http.put(PATH, content=body, headers=headers)

    error_of(answer, 422, "VALIDATION_ERROR")


async def test_settings_are_ones_own(ada: Person, bob: Person) -> None:
    await ada.put(PATH, {"theme": "light"})

    assert (await bob.get(PATH)).json() == {"settings": DEFAULTS}


async def test_a_backtest_starts_with_the_limits_of_the_settings(world: World, ada: Person) -> None:
    await upload(ada)
    await ada.add_key()
    agent = await ada.add_agent()
    await ada.put(
        PATH,
        {
            "max_leverage": 3,
            "max_position_size_pct": 25,
            "max_loss_per_trade_pct": 2,
            "max_daily_loss_pct": 0,
            "max_total_drawdown_pct": 15,
            "allow_leverage_default": True,
            "safety_mode_default": False,
        },
    )

    session = created(await ada.start(agent["id"]))["session"]
    await ada.put(PATH, {"max_leverage": 9, "max_position_size_pct": 90})

    assert (session["allow_leverage"], session["safety_mode"]) == (True, False)
    rules = await stored_rules(world, session["id"])
    assert (rules["max_leverage"], rules["max_position_size"]) == (3.0, 0.25)
    assert (rules["max_loss_per_trade"], rules["max_daily_loss"]) == (0.02, None)
    assert rules["max_total_drawdown"] == 0.15


async def stored_rules(world: World, session_id: str) -> dict[str, Any]:
    async with world.services.database.as_system() as session:
        found = await session.execute(
            text("SELECT rules FROM trading_sessions WHERE id = :id"), {"id": session_id}
        )
    rules: dict[str, Any] = found.scalar_one()
    return rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_total_drawdown_pct": False},
        {"max_total_drawdown_pct": "5"},
        {"max_leverage": True},
        {"allow_leverage_default": 0},
        {"email_notifications": {"marketing": "no"}},
    ],
)
async def test_numbers_and_flags_are_such_and_nothing_that_may_be_read_as_one(
    ada: Person, wrong: dict[str, object]
) -> None:
    error_of(await ada.put("/api/users/me/settings", wrong), 422, "VALIDATION_ERROR")
