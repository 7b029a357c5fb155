"""What a request is given: the services of the process, and who is asking."""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from cachetools import TTLCache
from cryptography.fernet import MultiFernet
from fastapi import Depends, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis
from starlette.requests import HTTPConnection
from typing_extensions import override

from api.backtests import Backtests
from api.certificates import Certificates
from api.config import ApiConfig
from api.controls import Controls
from api.errors import AccountDeactivated, Unauthorized
from api.exports import Exports
from api.forward_tests import ForwardTests
from api.metrics import ApiMetrics
from api.rate_limits import RateLimits
from api.realtime.relay import Relay
from api.signed_links import LinkQuery, SignedLinks
from api.verification import CertificateVerifier
from db.engine import Database
from db.market_frames import MarketFrames
from db.models.users import UserRecord
from db.repositories.users import Profile, SignInRepository
from integrations.clerk.tokens import TokenClaims, TokenRefused, TokenVerifier
from integrations.clerk.users import ClerkUser, ClerkUsers
from integrations.clerk.webhooks import WebhookVerifier
from integrations.errors import IntegrationError
from integrations.openrouter.client import OpenRouterClient
from integrations.storage.objects import ObjectStore
from workflows.runtime import Temporal

KNOWN_USERS = 10_000
KNOWN_USER_S = 5.0
LOOKED_S = 1.0
_IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the API talks to, made once by the entry point."""

    config: ApiConfig
    database: Database
    redis: Redis
    temporal: Temporal
    tokens: TokenVerifier
    openrouter: OpenRouterClient
    storage: ObjectStore
    links: SignedLinks
    cipher: MultiFernet
    frames: MarketFrames
    relay: Relay
    controls: Controls
    backtests: Backtests
    forward_tests: ForwardTests
    exports: Exports
    certificates: Certificates
    verifier: CertificateVerifier
    metrics: ApiMetrics
    rate_limits: RateLimits
    # Neither is there unless its secret is.
    clerk: ClerkUsers | None = None
    webhooks: WebhookVerifier | None = None
    # Front ends poll by component: who is asking is looked up once in a few seconds.
    known_users: MutableMapping[str, UserRecord] = field(
        default_factory=lambda: TTLCache(KNOWN_USERS, KNOWN_USER_S)
    )
    # Anybody may ask what is there, as often as they like: one looks, a second long, for all.
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked: MutableMapping[str, Any] = field(default_factory=lambda: TTLCache(1, LOOKED_S))
    # A large file keeps a core and a lot of memory busy for a minute: one at a time.
    importing: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Folding a long test again keeps a core busy for a second or two.
    refolding: asyncio.Lock = field(default_factory=asyncio.Lock)


def services_of(connection: HTTPConnection) -> Services:
    """Return the services that the app of this request or socket was made with."""
    services: Services = connection.app.state.services
    return services


async def _services(request: Request) -> Services:
    # FastAPI would run it in a thread if it were not a coroutine: a detour at every request.
    return services_of(request)


InjectedServices = Annotated[Services, Depends(_services)]

_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="A Clerk session token (RS256)."
)


async def sign_in(services: Services, token: str) -> UserRecord:
    """Return the token's user, created at first sight.

    Raises Unauthorized for a bad token and AccountDeactivated for a deactivated user.
    """
    return await _known_user(services, await _verified(services, token))


async def _verified(services: Services, token: str) -> TokenClaims:
    try:
        return await services.tokens.verify(token)
    except TokenRefused as e:
        raise Unauthorized(str(e)) from None


async def _known_user(services: Services, claims: TokenClaims) -> UserRecord:
    user = services.known_users.get(claims.subject)
    if user is None:
        async with services.database.as_system() as session:
            user, is_new = await SignInRepository(session).get_or_create(
                claims.subject, profile_of(claims)
            )
        if is_new:
            user = await with_email(services, claims, user)
        services.known_users[claims.subject] = user
    check_active(user)
    return user


def check_active(user: UserRecord) -> None:
    if not user.is_active:
        raise AccountDeactivated


def client_address(connection: HTTPConnection) -> str:
    """Where the client is: behind trusted proxies, what they say.

    Of an IPv6 address the half that a provider hands out as a whole, for one client has all of it.
    """
    host = "" if connection.client is None else connection.client.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


async def with_email(services: Services, claims: TokenClaims, user: UserRecord) -> UserRecord:
    """Return the user with what Clerk itself knows, where the token carries no e-mail address.

    What Clerk does not answer stays unknown until a webhook tells it, or the next sync.
    """
    if services.clerk is None or claims.email is not None or user.email is not None:
        return user
    found = await services.clerk.find(claims.subject)
    if found is None:
        return user
    async with services.database.as_system() as session:
        return await SignInRepository(session).follow(
            claims.subject, profile_of(found), found.updated_at
        )


def profile_of(told: TokenClaims | ClerkUser) -> Profile:
    return Profile(
        email=told.email,
        first_name=told.first_name,
        last_name=told.last_name,
        username=told.username,
        image_url=told.image_url,
    )


async def claims_of(request: Request) -> TokenClaims:
    """Return what the request's token says; it is verified once, whoever asks.

    Raises Unauthorized, or IntegrationError while the issuer's keys cannot be had.
    """
    if not hasattr(request.state, "claims"):
        request.state.claims = await _claims_or_failure(request)
    claims: TokenClaims | Exception = request.state.claims
    if isinstance(claims, Exception):
        raise claims
    return claims


async def _claims_or_failure(request: Request) -> TokenClaims | Unauthorized | IntegrationError:
    try:
        token = _token(await _bearer(request))
        return await _verified(services_of(request), token)
    except (Unauthorized, IntegrationError) as e:
        return e


async def _claims(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> TokenClaims:
    return await claims_of(request)


def _token(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        raise Unauthorized("Sign in: send a session token as `Authorization: Bearer …`.")
    return credentials.credentials


Claims = Annotated[TokenClaims, Depends(_claims)]


async def _current_user(services: InjectedServices, claims: Claims) -> UserRecord:
    return await _known_user(services, claims)


CurrentUser = Annotated[UserRecord, Depends(_current_user)]


async def _file_reader(
    request: Request,
    services: InjectedServices,
    link: Annotated[LinkQuery, Query()],
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> UserRecord | None:
    if not (link.expires or link.signature):
        return await _known_user(services, await claims_of(request))
    services.links.check(request.method, request.url.path, link)
    return None


# Who asks for a file: nobody in particular, where the request is a link that was signed.
FileReader = Annotated[UserRecord | None, Depends(_file_reader)]


class SignedInRoute(APIRoute):
    """Knows who is asking before it reads the body, which FastAPI reads before dependencies."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_signed_in(request: Request) -> Response:
            await _known_user(services_of(request), await claims_of(request))
            return await handle(request)

        return handle_signed_in
