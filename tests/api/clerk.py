"""Clerk as the API meets it: what it delivers, signed by hand, and its backend API."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.api.world import World

WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"twenty-four bytes of it.").decode()
SECRET_KEY = "sk_test_of_the_backend"

Answer = int | bytes | Mapping[str, Any]


def clerk_user(clerk_id: str, **changes: Any) -> dict[str, Any]:
    """A user as Clerk writes one; `email` is the primary address."""
    email = changes.pop("email", f"{clerk_id}@example.com")
    addresses = [{"id": "idn_0", "email_address": f"old-{clerk_id}@example.com"}]
    primary = None if email is None else {"id": "idn_1", "email_address": email}
    return {
        "id": clerk_id,
        "object": "user",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "username": None,
        "image_url": "https://img.clerk.test/ada",
        "email_addresses": [] if primary is None else [*addresses, primary],
        "primary_email_address_id": primary and primary["id"],
        "updated_at": 1_764_238_521_000,
    } | changes


def event(type: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": type, "object": "event", "data": data}).encode()


def signed(
    body: bytes, *, id: str | None = None, age_s: float = 0.0, secret: str = WEBHOOK_SECRET
) -> dict[str, str]:
    """The headers that Svix sends with a body."""
    name, sent_at = id or f"msg_{uuid4().hex}", str(int(time.time() - age_s))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{name}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"svix-id": name, "svix-timestamp": sent_at, "svix-signature": signature}


async def post(world: World, body: bytes, headers: Mapping[str, Any]) -> httpx.Response:
    async with world.http() as http:
        return await http.post("/api/webhooks/clerk", content=body, headers=dict(headers))


async def tell(
    world: World, type: str, data: Mapping[str, Any], *, id: str | None = None
) -> httpx.Response:
    """Deliver an event as Clerk does."""
    body = event(type, data)
    return await post(world, body, signed(body, id=id))


@dataclass
class ClerkBackend:
    """Clerk's backend API: the users it knows, and what it was asked; a number is a failure."""

    users: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/users/{id:path}", self._user)])

    async def _user(self, request: Request) -> Response:
        self.asked.append(request.path_params["id"])
        self.keys.add(request.headers["authorization"])
        match self.users.get(request.path_params["id"], 404):
            case int(status):
                return JSONResponse({"errors": []}, status)
            case bytes(content):
                return Response(content, media_type="application/json")
            case user:
                return JSONResponse(user)
