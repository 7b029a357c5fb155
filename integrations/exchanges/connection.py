"""One exchange of ccxt: found by name, loaded when it is first asked, asked about one asset."""

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from integrations.errors import RequestRejected, SymbolUnavailable, TemporarilyUnavailable
from integrations.exchanges.failures import exchange_failures, note_answers

_TIMEOUT_MS: Final = 10_000
_LISTING_PAUSE_S: Final = 60.0
_DEFAULT_PAGE: Final = 500


def is_exchange(exchange_id: str) -> bool:
    """Whether ccxt has such an exchange; looks for its file and imports nothing."""
    return exchange_id.isalnum() and any(
        (directory / f"{exchange_id}.py").is_file()
        for directory in (_library() / "pro", _library() / "async_support")
    )


class Connection:
    """A ccxt exchange with its own rate limiter and none of its retries.

    Importing ccxt takes seconds and a hundred megabytes, so it waits for the first question.
    `source` opens the message of every error. With a `base_url` each address of the exchange
    becomes the same path below it, and nothing goes anywhere else.
    """

    def __init__(
        self,
        exchange_id: str,
        *,
        source: str,
        base_url: str | None = None,
        timeout_ms: int = _TIMEOUT_MS,
    ) -> None:
        self.source = source
        self._is_closed = False
        self._exchange_id = exchange_id
        self._base_url = base_url
        self._timeout_ms = timeout_ms
        self._exchange: Any = None
        self._opening = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._listed_at = float("-inf")

    async def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """Put a question to the exchange. Raises `IntegrationError`."""
        exchange = await self._opened()
        with exchange_failures(self.source):
            return await question(exchange)

    async def ask_about(self, asset: str, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same of an asset; raises `SymbolUnavailable` for one that is not listed."""
        await self.ask(lambda exchange: self._find(exchange, asset))
        return await self.ask(question)

    async def has(self, ability: str) -> bool:
        """Whether the exchange can do what ccxt calls by this name, such as `watchTicker`."""
        return bool((await self._opened()).has.get(ability))

    async def page_size(self) -> int:
        """How many candles the exchange gives for one request."""
        exchange = await self._opened()
        with exchange_failures(self.source):
            limit = exchange.feature_value_by_type("spot", None, "fetchOHLCV", "limit")
        return int(limit or _DEFAULT_PAGE)

    async def require_timeframe(self, timeframe: str) -> None:
        """Raises `RequestRejected` when the exchange has no candles of this length."""
        if timeframe not in ((await self._opened()).timeframes or {}):
            raise RequestRejected(f"{self.source} has no {timeframe} candles")

    def is_closed(self) -> bool:
        return self._is_closed

    async def open(self) -> None:
        """Import the exchange; nothing is asked of it."""
        await self._opened()

    async def close(self) -> None:
        """Close what is open; later questions raise `TemporarilyUnavailable`."""
        self._is_closed = True
        if self._exchange is not None:
            await self._exchange.close()

    async def _opened(self) -> Any:
        if self._is_closed:
            raise TemporarilyUnavailable(f"{self.source}: the connection has been closed")
        async with self._opening:
            if self._exchange is None:
                # In a thread: everything else that the process does goes on meanwhile.
                kind = await asyncio.to_thread(_exchange_class, self._exchange_id)
                self._exchange = self._prepared(kind)
        return self._exchange

    def _prepared(self, kind: Any) -> Any:
        exchange = kind(
            {
                "enableRateLimit": True,
                "timeout": self._timeout_ms,
                "aiohttp_trust_env": self._base_url is None,
                "options": {"defaultType": "spot", "maxRetriesOnFailure": 0},
            }
        )
        markets = exchange.options.get("fetchMarkets")
        if isinstance(markets, dict) and "spot" in markets.get("types", ()):
            markets["types"] = ["spot"]
        if self._base_url is not None:
            exchange.urls["api"] = _moved(exchange.urls["api"], self._base_url)
        note_answers(exchange)
        return exchange

    async def _find(self, exchange: Any, asset: str) -> None:
        # Under a lock, because ccxt shares one load among all who wait for it, and the
        # cancellation of any of them would cancel it for the others.
        async with self._listing:
            is_recent = time.monotonic() - self._listed_at < _LISTING_PAUSE_S
            if asset not in (exchange.markets or {}) and not is_recent:
                await exchange.load_markets(True)
                self._listed_at = time.monotonic()
        if asset not in exchange.markets:
            raise SymbolUnavailable(f"{self.source} does not list {asset}")


def _library() -> Path:
    spec = importlib.util.find_spec("ccxt")
    if spec is None or spec.origin is None:
        raise ImportError("ccxt is not installed")
    return Path(spec.origin).parent


def _exchange_class(exchange_id: str) -> Any:
    with_streams = (_library() / "pro" / f"{exchange_id}.py").is_file()
    package = "ccxt.pro" if with_streams else "ccxt.async_support"
    return getattr(importlib.import_module(f"{package}.{exchange_id}"), exchange_id)


def _moved(addresses: Any, base_url: str) -> Any:
    if isinstance(addresses, dict):
        return {name: _moved(address, base_url) for name, address in addresses.items()}
    address = urlsplit(addresses)
    is_stream = address.scheme in {"ws", "wss"}
    base = f"ws{base_url.removeprefix('http')}" if is_stream else base_url
    return base.rstrip("/") + address.path
