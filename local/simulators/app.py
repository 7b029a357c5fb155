"""One process for what is simulated: OpenRouter, the exchange, and the token issuer's JWKS."""

import argparse
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from local.issuer import JWKS_PATH, Issuer
from local.simulators import exchange_server, openrouter
from local.simulators.exchange_clock import ExchangeClock

OPENROUTER_PATH = "/api/v1"
EXCHANGE_PATH = "/exchange"
HEALTH_PATH = "/health"


def create_app(
    issuer: Issuer, *, piece_delay: float = 0.0, exchange_clock: ExchangeClock | None = None
) -> Starlette:
    """`piece_delay` is the pause between two pieces of a streamed reply, in seconds.

    Without an `exchange_clock` of its own, the exchange has our time.
    """

    async def jwks(_request: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks(), headers={"Cache-Control": "public, max-age=60"})

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "simulated": True})

    return Starlette(
        routes=[
            Route(HEALTH_PATH, health),
            Route(JWKS_PATH, jwks),
            Mount(OPENROUTER_PATH, openrouter.create_app(piece_delay=piece_delay)),
            Mount(EXCHANGE_PATH, exchange_server.create_app(exchange_clock)),
        ]
    )


def main() -> None:
    """Serve the simulators on the loopback interface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a socket that listens already")
    parser.add_argument("--issuer-key", type=Path, required=True)
    parser.add_argument("--piece-delay", type=float, default=0.0)
    parser.add_argument("--exchange-origin", type=int, help="epoch ms; needed with a speed")
    parser.add_argument("--exchange-wall-origin", type=float, help="our time then; unset, the same")
    parser.add_argument("--exchange-speed", type=float, default=1.0)
    given = parser.parse_args()
    if given.exchange_speed != 1 and given.exchange_origin is None:
        # A default would put the exchange's time somewhere else after every restart.
        parser.error("--exchange-speed needs --exchange-origin")
    app = create_app(
        Issuer.from_file(given.issuer_key),
        piece_delay=given.piece_delay,
        exchange_clock=ExchangeClock(
            origin_ms=given.exchange_origin or 0,
            wall_origin_ms=given.exchange_wall_origin,
            speed=given.exchange_speed,
        ),
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="websockets-sansio")
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=given.fd)])


if __name__ == "__main__":
    main()
