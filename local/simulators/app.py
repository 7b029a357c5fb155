"""One process for what is simulated: OpenRouter under `/api/v1` and the token issuer's JWKS."""

import argparse
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from local.issuer import JWKS_PATH, Issuer
from local.simulators import openrouter

OPENROUTER_PATH = "/api/v1"
HEALTH_PATH = "/health"


def create_app(issuer: Issuer, *, piece_delay: float = 0.0) -> Starlette:
    """`piece_delay` is the pause between two pieces of a streamed reply, in seconds."""

    async def jwks(_request: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks(), headers={"Cache-Control": "public, max-age=60"})

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "simulated": True})

    return Starlette(
        routes=[
            Route(HEALTH_PATH, health),
            Route(JWKS_PATH, jwks),
            Mount(OPENROUTER_PATH, openrouter.create_app(piece_delay=piece_delay)),
        ]
    )


def main() -> None:
    """Serve the simulators on the loopback interface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a socket that listens already")
    parser.add_argument("--issuer-key", type=Path, required=True)
    parser.add_argument("--piece-delay", type=float, default=0.0)
    given = parser.parse_args()
    app = create_app(Issuer.from_file(given.issuer_key), piece_delay=given.piece_delay)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[socket.socket(fileno=given.fd)])


if __name__ == "__main__":
    main()
