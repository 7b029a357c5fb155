"""A simulated exchange: as much of Binance's spot market data as ccxt asks for.

REST: `GET /api/v3/time`, `/exchangeInfo`, `/klines`, `/ticker/24hr`. WebSocket: `/ws/{any}`, with
`SUBSCRIBE` to `btcusdt@ticker` and the like. Beyond Binance: `GET /clock` tells the exchange's time
and speed. For tests: `POST /debug/clock` (`now_ms`, `advance_ms`, `speed`; 0 stops it),
`POST` and `DELETE /debug/faults` (local/simulators/exchange_faults.py), `GET` and
`DELETE /debug/requests`, which are counted by path.

Everything that it serves is labelled simulated. A candle depends on the seed and its time alone:
it is the same for every request, origin of the clock, and process.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from local.simulators.exchange_clock import ExchangeClock
from local.simulators.exchange_faults import AnswerFault, ExchangeFaults, HangFault
from local.simulators.exchange_history import LISTED_MS, History, Span
from trading.candles import Candle, Timeframe

SEED: Final = 1
ASSETS: Final = tuple(
    f"{base}/USDT"
    for base in (
        "BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "DOGE", "AVAX", "LINK", "DOT", "LTC", "MATIC",
    )
)  # fmt: skip
_DEFAULT_PAGE, _LONGEST_PAGE = 500, 1000
_SPREAD = 0.0001
_SIMULATED: Final = {"X-Simulated": "exchange"}
_DAY_MS = Timeframe.DAY_1.milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What was asked for, at what time; without a start, the last candles before the end."""

    asset: str
    timeframe: Timeframe
    start_ms: int | None
    end_ms: int
    limit: int
    now_ms: int


class _Refused(Exception):
    """What Binance answers with status 400."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def create_app(
    clock: ExchangeClock | None = None, *, seed: int = SEED, tick_seconds: float = 1.0
) -> Starlette:
    """The simulated exchange; a ticker stream pushes every `tick_seconds`, of ours."""
    exchange = _Exchange(clock or ExchangeClock(), History(seed), tick_seconds)
    return Starlette(
        routes=[
            Route("/api/v3/time", exchange.answering(exchange.time)),
            Route("/api/v3/exchangeInfo", exchange.answering(exchange.listing)),
            Route("/api/v3/klines", exchange.answering(exchange.klines)),
            Route("/api/v3/ticker/24hr", exchange.answering(exchange.ticker)),
            WebSocketRoute("/ws/{stream}", exchange.stream),
            Route("/clock", exchange.clock, methods=["GET"]),
            Route("/debug/clock", exchange.set_clock, methods=["POST"]),
            Route("/debug/faults", exchange.add_faults, methods=["POST"]),
            Route("/debug/faults", exchange.clear_faults, methods=["DELETE"]),
            Route("/debug/requests", exchange.requests, methods=["GET"]),
            Route("/debug/requests", exchange.forget_requests, methods=["DELETE"]),
        ]
    )


Handler = Callable[[Request], Awaitable[Response]]


class _Exchange:
    def __init__(self, clock: ExchangeClock, history: History, tick_seconds: float) -> None:
        self._clock = clock
        self._history = history
        self._tick_seconds = tick_seconds
        self._faults = ExchangeFaults()
        self._requests: Counter[str] = Counter()

    def answering(self, answer: Callable[[Mapping[str, str]], Awaitable[object]]) -> Handler:
        """A route of the market: counted, subject to faults, its refusals as Binance words them."""

        async def handle(request: Request) -> Response:
            path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            self._requests[path] += 1
            fault = self._faults.for_request(path)
            if fault is not None:
                return await _faulty(fault, request)
            try:
                return _json(await answer(request.query_params))
            except _Refused as refusal:
                return _json({"code": refusal.code, "msg": refusal.message}, 400)

        return handle

    async def time(self, _: Mapping[str, str]) -> object:
        return {"serverTime": self._clock.now_ms, "simulated": True}

    async def listing(self, _: Mapping[str, str]) -> object:
        listed = [asset for asset in ASSETS if not self._faults.is_gone(asset)]
        return {
            "timezone": "UTC",
            "serverTime": self._clock.now_ms,
            "simulated": True,
            "symbols": [_listed(asset) for asset in listed],
        }

    async def klines(self, asked: Mapping[str, str]) -> object:
        now_ms = self._clock.now_ms
        wanted = _Page(
            asset=self._asset(asked),
            timeframe=_timeframe(asked),
            start_ms=_number(asked, "startTime"),
            end_ms=min(_number(asked, "endTime") or now_ms, now_ms) + 1,
            limit=min(_number(asked, "limit") or _DEFAULT_PAGE, _LONGEST_PAGE),
            now_ms=now_ms,
        )
        candles = await asyncio.to_thread(self._page, wanted)
        return [_kline(candle, wanted.timeframe) for candle in candles]

    async def ticker(self, asked: Mapping[str, str]) -> object:
        return await asyncio.to_thread(self._ticker, self._asset(asked))

    async def clock(self, _: Request) -> Response:
        told = {"now_ms": self._clock.now_ms, "speed": self._clock.speed, "simulated": True}
        return _json(told)

    async def set_clock(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        self._clock.set(
            now_ms=asked.get("now_ms"),
            advance_ms=asked.get("advance_ms", 0),
            speed=asked.get("speed"),
        )
        return await self.clock(request)

    async def add_faults(self, request: Request) -> Response:
        try:
            added = self._faults.add(await request.body())
        except ValidationError as error:
            return _json({"problems": error.errors(include_url=False, include_context=False)}, 422)
        return _json({"added": added})

    async def clear_faults(self, _: Request) -> Response:
        self._faults.clear()
        return _json({"added": 0})

    async def requests(self, _: Request) -> Response:
        return _json({"simulated": True, "by_path": dict(self._requests)})

    async def forget_requests(self, _: Request) -> Response:
        self._requests.clear()
        return _json({"simulated": True, "by_path": {}})

    async def stream(self, socket: WebSocket) -> None:
        self._requests["/ws"] += 1
        fault = self._faults.for_stream()
        if fault is not None and fault.how == "refuse":
            await socket.close()
            return
        await socket.accept()
        topics: set[str] = set()
        pushing = asyncio.create_task(self._push(socket, topics, fault.how if fault else None))
        try:
            async for message in socket.iter_json():
                if message.get("method") == "SUBSCRIBE":
                    topics.update(message["params"])
                await socket.send_json({"result": None, "id": message.get("id")})
        finally:
            pushing.cancel()

    async def _push(self, socket: WebSocket, topics: set[str], fault: str | None) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has gone
            while True:
                await asyncio.sleep(self._tick_seconds)
                for topic in sorted(topics) if fault != "silent" else ():
                    await socket.send_json(await asyncio.to_thread(self._pushed, topic))
                if fault == "drop" and topics:
                    await socket.close(1012)
                    return

    def _page(self, wanted: _Page) -> list[Candle]:
        """Up to `limit` candles from a time on, past any gap, or (without one) up to the end."""
        reach = wanted.limit * wanted.timeframe.milliseconds
        if wanted.start_ms is None:
            return self._known(wanted, wanted.end_ms - reach)[-wanted.limit :]
        candles: list[Candle] = []
        start_ms = max(wanted.start_ms, LISTED_MS)
        while len(candles) < wanted.limit and start_ms < wanted.end_ms:
            candles += self._known(wanted, start_ms, min(start_ms + reach, wanted.end_ms))
            start_ms += reach
        return candles[: wanted.limit]

    def _known(self, wanted: _Page, start_ms: int, end_ms: int | None = None) -> list[Candle]:
        series = self._history.candles(
            wanted.asset,
            wanted.timeframe,
            Span(start_ms=start_ms, end_ms=wanted.end_ms if end_ms is None else end_ms),
            now_ms=wanted.now_ms,
            halts=self._faults.halts(wanted.asset),
        )
        return self._faults.published(
            wanted.asset, wanted.timeframe, list(series), now_ms=wanted.now_ms
        )

    def _ticker(self, asset: str) -> dict[str, Any]:
        now_ms = self._clock.now_ms
        day = self._history.candles(
            asset,
            Timeframe.MINUTE_1,
            Span(start_ms=now_ms - _DAY_MS, end_ms=now_ms + 1),
            now_ms=now_ms,
            halts=self._faults.halts(asset),
        )
        open_, price = float(day.open[0]), float(day.close[-1])
        return {
            "symbol": _symbol(asset),
            "priceChange": _text(price - open_),
            "priceChangePercent": f"{(price / open_ - 1) * 100:.3f}",
            "lastPrice": _text(price),
            "bidPrice": _text(price * (1 - _SPREAD)),
            "askPrice": _text(price * (1 + _SPREAD)),
            "openPrice": _text(open_),
            "highPrice": _text(float(day.high.max())),
            "lowPrice": _text(float(day.low.min())),
            "volume": _text(float(day.volume.sum())),
            "openTime": now_ms - _DAY_MS,
            "closeTime": now_ms,
            "simulated": True,
        }

    def _pushed(self, topic: str) -> dict[str, Any]:
        """The same ticker in the short words of the stream."""
        name = topic.partition("@")[0].upper()
        ticker = self._ticker(_ASSETS_BY_SYMBOL[name])
        return {"e": "24hrTicker", "E": ticker["closeTime"], "simulated": True} | {
            short: ticker[long] for short, long in _STREAM_WORDS.items()
        }

    def _asset(self, asked: Mapping[str, str]) -> str:
        asset = _ASSETS_BY_SYMBOL.get(asked.get("symbol", ""))
        if asset is None or self._faults.is_gone(asset):
            raise _Refused(-1121, "Invalid symbol.")
        return asset


def _symbol(asset: str) -> str:
    return asset.replace("/", "")


_ASSETS_BY_SYMBOL: Final = {_symbol(asset): asset for asset in ASSETS}
_STREAM_WORDS: Final = {
    "s": "symbol",
    "p": "priceChange",
    "P": "priceChangePercent",
    "c": "lastPrice",
    "b": "bidPrice",
    "a": "askPrice",
    "o": "openPrice",
    "h": "highPrice",
    "l": "lowPrice",
    "v": "volume",
    "O": "openTime",
    "C": "closeTime",
}


def _listed(asset: str) -> dict[str, Any]:
    base, quote = asset.split("/")
    return {
        "symbol": _symbol(asset),
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0", "maxPrice": "0", "tickSize": "0"},
            {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "0", "stepSize": "0.001"},
        ],
        "permissions": ["SPOT"],
    }


def _timeframe(asked: Mapping[str, str]) -> Timeframe:
    try:
        return Timeframe(asked.get("interval", ""))
    except ValueError:
        raise _Refused(-1120, "Invalid interval.") from None


def _number(asked: Mapping[str, str], name: str) -> int | None:
    text = asked.get(name)
    if text is not None and not text.isdecimal():
        raise _Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    return None if text is None else int(text)


def _kline(candle: Candle, timeframe: Timeframe) -> list[object]:
    prices = (candle.open, candle.high, candle.low, candle.close)
    traded = candle.volume * (candle.open + candle.close) / 2
    return [
        candle.open_time,
        *map(_text, prices),
        _text(candle.volume),
        candle.open_time + timeframe.milliseconds - 1,
        _text(traded),
        0,
        "0",
        "0",
        "0",
    ]


def _text(value: float) -> str:
    return f"{value:.8f}"


async def _faulty(fault: AnswerFault | HangFault, request: Request) -> Response:
    if isinstance(fault, HangFault):
        while (await request.receive())["type"] != "http.disconnect":
            pass  # until the client gives up
        return Response(status_code=504)
    retry_after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return Response(
        fault.body if fault.body is not None else "[simulated] as told",
        fault.status,
        headers={**_SIMULATED, **retry_after},
    )


def _json(content: object, status: int = 200) -> Response:
    body = orjson.dumps(content)
    return Response(body, status, headers=_SIMULATED, media_type="application/json")
