"""Builds the web application around services that were made elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.dependencies import Services
from api.errors import install_error_handlers
from api.middleware import MAX_CANDLE_UPLOAD_BYTES, install_middleware
from api.routes import (
    agents,
    api_keys,
    arena,
    backtests,
    certificates,
    dashboard,
    exports,
    forward_tests,
    health,
    market_data,
    metrics,
    models,
    notifications,
    results,
    sockets,
    stylesheet,
    users,
    verification,
    webhooks,
)
from api.schemas.errors import LIMITED, documented

_DESCRIPTION = (
    "Build trading agents out of a language model, a strategy and indicators, test them candle by "
    "candle, and watch them think. Live events come over WebSockets."
)

_ROUTES = (
    health,
    metrics,
    users,
    webhooks,
    api_keys,
    models,
    agents,
    backtests,
    forward_tests,
    arena,
    results,
    dashboard,
    notifications,
    market_data,
    exports,
    certificates,
    sockets,
    stylesheet,
    verification,
)
# The middleware knows their addresses.
_UNLIMITED = (health, metrics)


def create_app(services: Services) -> FastAPI:
    """Return the application; it closes the relay when it ends, and nothing else of `services`."""
    app = bare_app(services.config.version)
    app.state.services = services
    install_middleware(
        app,
        cors_origins=services.config.cors_origins,
        body_limits={market_data.IMPORT_PATH: MAX_CANDLE_UPLOAD_BYTES},
        rate_limits=services.rate_limits,
        metrics=services.metrics,
    )
    return app


def bare_app(version: str) -> FastAPI:
    """Return the routes and the answers to failures, without anything to serve them with."""
    app = FastAPI(
        title="AlphaLab API",
        description=_DESCRIPTION,
        version=version,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        redirect_slashes=False,
        responses=documented(500),
    )
    install_error_handlers(app)
    for module in _ROUTES:
        limited = {} if module in _UNLIMITED else LIMITED
        app.include_router(module.router, responses=limited)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    services: Services = app.state.services
    await services.relay.close()


def _operation_id(route: APIRoute) -> str:
    """Operations are called as their functions are: a generated client reads like ours."""
    return route.name
