"""Opens sealed payloads for Temporal's Web UI and command line, on the operator's own machine."""

from collections.abc import Sequence

import uvicorn
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payloads
from temporalio.converter import PayloadCodec

from workflows.payload_codec import InvalidPayloadKeys

_LOOPBACK = "127.0.0.1"
# A page elsewhere could let its own name point here: only the machine's names are served.
_HOSTS = [_LOOPBACK, "localhost"]
_MAX_BODY_BYTES = 16 * 1024 * 1024


def create_app(codec: PayloadCodec, *, origins: Sequence[str]) -> Starlette:
    """The codec server's protocol: `POST /encode` and `/decode` of payloads as protobuf's JSON.

    Browsers get an answer for pages of `origins` alone.
    """

    async def encode(request: Request) -> Response:
        payloads = await _payloads(request)
        return _answer(Payloads(payloads=await codec.encode(payloads.payloads)))

    async def decode(request: Request) -> Response:
        payloads = await _payloads(request)
        return _answer(Payloads(payloads=await codec.decode(payloads.payloads)))

    return Starlette(
        routes=[
            Route("/encode", encode, methods=["POST"]),
            Route("/decode", decode, methods=["POST"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS),
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["POST"],
                allow_headers=["content-type", "x-namespace", "authorization"],
            ),
        ],
        exception_handlers={ParseError: _refused, InvalidPayloadKeys: _refused},
    )


def serve(codec: PayloadCodec, *, port: int, origins: Sequence[str]) -> None:
    """Serve on the loopback interface until Ctrl-C; whoever can reach it can read payloads."""
    app = create_app(codec, origins=origins)
    uvicorn.run(app, host=_LOOPBACK, port=port, log_level="warning", access_log=False)


async def _payloads(request: Request) -> Payloads:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise ParseError("The payloads are too long.")
    try:
        return Parse(bytes(body), Payloads())
    except UnicodeDecodeError:
        raise ParseError("The payloads are not JSON.") from None


def _answer(payloads: Payloads) -> Response:
    return Response(MessageToJson(payloads), media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), status_code=400)
