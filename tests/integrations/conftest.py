"""OpenRouter's stand-ins over real HTTP: the simulator, and answers written byte by byte."""

import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from integrations.openrouter.client import OpenRouterClient
from local.simulators.openrouter import create_app
from tests.loopback import TLS, ScriptedServer, serve_app, serve_script


@pytest.fixture(scope="session")
def simulated_openrouter() -> Iterator[str]:
    with serve_app(Starlette(routes=[Mount("/api/v1", app=create_app())])) as address:
        yield f"{address}/api/v1"


@pytest.fixture
def simulator(simulated_openrouter: str) -> str:
    """The base address of a simulated OpenRouter that remembers no request."""
    httpx.delete(f"{simulated_openrouter}/debug/requests", verify=TLS)
    return simulated_openrouter


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=TLS) as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient, simulator: str) -> OpenRouterClient:
    return OpenRouterClient(http, simulator, referer="https://alphalab.test", title="AlphaLab")


@pytest.fixture
async def script() -> AsyncIterator[ScriptedServer]:
    async with serve_script() as server:
        yield server


@pytest.fixture
def scripted_client(http: httpx.AsyncClient, script: ScriptedServer) -> OpenRouterClient:
    return OpenRouterClient(http, script.url, referer="https://alphalab.test", title="Alphaλab")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
