"""The API process: reads the settings, makes the services, serves them."""

import argparse
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import uvicorn
import uvloop
from cryptography.fernet import Fernet, MultiFernet
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api import __version__
from api.app import create_app
from api.backtests import Backtests
from api.certificates import Certificates
from api.config import ApiConfig
from api.controls import Controls
from api.cost_estimates import CostEstimates
from api.dependencies import Services
from api.exports import Exports
from api.forward_tests import ForwardTests
from api.late_connection import connecting_late
from api.metrics import ApiMetrics
from api.rate_limits import COUNTED_AT_ONCE, Kind, RateLimits, quotas_of
from api.realtime.backlog import Backlog
from api.realtime.prices import PriceRelay
from api.realtime.relay import Relay
from api.realtime.transport import RelayProtocol
from api.signed_links import SignedLinks
from api.token_buckets import Quota, TokenBuckets
from api.verification import CertificateVerifier
from certificates.signing import PublicKey
from db.engine import Database
from db.market_frames import MarketFrames
from events.prices import PriceBoard
from events.subscriber import SessionSubscriber
from integrations.clerk.tokens import KeySet, TokenVerifier, issuer_of
from integrations.clerk.users import ClerkUsers
from integrations.clerk.webhooks import WebhookVerifier
from integrations.openrouter.client import OpenRouterClient
from integrations.storage.objects import open_store
from observability import configure_logging
from settings import ApiSettings, SettingsError, api_settings, usable
from workflows.runtime import Temporal, connect

# The API draws charts and replays what Redis has forgotten; the worker's cache is the large one.
FRAME_CACHE_BYTES = 128 * 1024 * 1024
# A command has 16 KiB; what is longer is answered with an error up to here, and closed beyond.
MAX_SOCKET_MESSAGE_BYTES = 256 * 1024
# A client is given 30 s to accept a byte, so a late pong must not cut it off before that.
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 60.0
SHUTDOWN_GRACE_S = 10
REDIS_CONNECT_TIMEOUT_S = 2.0
REDIS_COMMANDS = 200
# Every request waits to be counted, so Redis that hangs is soon given up, and all may pass.
COUNTING_PATIENCE_S = 0.5
# Each session and asset that somebody watches takes a connection; a Redis server has 10,000 by
# default.
WATCHED = 4_000


def api_config(settings: ApiSettings) -> ApiConfig:
    return ApiConfig(
        version=__version__,
        public_url=settings.public_url,
        cors_origins=settings.cors_origins,
        max_active_tests=settings.active_test_limits,
        market_source=settings.market_source,
        metrics_token=_secret(settings.metrics_token),
    )


@asynccontextmanager
async def services(settings: ApiSettings) -> AsyncIterator[Services]:
    """Everything the API talks to; nothing is connected before it is used."""
    async with AsyncExitStack() as stack:
        database = Database.connect(
            settings.database_url.get_secret_value(),
            system_url=_secret(settings.database_system_url),
            pool_size=settings.database_pool_size,
        )
        stack.push_async_callback(database.dispose)
        # No time limit on reads: a subscription waits for as long as nothing happens.
        redis, subscriptions = (
            Redis.from_url(
                settings.redis_url.get_secret_value(),
                socket_connect_timeout=REDIS_CONNECT_TIMEOUT_S,
                max_connections=limit,
            )
            for limit in (REDIS_COMMANDS, WATCHED)
        )
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(subscriptions.aclose)
        counting = _counting(settings)
        stack.push_async_callback(counting.aclose)
        http = await stack.enter_async_context(httpx.AsyncClient())
        temporal = await _temporal(settings)
        frames = MarketFrames(database, cache_bytes=FRAME_CACHE_BYTES)
        config, metrics = api_config(settings), ApiMetrics()
        links = SignedLinks(settings.link_signing_keys)
        with usable("STORAGE_BUCKET"):
            storage = open_store(settings.storage_bucket)
        openrouter = OpenRouterClient(
            http, settings.openrouter_base_url, referer=settings.public_url, title="AlphaLab"
        )
        yield Services(
            config=config,
            database=database,
            redis=redis,
            temporal=temporal,
            tokens=_verifier(settings, http),
            openrouter=openrouter,
            storage=storage,
            links=links,
            cipher=MultiFernet([Fernet(key) for key in settings.encryption_keys]),
            frames=frames,
            relay=Relay(
                Backlog(database, SessionSubscriber(redis, subscriptions), frames),
                PriceRelay(PriceBoard(redis, subscriptions), temporal, config.market_source),
            ),
            controls=Controls(database, temporal),
            backtests=Backtests(
                config=config,
                database=database,
                frames=frames,
                temporal=temporal,
                costs=CostEstimates(database, openrouter),
            ),
            forward_tests=ForwardTests(config=config, database=database, temporal=temporal),
            exports=Exports(config=config, database=database, temporal=temporal, links=links),
            certificates=Certificates(
                config=config, database=database, temporal=temporal, links=links
            ),
            verifier=CertificateVerifier(
                database, [PublicKey.parse(each) for each in settings.certificate_public_keys]
            ),
            metrics=metrics,
            rate_limits=RateLimits(TokenBuckets(counting), _quotas(settings), metrics),
            clerk=_clerk(settings, http),
            webhooks=_webhooks(settings),
        )


async def serve(settings: ApiSettings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop; open sockets are then closed with 1012.

    A `listener` is used in place of the host and port of the settings.
    """
    async with services(settings) as made:
        server = uvicorn.Server(uvicorn_config(create_app(made), settings))
        await server.serve(None if listener is None else [listener])


def uvicorn_config(app: object, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # any ASGI application
        host=settings.host,
        port=settings.port,
        ws=RelayProtocol,
        ws_max_size=MAX_SOCKET_MESSAGE_BYTES,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,  # frames are small, and a window per socket is not
        log_config=None,
        access_log=False,  # ours has no query strings, which may carry tokens
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )


def main() -> None:
    """Run until told to stop; without its settings the process ends and names what is missing."""
    listener = _inherited_listener()
    try:
        settings = api_settings()
    except SettingsError as e:
        sys.exit(str(e))
    configure_logging(level=settings.level, form=settings.log_format, process="api")
    try:
        uvloop.run(serve(settings, listener))
    except SettingsError as e:  # some are unusable only when they are used
        sys.exit(str(e))


def _inherited_listener() -> socket.socket | None:
    parser = argparse.ArgumentParser(prog="server", description=__doc__)
    parser.add_argument("--fd", type=int, help="serve on this socket, which listens already")
    descriptor = parser.parse_args().fd
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _counting(settings: ApiSettings) -> Redis:
    """A client of its own for the rate limits, which tries once and not for long."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=COUNTED_AT_ONCE,
        socket_timeout=COUNTING_PATIENCE_S,
        socket_connect_timeout=COUNTING_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),
    )


def _quotas(settings: ApiSettings) -> Mapping[Kind, Quota]:
    return quotas_of(
        writes_per_minute=settings.rate_limit_per_minute,
        starts_per_minute=settings.test_starts_per_minute,
    )


async def _temporal(settings: ApiSettings) -> Temporal:
    client = await connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        payload_keys=_secret(settings.temporal_payload_keys),
        api_key=_secret(settings.temporal_api_key),
        tls=settings.temporal_tls,
        lazy=True,
    )
    return Temporal(connecting_late(client), settings.temporal_task_queue)


def _verifier(settings: ApiSettings, http: httpx.AsyncClient) -> TokenVerifier:
    return TokenVerifier(
        KeySet(http, settings.clerk_jwks_url),
        issuer=settings.clerk_issuer or issuer_of(settings.clerk_jwks_url),
        authorized_parties=settings.clerk_authorized_parties,
    )


def _clerk(settings: ApiSettings, http: httpx.AsyncClient) -> ClerkUsers | None:
    secret = _secret(settings.clerk_secret_key)
    return None if secret is None else ClerkUsers(http, secret)


def _webhooks(settings: ApiSettings) -> WebhookVerifier | None:
    secret = _secret(settings.clerk_webhook_secret)
    return None if secret is None else WebhookVerifier(secret)


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


if __name__ == "__main__":
    main()
