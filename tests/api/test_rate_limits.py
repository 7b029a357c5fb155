"""Who asks too often is told so, whichever process is asked; everybody else notices nothing."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from api.dependencies import client_address
from api.rate_limits import COUNTED_AT_ONCE, PATIENCE_S, REST_S, RateLimits
from api.token_buckets import Take
from local.issuer import Issuer, create_key
from local.processes import listening_socket
from local.servers import RedisServer
from local.services import PythonService
from settings import ApiSettings
from tests.api.sockets import refusal, serving
from tests.api.world import Person, World, error_of, opened_world
from tests.loopback import slow_way

ORIGIN = {"Origin": "http://localhost:3000"}
WRITES = 3
BURST = 2 * WRITES
METRICS_TOKEN = "a-token-of-the-operator"
A_WRITE = "/api/notifications/mark-all-read"
STARTS = ("/api/arena/backtest/start", "/api/arena/forward/start")


@pytest.fixture
def redis_server(servers_dir: Path) -> Iterator[RedisServer]:
    """A server of the test's own: it dies in some of them, and addresses are the same in all."""
    server = RedisServer(servers_dir / uuid4().hex[:6] / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def limited(settings: ApiSettings, redis_server: RedisServer) -> ApiSettings:
    """Few tokens, so that none grows back while a test runs."""
    return settings.model_copy(
        update={
            "redis_url": SecretStr(redis_server.url),
            "rate_limit_per_minute": WRITES,
            "test_starts_per_minute": 1,
            "metrics_token": SecretStr(METRICS_TOKEN),
        }
    )


@pytest.fixture
async def world(limited: ApiSettings, issuer: Issuer, simulators_url: str) -> AsyncIterator[World]:
    async with opened_world(limited, issuer, simulators_url) as world:
        yield world


async def write(person: Person, times: int = 1) -> list[httpx.Response]:
    return [await person.post(A_WRITE) for _ in range(times)]


def statuses(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


async def metric(world: World, line: str) -> float:
    """The value of a sample, 0 where there is none yet."""
    async with world.http({"Authorization": f"Bearer {METRICS_TOKEN}"}) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    found = [float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"{line} ")]
    return found[0] if found else 0.0


async def test_a_burst_passes_and_what_follows_is_429(world: World, ada: Person):
    answers = await write(ada, BURST + 1)

    assert statuses(answers) == [200] * BURST + [429]
    body = error_of(answers[-1], 429, "RATE_LIMITED")
    wait = int(answers[-1].headers["retry-after"])
    assert 1 <= wait <= 60 / WRITES
    assert body["detail"] == f"Too many requests. Try again in {wait} s."
    assert await metric(world, 'alphalab_rate_limited_requests_total{kind="writes"}') == 1


async def test_every_answer_tells_how_the_bucket_stands(ada: Person):
    answers = [*await write(ada, BURST + 1), await ada.delete("/api/nothing")]

    limits = [answer.headers["x-ratelimit-limit"] for answer in answers]
    remaining = [answer.headers["x-ratelimit-remaining"] for answer in answers]
    assert limits == [str(BURST)] * (BURST + 2)
    assert remaining == [*(str(BURST - n) for n in range(1, BURST + 1)), "0", "0"]
    assert int(answers[0].headers["x-ratelimit-reset"]) == 60 / WRITES
    assert 115 <= int(answers[-1].headers["x-ratelimit-reset"]) <= 120


async def test_requests_at_once_share_what_there_is(ada: Person):
    answers = await asyncio.gather(*(ada.post(A_WRITE) for _ in range(50)))

    assert Counter(statuses(list(answers))) == {200: BURST, 429: 50 - BURST}


async def test_reads_have_a_bucket_of_their_own_ten_times_as_large(ada: Person):
    await write(ada, BURST + 1)

    answers = [await ada.get("/api/notifications/unread-count") for _ in range(10 * BURST)]
    assert answers[0].headers["x-ratelimit-limit"] == str(10 * BURST)
    assert Counter(statuses(answers)) == {200: 10 * BURST}
    # On a busy machine some tokens have grown back meanwhile.
    more = [await ada.get("/api/notifications/unread-count") for _ in range(3 * BURST)]
    assert 429 in statuses(more)


async def test_users_are_counted_apart_and_wherever_they_are(
    world: World, ada: Person, bob: Person
):
    async with elsewhere(world, "203.0.113.7", ada.token) as abroad:
        assert statuses([await abroad.post(A_WRITE) for _ in range(BURST)]) == [200] * BURST
    assert statuses(await write(ada)) == [429]

    assert statuses(await write(bob)) == [200]


async def test_starts_of_tests_and_exports_have_a_bucket_of_their_own(ada: Person):
    answers = [await ada.post(path, {}) for path in (*STARTS, *STARTS)]

    assert statuses(answers) == [422, 422, 429, 429]
    assert answers[0].headers["x-ratelimit-limit"] == "2"
    assert statuses([await ada.post("/api/export", {})]) == [429]
    assert statuses(await write(ada)) == [200]


async def test_strangers_and_bad_tokens_are_counted_by_address(
    world: World, ada: Person, tmp_path: Path
):
    """A token that nobody signed proves nothing, and takes nothing from whom it names."""
    create_key(tmp_path / "key.pem")
    forger = World(
        app=world.app,
        services=world.services,
        issuer=Issuer.from_file(tmp_path / "key.pem"),
        issuer_url=world.issuer_url,
    )
    tokens = ["x.y.z", forger.token(ada.subject), "e30.e30.e30", None, None, "nonsense"]
    refused = []
    for token in [*tokens, forger.token(ada.subject)]:
        async with elsewhere(world, "203.0.113.7", token) as http:
            refused.append(await http.post(A_WRITE))

    assert statuses(refused) == [401] * BURST + [429]
    async with elsewhere(world, "203.0.113.8") as http:
        assert (await http.post(A_WRITE)).status_code == 401
    assert statuses(await write(ada)) == [200]


def elsewhere(world: World, address: str, token: str | None = None) -> httpx.AsyncClient:
    """A client with an address of its own, as the server sees it."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(world.app, client=(address, 5)),
        base_url="http://api.test",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )


async def test_browsers_can_read_the_refusal_and_still_ask_whether_they_may(ada: Person):
    refused = (await write(ada, BURST + 1))[-1]
    told = await ada.post(A_WRITE, headers=ORIGIN)
    wanted = ORIGIN | {"Access-Control-Request-Method": "POST"}
    asked = [await ada.http.options(A_WRITE, headers=wanted) for _ in range(12 * BURST)]

    assert refused.status_code == told.status_code == 429
    assert told.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    exposed = told.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("Retry-After", "X-RateLimit-Remaining"))
    assert set(statuses(asked)) == {200}


async def test_who_watches_over_the_installation_is_not_limited(world: World):
    async with elsewhere(world, "203.0.113.7") as http:
        answers = [await http.get("/api/health") for _ in range(10 * BURST + 5)]
        answers += [await http.get("/metrics") for _ in range(5)]
        read = await http.get("/api/nothing")

    assert Counter(statuses(answers)) == {200: 10 * BURST + 5, 401: 5}
    assert "x-ratelimit-limit" not in answers[0].headers
    assert read.headers["x-ratelimit-remaining"] == str(10 * BURST - 1)


@pytest.mark.parametrize(
    ("proxies", "passed"),
    [((), BURST), (("127.0.0.1",), 2 * BURST), (("127.0.0.0/8",), 2 * BURST)],
)
async def test_a_forwarded_address_counts_behind_trusted_proxies_only(
    world: World, proxies: tuple[str, ...], passed: int
):
    """Whatever a client writes there itself stands to the left of what the proxy adds."""
    forwarded = [f"198.51.100.{n}, 203.0.113.{n % 2}" for n in range(2 * BURST + 2)]
    async with serving(world, trusted_proxies=proxies) as address, httpx.AsyncClient() as http:
        answers = [
            await http.post(
                f"http://127.0.0.1:{address.port}{A_WRITE}", headers={"X-Forwarded-For": each}
            )
            for each in forwarded
        ]

    assert statuses(answers) == [401] * passed + [429] * (len(forwarded) - passed)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("203.0.113.7", 5), "203.0.113.7"),
        (("::ffff:203.0.113.7", 5), "203.0.113.7"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("unix", 0), "unix"),
        (None, ""),
    ],
)
def test_a_client_is_told_by_what_it_cannot_change_at_will(client: Any, address: str):
    scope = {"type": "http", "client": client, "headers": []}

    assert client_address(HTTPConnection(scope)) == address


async def test_without_redis_everybody_passes_and_it_is_counted(
    redis_server: RedisServer, world: World, ada: Person
):
    await write(ada, BURST)
    redis_server.stop()
    began = monotonic()
    answers = await write(ada, BURST)
    seconds = monotonic() - began
    uncounted = await metric(world, "alphalab_rate_limiter_failures_total")
    redis_server.start()
    await asyncio.sleep(REST_S)
    again = await write(ada, BURST + 1)

    assert statuses(answers) == [200] * BURST
    assert "x-ratelimit-limit" not in answers[0].headers
    assert uncounted == BURST
    assert seconds < 2, "nobody waits for a Redis that is not there"
    # What it knew is gone with it, but it counts again.
    assert again[-1].status_code == 429


async def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis_server: RedisServer, world: World, ada: Person
):
    await write(ada)
    assert redis_server.process is not None
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        began = monotonic()
        answers = await asyncio.gather(*(ada.post(A_WRITE) for _ in range(BURST + 2)))
        seconds = monotonic() - began
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)

    assert statuses(list(answers)) == [200] * (BURST + 2)
    assert seconds < 3
    assert await metric(world, "alphalab_rate_limiter_failures_total") == BURST + 2


async def test_a_redis_that_answers_slowly_is_left_alone_once_it_held_requests_up(
    redis_server: RedisServer, limited: ApiSettings, issuer: Issuer, simulators_url: str
):
    """Each answer comes within its own time limit; those who queue for theirs wait too long."""
    crowd = 12 * COUNTED_AT_ONCE
    async with slow_way(redis_server.url.removeprefix("unix://")) as way:
        url = SecretStr(f"redis://{way.address}")
        slow = limited.model_copy(update={"redis_url": url})
        async with opened_world(slow, issuer, simulators_url) as world:
            limits = world.services.rate_limits
            await in_a_crowd(limits, COUNTED_AT_ONCE)
            way.seconds = 0.4
            first, waited = await in_a_crowd(limits, crowd)
            second, waited_again = await in_a_crowd(limits, crowd)
            uncounted = await metric(world, "alphalab_rate_limiter_failures_total")

    counted = [take for take in first if take is not None]
    assert 0 < len(counted) < crowd
    assert PATIENCE_S <= waited < PATIENCE_S + 1
    assert second == [None] * crowd
    assert waited_again < REST_S / 2
    assert uncounted == 2 * crowd - len(counted)


async def in_a_crowd(limits: RateLimits, crowd: int) -> tuple[list[Take | None], float]:
    began = monotonic()
    takes = await asyncio.gather(*(limits.take("somebody", "reads") for _ in range(crowd)))
    return list(takes), monotonic() - began


async def test_processes_share_the_buckets(
    limited: ApiSettings, world: World, ada: Person, tmp_path: Path
):
    """Two processes as production has them; one of them is told to say everything."""
    environment = {
        name.upper(): shown(value)
        for name, value in limited.model_dump().items()
        if value not in {None, ()}
    }
    with ExitStack() as running:
        urls = []
        for name in ("one", "two"):
            listener = running.enter_context(listening_socket(None))
            urls.append(f"http://127.0.0.1:{listener.getsockname()[1]}")
            service = PythonService(
                name,
                "server",
                log_file=tmp_path / f"{name}.log",
                settings=environment | {"LOG_LEVEL": "error", "DEBUG": str(name == "two")},
                listener=listener,
                health_url=f"{urls[-1]}/api/health",
            )
            running.callback(service.stop)
            await asyncio.to_thread(service.start)
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ada.token}"}) as http:
            answers = [await http.post(f"{urls[n % 2]}{A_WRITE}") for n in range(BURST + 2)]

    assert statuses(answers) == [200] * BURST + [429] * 2
    assert statuses(await write(ada)) == [429]
    said = [
        '"event": "request"' in (tmp_path / f"{name}.log").read_text() for name in ("one", "two")
    ]
    assert said == [False, True]


def shown(value: Any) -> str:
    """A setting as the environment has it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)


async def test_handshakes_are_counted_against_their_address(world: World, ada: Person):
    async with serving(world) as address:
        prices = f"ws://127.0.0.1:{address.port}/ws/prices/nothing"
        for _ in range(BURST):
            await refusal(prices, 404)
        told = orjson.loads(await refusal(prices, 429))
        assert told["error_code"] == "RATE_LIMITED"

        session = address.url(uuid4(), f"token={ada.token}")
        await refusal(session, 404)
