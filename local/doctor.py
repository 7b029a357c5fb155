"""Looks at everything a stack consists of: what is there, which version, and what to do if not."""

import asyncio
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from alembic.script import ScriptDirectory
from redis.asyncio import Redis
from redis.exceptions import RedisError
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from certificates.signing import InvalidKey, PublicKey, SigningKey
from integrations.errors import IntegrationError
from integrations.storage.objects import open_store
from local.data_directory import DataDirectory
from local.processes import ServerNotStarted
from local.servers import postgres_binary, redis_binary, temporal_binary
from local.services import PROJECT_ROOT
from local.stack import command_settings, given_settings

OLDEST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 1_000_000_000
CALL_SECONDS = 5.0
VERSION_NUMBER = re.compile(r"\d+(\.\d+)+")
START_IT = "Start the stack with `alphalab up`, or name the server in {name}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report; `advice` says what to do about it when it is not well."""

    subject: str
    is_well: bool
    detail: str
    advice: str = ""


async def examine(directory: DataDirectory) -> list[Finding]:
    """Look at everything at once; the order of the report is always the same."""
    settings = command_settings(directory)
    services = (
        _examine_database(settings),
        _examine_redis(settings),
        _examine_temporal(settings),
        _examine_token_issuer(settings),
        _examine_models(settings),
        _reached("File storage", "STORAGE_BUCKET", settings, _ask_storage),
        _examine_api(settings),
    )
    return [
        _examine_python(),
        *_examine_programs(),
        _examine_disk(directory),
        _examine_stack(directory),
        examine_certificate_keys(settings, directory),
        *await asyncio.gather(*services),
    ]


def _examine_python() -> Finding:
    return Finding(
        subject="Python",
        is_well=sys.version_info >= OLDEST_PYTHON,
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        advice="Install Python 3.11 or 3.12.",
    )


def _examine_programs() -> list[Finding]:
    """The embedded servers' programs, as far as they are not replaced by settings."""
    programs: tuple[tuple[str, str, Callable[[], str], str], ...] = (
        ("DATABASE_URL", "PostgreSQL program", lambda: postgres_binary("postgres"), "--version"),
        ("REDIS_URL", "Redis program", redis_binary, "--version"),
        ("TEMPORAL_ADDRESS", "Temporal program", temporal_binary, "--version"),
    )
    replaced = given_settings()
    return [
        _examine_program(subject, find, option)
        for name, subject, find, option in programs
        if name not in replaced
    ]


def _examine_program(subject: str, find: Callable[[], str], option: str) -> Finding:
    try:
        found = subprocess.run([find(), option], capture_output=True, text=True, check=True)
    except ServerNotStarted as error:
        return Finding(subject=subject, is_well=False, detail="not found", advice=str(error))
    except (OSError, subprocess.CalledProcessError) as error:
        advice = "Run `make install` again."
        return Finding(subject=subject, is_well=False, detail=str(error), advice=advice)
    version = VERSION_NUMBER.search(found.stdout)
    return Finding(subject=subject, is_well=True, detail=version[0] if version else "unknown")


def _examine_disk(directory: DataDirectory) -> Finding:
    existing = next(path for path in (directory.path, *directory.path.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Finding(
        subject="Disk",
        is_well=free > LEAST_FREE_BYTES,
        detail=f"{free / 1e9:.1f} GB free at {existing}",
        advice="Free some space, or choose another directory with --data-dir.",
    )


def _examine_stack(directory: DataDirectory) -> Finding:
    is_running = directory.is_running
    state = directory.record.state if is_running else "not running"
    return Finding(
        subject="Stack",
        is_well=state == "ready",
        detail=f"{state} in {directory.path}",
        advice="Start it with `alphalab up`; its logs are in the directory's logs folder.",
    )


def examine_certificate_keys(settings: Mapping[str, str], directory: DataDirectory) -> Finding:
    """Whether what certificates are signed with is among what verifies them."""
    subject, names = "Certificate keys", "CERTIFICATE_SIGNING_KEY and CERTIFICATE_PUBLIC_KEYS"
    seed, given = (settings.get(name, "") for name in names.split(" and "))
    try:
        own = SigningKey.from_seed(seed).public_key if seed else directory.certificate_public_key
        public = [PublicKey.parse(each) for each in given.split(",") if each.strip()]
    except InvalidKey as error:
        return Finding(subject=subject, is_well=False, detail=str(error), advice=f"Mend {names}.")
    if own is None and not public:
        return Finding(
            subject=subject, is_well=False, detail="none", advice=START_IT.format(name=names)
        )
    if own is not None and public and own not in public:
        return Finding(
            subject=subject,
            is_well=False,
            detail=f"what is signed with {own.id} does not verify",
            advice="Add its public key to CERTIFICATE_PUBLIC_KEYS, before the others.",
        )
    signs = "" if own is None else f"{own.id} signs"
    verifies = f"{len(public)} verify" if public else ""
    return Finding(subject=subject, is_well=True, detail=", ".join(filter(None, (signs, verifies))))


async def _examine_database(settings: Mapping[str, str]) -> Finding:
    return await _reached("PostgreSQL", "DATABASE_URL", settings, _ask_database)


async def _ask_database(url: str) -> str:
    connecting = psycopg.AsyncConnection.connect(url, connect_timeout=int(CALL_SECONDS))
    async with await connecting as connection:
        version = connection.info.server_version
        found = await connection.execute("select version_num from alembic_version")
        row = await found.fetchone()
    newest = ScriptDirectory(str(PROJECT_ROOT / "migrations")).get_current_head()
    if row is None or row[0] != newest:
        raise _Unwell("its tables are not the newest", "Run `alphalab migrate`.")
    return f"{version // 10000}.{version % 10000}, tables at {newest}"


async def _examine_redis(settings: Mapping[str, str]) -> Finding:
    return await _reached("Redis", "REDIS_URL", settings, _ask_redis)


async def _ask_redis(url: str) -> str:
    async with Redis.from_url(url, socket_timeout=CALL_SECONDS) as server:
        return str((await server.info("server"))["redis_version"])


async def _examine_temporal(settings: Mapping[str, str]) -> Finding:
    namespace = settings.get("TEMPORAL_NAMESPACE", "alphalab")

    async def ask(address: str) -> str:
        api_key = settings.get("TEMPORAL_API_KEY")
        has_tls = settings.get("TEMPORAL_TLS", "").lower() in {"1", "true", "yes", "on"}
        config = ConnectConfig(
            target_host=address, api_key=api_key, tls=has_tls or api_key is not None
        )
        async with asyncio.timeout(CALL_SECONDS):
            return await _ask_temporal(config, namespace)

    return await _reached("Temporal", "TEMPORAL_ADDRESS", settings, ask)


async def _ask_temporal(config: ConnectConfig, namespace: str) -> str:
    service = await ServiceClient.connect(config)
    limit = timedelta(seconds=CALL_SECONDS)
    info = await service.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=limit)
    request = DescribeNamespaceRequest(namespace=namespace)
    await service.workflow_service.describe_namespace(request, timeout=limit)
    return f"{info.server_version}, namespace {namespace}"


async def _examine_token_issuer(settings: Mapping[str, str]) -> Finding:
    return await _reached("Token issuer", "CLERK_JWKS_URL", settings, _ask_token_issuer)


async def _ask_token_issuer(url: str) -> str:
    return f"{len((await _fetched(url))['keys'])} key(s) at {url}"


async def _examine_models(settings: Mapping[str, str]) -> Finding:
    return await _reached("Models", "OPENROUTER_BASE_URL", settings, _ask_models)


async def _ask_models(url: str) -> str:
    return f"{len((await _fetched(f'{url}/models'))['data'])} models at {url}"


async def _ask_storage(location: str) -> str:
    store, key = open_store(location), f"doctor/{uuid4().hex}"
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await store.put(key, b"written by alphalab doctor")
            await store.delete(key)
    except IntegrationError as error:
        first_line = str(error.__cause__).partition("\n")[0]
        raise _Unwell(f"{error} {first_line}", START_IT.format(name="STORAGE_BUCKET")) from None
    return f"takes files at {location}"


async def _examine_api(settings: Mapping[str, str]) -> Finding:
    return await _reached("API and worker", "PUBLIC_URL", settings, _ask_api)


async def _ask_api(url: str) -> str:
    health = await _fetched(f"{url}/api/health")
    ready = await _fetched(f"{url}/api/ready", may_be_unavailable=True)
    down = [name for name, state in ready.items() if state == "down"]
    if down or not ready.get("worker"):
        trouble = f"down: {', '.join(down)}" if down else "no worker asks for work"
        raise _Unwell(trouble, "See worker.log and api.log in the logs of the data directory.")
    return f"{health['version']} at {url}, {ready['worker']} worker poller(s)"


async def _fetched(url: str, *, may_be_unavailable: bool = False) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=CALL_SECONDS) as client:
        answer = await client.get(url)
    if not (may_be_unavailable and answer.status_code == httpx.codes.SERVICE_UNAVAILABLE):
        answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise TypeError(f"{url} answers something else than expected")
    return found


class _Unwell(Exception):
    """A server answers, and something is wrong with it."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


async def _reached(
    subject: str, name: str, settings: Mapping[str, str], ask: Callable[[str], Awaitable[str]]
) -> Finding:
    address = settings.get(name)
    if address is None:
        advice = START_IT.format(name=name)
        return Finding(subject=subject, is_well=False, detail="no address", advice=advice)
    try:
        return Finding(subject=subject, is_well=True, detail=await ask(address))
    except _Unwell as error:
        return Finding(subject=subject, is_well=False, detail=str(error), advice=error.advice)
    except _FAULTS as error:
        detail = f"not usable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        advice = START_IT.format(name=name)
        return Finding(subject=subject, is_well=False, detail=detail, advice=advice)


# What the clients raise when a server is absent, refuses, or is something else altogether.
_FAULTS = (
    psycopg.Error,
    RedisError,
    RPCError,
    RuntimeError,
    OSError,
    httpx.HTTPError,
    KeyError,
    TypeError,
    ValueError,
)
