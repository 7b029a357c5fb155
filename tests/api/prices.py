"""Prices as a feed would post them, and clients that watch them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from websockets.asyncio.client import connect

from events.prices import PriceBoard, PriceTick
from events.types import iso_timestamp
from tests.api.sockets import Address, Client


def url(address: Address, asset: str, query: str = "") -> str:
    name = asset.replace("/", "-").lower()
    return f"ws://127.0.0.1:{address.port}/ws/prices/{name}?{query}"


@asynccontextmanager
async def watching(address: Address, asset: str) -> AsyncIterator[Client]:
    async with connect(url(address, asset), compression=None) as connection:
        yield Client(connection)


def a_price(asset: str, price: float = 100.0, *, seconds_ago: float = 0.0) -> PriceTick:
    at = datetime.now(tz=UTC) - timedelta(seconds=seconds_ago)
    return PriceTick(
        asset=asset,
        status="live",
        timestamp=iso_timestamp(at),
        price=price,
        bid=price - 1,
        ask=price + 1,
        change_24h=-2.5,
        volume_24h=7.0,
        exchange_ms=1_700_000_000_000,
    )


def down(asset: str) -> PriceTick:
    return PriceTick(asset=asset, status="down", timestamp=iso_timestamp(datetime.now(tz=UTC)))


async def subscribed(board: PriceBoard, asset: str) -> None:
    async with asyncio.timeout(5):
        while not await board.listeners(asset):
            await asyncio.sleep(0.01)


def told(client: Client) -> list[Any]:
    """What the client was told: prices, and how the source stands."""
    shown = {"price": "price", "price_status": "status"}
    return [f["data"][shown[f["event"]]] for f in client.frames if f["event"] in shown]
