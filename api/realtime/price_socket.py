"""The WebSocket of an asset's price, which everybody may watch."""

import asyncio
from collections import deque
from datetime import UTC, datetime
from time import monotonic

from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket

from api.dependencies import Services, client_address, services_of
from api.errors import ApiError, NotFound, Unavailable
from api.realtime.commands import Commands
from api.realtime.conversation import converse, refuse, subprotocol_of
from api.realtime.frames import own_message
from api.realtime.market_view import SourceStanding
from api.realtime.prices import TooManySockets
from api.realtime.pulse import Pulse
from api.wire import encode_frame
from events.payloads import price_payload
from events.prices import PriceTick
from trading.candles import parse_asset
from trading.errors import TradingError

# A client that does not keep up misses the oldest prices.
QUEUE_LIMIT = 100
_LOOK_EVERY_S = 1.0


async def watch_price(socket: WebSocket, asset: str) -> None:
    """Serve one socket from its handshake to its end."""
    services = services_of(socket)
    try:
        wanted = _asset(services, asset)
        with services.relay.prices.admitted(client_address(socket)):
            await socket.accept(subprotocol=subprotocol_of(socket))
            prices = PriceSocket(socket, stall_limit_s=services.config.socket_stall_limit_s)
            async with services.relay.prices.attached(wanted, prices):
                commands = Commands(socket, prices.say, {})
                await converse(socket, prices.run(), prices.watch_client(), commands.run())
    except TooManySockets:
        await refuse(socket, ApiError(429, "RATE_LIMITED", "Too many prices for one address."))
    except HTTPException as e:
        await refuse(socket, e)


class PriceSocket:
    """Sends an asset's prices to one accepted socket, in order."""

    def __init__(self, socket: WebSocket, *, stall_limit_s: float) -> None:
        self._pulse = Pulse(socket, stall_limit_s)
        self._standing = SourceStanding()
        self._ticks: deque[PriceTick] = deque(maxlen=QUEUE_LIMIT)
        self._messages: deque[str] = deque()
        self._wake = asyncio.Event()

    def hear(self, tick: PriceTick) -> None:
        """Queue a price; never waits."""
        self._ticks.append(tick)
        self._wake.set()

    def say(self, message: str) -> None:
        """Queue a message of ours, ahead of the prices."""
        self._messages.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Send what is queued, without end."""
        while True:
            self._wake.clear()
            if self._messages:
                await self._pulse.send(self._messages.popleft())
            elif self._ticks:
                await self._send(self._ticks.popleft())
            else:
                await self._wake.wait()

    async def watch_client(self) -> None:
        """Send heartbeats until the client accepts nothing any more."""
        while not self._pulse.is_lost(now := monotonic()):
            if (heartbeat := self._pulse.beat(now)) is not None:
                self.say(heartbeat)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _send(self, tick: PriceTick) -> None:
        # A slow client may come to it when it is no longer the price.
        if tick.status == "live" and not tick.is_live(datetime.now(tz=UTC)):
            return
        if (news := self._standing.news(tick)) is not None:
            await self._pulse.send(encode_frame(news))
        if tick.status == "live":
            await self._pulse.send(own_message("price", price_payload(tick)))


def _asset(services: Services, asset: str) -> str:
    """Raise an ApiError where there is no such name, or no source of prices."""
    try:
        wanted = parse_asset(asset)
    except TradingError:
        raise NotFound("asset") from None
    if not services.config.has_live_market:
        raise Unavailable("This installation has no source of live prices.")
    return wanted
