"""Where market data comes from is one word, and costs nothing until it is asked."""

import subprocess
import sys

import pytest

from integrations.exchanges.connection import Connection, is_exchange
from integrations.exchanges.exchange_market import open_market
from tests.integrations.exchanges.simulation import SimulatedExchange

IMPORTS = """
import sys
import activities, workflows.backtest, settings
from integrations.exchanges.exchange_market import open_market
open_market("ccxt:binance")
open_market("simulated", base_url="http://127.0.0.1:1")
print([name for name in sys.modules if name.partition(".")[0] in ("ccxt", "aiohttp")])
"""

OPENED = """
import asyncio, sys
from integrations.exchanges.exchange_market import open_market
asyncio.run(open_market("ccxt:binance").open())
before = set(sys.modules)
import ccxt.pro.binance, aiohttp, coincurve
print(sorted(set(sys.modules) - before))
"""


def test_a_market_that_was_opened_has_imported_all_that_it_uses():
    """Compiled modules cannot be imported while a workflow's sandbox is at work."""
    shown = subprocess.run(
        [sys.executable, "-c", OPENED], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("ccxt:nowhere", "ccxt has no exchange 'nowhere'"),
        ("ccxt:", "ccxt has no exchange ''"),
        ("ccxt:__init__", "ccxt has no exchange '__init__'"),
        ("ccxt:../binance", "ccxt has no exchange '../binance'"),
        ("binance", "'binance' is not a market data source; write simulated or"),
        ("", "'' is not a market data source"),
        ("simulated", "needs the address of its exchange"),
    ],
)
def test_a_source_that_is_none_is_named(source: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        open_market(source)


def test_nothing_is_imported_before_the_market_is_asked():
    told = subprocess.run(
        [sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["binance", "kraken", "coinbase", "okx", "bybit", "bitbank"])
async def test_the_usual_exchanges_open(name: str):
    assert is_exchange(name)
    connection = Connection(name, source=f"ccxt:{name}")
    await connection.require_timeframe("1m")
    assert await connection.page_size() >= 100
    await connection.close()


async def test_the_simulated_exchange_is_all_that_is_asked(exchange: SimulatedExchange):
    connection = Connection("binance", source="simulated", base_url=exchange.url)
    addresses: list[str] = []

    async def collect(opened: object) -> None:
        _collect(opened.urls["api"], addresses)  # type: ignore[attr-defined]

    await connection.ask(collect)
    here = exchange.url.removeprefix("http://")
    assert f"http://{here}/api/v3" in addresses
    assert f"ws://{here}/ws" in addresses
    assert all(address.split("/")[2] == here for address in addresses)
    await connection.close()


async def test_the_rate_limiter_is_on_and_retries_are_off():
    connection = Connection("binance", source="ccxt:binance")

    async def look(opened: object) -> tuple[bool, int]:
        return opened.enableRateLimit, opened.options["maxRetriesOnFailure"]  # type: ignore[attr-defined]

    assert await connection.ask(look) == (True, 0)
    await connection.close()


def _collect(found: object, addresses: list[str]) -> None:
    if isinstance(found, dict):
        for inner in found.values():
            _collect(inner, addresses)
    else:
        addresses.append(str(found))
