"""Nothing of one user's is another's: every operation of the document, and every socket.

The operations, their parameters and the fields of their bodies are read from the committed
document. A new parameter or field that names something fails here until it is said what it names.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from fastapi.routing import APIWebSocketRoute
from psycopg.rows import dict_row
from sqlalchemy import text
from temporalio.client import Client as TemporalClient
from websockets.asyncio.client import connect

from api.app import _ROUTES
from db.models import NewNotification, NewSession
from db.repositories.inbox import InboxRepository
from db.repositories.sessions import SessionRepository
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.live import rising
from tests.api.sockets import Address, refusal, serving
from tests.api.world import Person, World, created, csv, staffed_world, upload
from tests.laboratory import walk

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
# What only A has candles of.
ASSET = "XMR/USDT"
CERTIFIED = "XLM/USDT"
KINDS = ("backtest", "forward")

# What the parameters of paths name: a kind of thing that A has. Of a session there are two kinds.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "agent_id": ("agent",),
    "key_id": ("api_key",),
    "session_id": ("backtest", "forward"),
    "result_id": ("result",),
    "notification_id": ("notification",),
    "certificate_id": ("certificate",),
    "export_id": ("export",),
}
# What fields of bodies and queries name.
FIELDS: Mapping[str, str] = {
    "agent_id": "agent",
    "api_key_id": "api_key",
    "result_id": "result",
    "session_id": "backtest",
    "data_source": "data_set",
}
# Where the document's examples and defaults make no body that would be accepted of A.
BODIES: Mapping[str, dict[str, Any]] = {
    "start_backtest": {
        "asset": ASSET,
        "timeframe": "1h",
        "start_date": "2024-01-03",
        "end_date": "2024-01-04",
        "playback_speed": "instant",
    },
    "create_agent": {"name": "Another", "model": "simulated/momentum", "indicators": ["rsi_14"]},
    "duplicate_agent": {"new_name": "A copy"},
    "update_agent": {"name": "Taken over"},
    "add_key": {"api_key": "sk-or-v1-another"},
    "compute_indicators": {"asset": ASSET, "timeframe": "1h", "indicators": ["rsi_14"]},
    "start_export": {"include": {"agent_configs": True}},
}
QUERIES: Mapping[str, dict[str, str]] = {
    "get_candles": {"asset": ASSET, "timeframe": "1h"},
    "get_indicators": {"asset": ASSET, "timeframe": "1h", "indicators": "rsi_14"},
}

# Bodies that are no JSON: files and fields of a form.
FORMS: Mapping[str, dict[str, Any]] = {
    "import_candles": {
        "files": {"file": ("candles.csv", csv(walk(60)), "text/csv")},
        "data": {"asset": "ZEC/USDT", "timeframe": "1h"},
    }
}
# What A is told where the request itself is a good one. Of A's forward test there is a row alone,
# which has not started, and of A's agent no profitable backtest.
GOOD = {"SESSION_NOT_RUNNING", "CONFLICT", "NO_PROFITABLE_BACKTEST", "NOT_PROFITABLE"}
# They name an agent or a result in their bodies, and are tried with one where that is.
NEED_A_NAME = {"start_backtest", "start_forward_test", "issue_certificate"}

# How the document says that an operation asks for a user.
SIGNED_IN: Mapping[str, list[str]] = {"HTTPBearer": []}
REFUSED = {401, 403, 404}
NOTHING = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, as the document has it."""

    method: str
    path: str
    id: str
    parameters: tuple[str, ...]
    queries: tuple[str, ...]
    body: Mapping[str, Any] | None

    @property
    def is_read(self) -> bool:
        return self.method == "get"

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its path may name; empty when it names nothing."""
        return tuple(kind for name in self.parameters for kind in kinds_of(name, self.path))

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of its body and its query that name something."""
        properties = (self.body or {}).get("properties", {})
        return tuple(name for name in (*properties, *self.queries) if is_a_name(name))


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


def operations() -> Iterator[Operation]:
    """All operations that ask who is there."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            if SIGNED_IN in operation.get("security", []):
                yield Operation(
                    method=method,
                    path=path,
                    id=operation["operationId"],
                    parameters=tuple(re.findall(r"{(\w+)", path)),
                    queries=tuple(
                        each["name"]
                        for each in operation.get("parameters", [])
                        if each["in"] == "query"
                    ),
                    body=body_of(operation),
                )


def body_of(operation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    return None if schema is None else resolved(schema)


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references, and take the first of alternatives."""
    while "$ref" in schema or "anyOf" in schema:
        if "anyOf" in schema:
            schema = schema["anyOf"][0]
        else:
            schema = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def is_a_name(field: str) -> bool:
    """Whether a field names something that somebody may have."""
    return field.endswith(("_id", "_ids", "data_source", "data_set"))


def kinds_of(parameter: str, path: str) -> tuple[str, ...]:
    assert parameter in PARAMETERS, f"{path}: say in PARAMETERS what {parameter} names"
    return PARAMETERS[parameter]


def example(schema: Mapping[str, Any]) -> Any:
    """A value that the schema allows: one of its own examples, or the smallest."""
    schema = resolved(schema)
    given = [*schema.get("examples", []), *schema.get("enum", [])]
    return given[0] if given else smallest(schema)


def smallest(schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "object":
            needed = schema.get("required", [])
            return {name: example(schema["properties"][name]) for name in needed}
        case "array":
            return [example(schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return False
        case _:
            return NOTHING if schema.get("format") == "uuid" else "x" * schema.get("minLength", 1)


def request_body(operation: Operation, **names: str) -> dict[str, Any] | None:
    """A body that would be accepted of whoever has what it names."""
    if operation.body is None:
        return None
    body: dict[str, Any] = example(operation.body) | BODIES.get(operation.id, {})
    for name in ("name", "new_name"):  # which nobody may give twice
        if name in body:
            body[name] = f"{body[name]} {uuid4().hex[:8]}"
    return body | names


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A, who has one of everything, B, who has an agent and a key, and what A's rows hold."""

    world: World
    address: Address
    a: Person
    b: Person
    things: Mapping[str, str]
    b_things: Mapping[str, str]
    ids: frozenset[str]
    postgres_url: str

    async def send(
        self, person: Person, operation: Operation, named: str = "", **fields: str
    ) -> httpx.Response:
        """Send an operation; `named` fills its path, `fields` its body or its query."""
        path = re.sub(r"{\w+}", named, operation.path)
        in_body = {name: each for name, each in fields.items() if name not in operation.queries}
        in_query = {name: each for name, each in fields.items() if name in operation.queries}
        return await person.http.request(
            operation.method,
            path,
            params=QUERIES.get(operation.id, {}) | in_query,
            **FORMS.get(operation.id, {"json": request_body(operation, **in_body)}),
        )

    @asynccontextmanager
    async def owned(self, operation: Operation, kind: str) -> AsyncIterator[str]:
        """Something of A's, which is A's to lose: what changes it gets one of its own."""
        if operation.is_read or kind == "result":
            yield self.things[kind]
            return
        named = await self.another(kind)
        yield named
        if kind == "backtest":
            await ended(self.a, named)

    async def another(self, kind: str) -> str:
        """One more of A's things."""
        a, agent_id = self.a, self.things["agent"]
        match kind:
            case "agent":
                return str((await a.add_agent(f"One of {uuid4().hex}"))["id"])
            case "api_key":
                return await a.add_key()
            case "notification":
                return await a_notification(self.world, a)
            case "backtest":
                return await paused(a, agent_id)
            case "forward":
                return await a_forward_test(self.world, a, agent_id)
            case _:
                raise AssertionError(f"say how A gets another {kind}")

    def rows(self, *more: str) -> dict[str, list[Any]]:
        """Every row that is A's or hangs on one of A's."""
        ids = [UUID(each) for each in {*self.ids, *more} if each != self.things["data_set"]]
        with psycopg.connect(self.postgres_url, row_factory=dict_row) as superuser:
            return {
                table: superuser.execute(query, {"ids": ids}).fetchall()
                for table, query in owned_tables(superuser).items()
            }


def owned_tables(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Each table with a query for the rows that refer to one of `ids`, or have one of them."""
    columns = connection.execute(
        "SELECT table_name AS table, array_agg(column_name::text) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'uuid'"
        " GROUP BY table_name"
    ).fetchall()
    return {
        each["table"]: f"SELECT t::text FROM {each['table']} t WHERE "
        + " OR ".join(f"{column} = ANY(%(ids)s)" for column in each["columns"])
        + " ORDER BY 1"
        for each in columns
    }


@pytest.fixture(scope="module")
async def staffed(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, temporal_client: TemporalClient
) -> AsyncIterator[World]:
    """A world with a worker, for A has to have results. Forward tests may be started."""
    own = settings.model_copy(update={"market_data_source": f"ccxt:{uuid4().hex[:8]}"})
    async with staffed_world(own, issuer, simulators_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="module")
async def scene(staffed: World, postgres_url: str) -> AsyncIterator[Scene]:
    async with (
        serving(staffed) as address,
        staffed.person(email=f"a-{uuid4().hex}@example.com") as a,
        staffed.person() as b,
    ):
        things = await belongings(staffed, address, a)
        b_key = await b.add_key()
        b_things = {"api_key": b_key, "agent": (await b.add_agent())["id"]}
        yield Scene(
            world=staffed,
            address=address,
            a=a,
            b=b,
            things=things,
            b_things=b_things,
            ids=frozenset({*things.values()} - {things["data_set"]} | {await user_id(a)}),
            postgres_url=postgres_url,
        )


async def belongings(world: World, address: Address, a: Person) -> dict[str, str]:
    """One of everything: a test that ended, one that is paused, a forward test, what they left."""
    key = await a.add_key()
    await upload(a, asset=ASSET)
    agent = await a.add_agent()
    ended = await started(a, agent["id"])
    async with address.watch(ended, a.token) as watching:
        await watching.until_closed(seconds=60)
    result = (await a.get(f"/api/arena/backtest/{ended}")).json()["session"]["result_id"]
    return {
        "api_key": key,
        "agent": agent["id"],
        "ended": ended,
        "backtest": await paused(a, agent["id"]),
        "forward": await a_forward_test(world, a, agent["id"]),
        "result": result,
        "notification": await a_notification(world, a),
        "export": await an_export(a),
        "certificate": await a_certificate(address, a),
        "data_set": "upload",
    }


async def a_certificate(address: Address, a: Person) -> str:
    """Of a test that cannot have lost."""
    await upload(a, rising(), asset=CERTIFIED)
    agent = await a.add_agent("Certified", model="simulated/always-long")
    ended = await started(a, agent["id"], asset=CERTIFIED)
    async with address.watch(ended, a.token) as watching:
        await watching.until_closed(seconds=60)
    result = (await a.get(f"/api/arena/backtest/{ended}")).json()["session"]["result_id"]
    return str(created(await a.post("/api/certificates", {"result_id": result}))["id"])


async def started(a: Person, agent_id: str, **changes: Any) -> str:
    body = {"asset": ASSET, "decision_mode": "every_n_candles", "decision_interval_candles": 8}
    return str(created(await a.start(agent_id, **(body | changes)))["session"]["id"])


async def paused(a: Person, agent_id: str) -> str:
    session_id = await started(a, agent_id, playback_speed="slow")
    async with asyncio.timeout(20):
        while True:
            await a.post(f"/api/arena/backtest/{session_id}/pause")
            shown = (await a.get(f"/api/arena/backtest/{session_id}")).json()["session"]
            if shown["status"] == "paused":
                return session_id
            await asyncio.sleep(0.1)


async def ended(a: Person, session_id: str) -> None:
    """Stop a test of A's, and wait for its end: nothing of A's goes on behind a test's back."""
    path = f"/api/arena/backtest/{session_id}"
    await a.post(f"{path}/stop")
    async with asyncio.timeout(20):
        while (await a.get(path)).json()["session"]["status"] != "completed":
            await a.post(f"{path}/stop")
            await asyncio.sleep(0.1)


async def a_forward_test(world: World, a: Person, agent_id: str) -> str:
    """A row alone: what it shows and whose it is do not depend on its workflow."""
    owner, session_id = UUID(await user_id(a)), uuid4()
    async with world.services.database.for_user(owner) as session:
        version = await session.scalar(
            text("SELECT id FROM agent_versions WHERE agent_id = :id"), {"id": agent_id}
        )
        await SessionRepository(session).add(
            NewSession(
                id=session_id,
                user_id=owner,
                agent_id=UUID(agent_id),
                agent_version_id=version,
                agent_name="Momentum Max",
                workflow_id=f"forward-{session_id}",
                rules={},
                type="forward",
                status="paused",
                mode="omni",
                asset=ASSET,
                timeframe="1h",
                starting_capital=10_000.0,
            )
        )
    return str(session_id)


async def an_export(a: Person) -> str:
    include = {"agent_configs": True}
    answer = await a.post("/api/export", {"include": include})
    assert answer.status_code == 202, answer.text
    return await made(a, answer)


async def made(a: Person, answer: httpx.Response) -> str:
    """Wait until the worker is done with an export; return its id."""
    export_id = str(answer.json()["export_id"])
    async with asyncio.timeout(20):
        while (await a.get(f"/api/export/{export_id}")).json()["status"] == "processing":
            await asyncio.sleep(0.05)
    return export_id


async def a_notification(world: World, a: Person) -> str:
    owner = UUID(await user_id(a))
    new = NewNotification(
        user_id=owner, type="info", category="paused", title="Paused", message="It paused."
    )
    async with world.services.database.for_user(owner) as session:
        await InboxRepository(session).notify(new)
    return str(new.id)


async def user_id(person: Person) -> str:
    return str((await person.get("/api/users/me")).json()["user"]["id"])


ALL = tuple(operations())
NAMING = [(each, kind) for each in ALL for kind in each.kinds]
WITH_FIELDS = [(each, field) for each in ALL for field in each.fields]


def ids_of(pairs: list[tuple[Operation, str]]) -> list[str]:
    return [f"{operation.name} {what}" for operation, what in pairs]


@pytest.mark.parametrize(("operation", "kind"), NAMING, ids=ids_of(NAMING))
async def test_what_belongs_to_another_is_not_there(
    scene: Scene, operation: Operation, kind: str
) -> None:
    """Of its owner the same request is a good one: nothing else about it can be what is refused."""
    async with scene.owned(operation, kind) as named:
        before = scene.rows(named)

        answer = await scene.send(scene.b, operation, named)
        missing = await scene.send(scene.b, operation, NOTHING)

        assert answer.status_code in REFUSED, answer.text
        assert told(answer) == told(missing)
        assert leaks(scene, answer, named) == []
        assert scene.rows(named) == before
        own = await scene.send(scene.a, operation, named)
        if kind in KINDS and f"/{kind}/" not in operation.path:
            assert own.status_code in {404, 409}, "it is one of the other kind"
        else:
            assert is_good(own), own.text


@pytest.mark.parametrize(("operation", "field"), WITH_FIELDS, ids=ids_of(WITH_FIELDS))
async def test_what_belongs_to_another_cannot_be_named_in_bodies_and_queries(
    scene: Scene, operation: Operation, field: str
) -> None:
    assert field in FIELDS, f"{operation.name}: say in FIELDS what {field} names"
    kind, before = FIELDS[field], scene.rows()
    named = scene.b_things.get(operation.kinds[0], NOTHING) if operation.kinds else ""
    # What else the operation names is the sender's own: only this field can be what is refused.
    others = others_of(operation, field, scene.b_things)

    answer = await scene.send(scene.b, operation, named, **others, **{field: scene.things[kind]})

    missing = NOTHING if kind != "data_set" else "nobodys"
    none = await scene.send(scene.b, operation, named, **others, **{field: missing})

    if field in operation.queries and answer.status_code == 200:  # a filter that finds nothing
        assert answer.json() == none.json()
    else:
        # Candles are chosen and not named: that there are none is said of the wish.
        assert answer.status_code in (REFUSED if kind != "data_set" else {409, 422}), answer.text
        assert told(answer) == told(none)
    assert leaks(scene, answer) == []
    assert scene.rows() == before
    own = await as_owner(scene, operation, field)
    assert is_good(own), own.text


async def as_owner(scene: Scene, operation: Operation, field: str) -> httpx.Response:
    """The same request of A's, with what A has."""
    named = await scene.another(operation.kinds[0]) if operation.kinds else ""
    others = others_of(operation, field, scene.things)
    own = {field: scene.things[FIELDS[field]]}
    answer = await scene.send(scene.a, operation, named, **others, **own)
    if operation.id == "start_backtest":
        await ended(scene.a, created(answer)["session"]["id"])
    return answer


def others_of(operation: Operation, field: str, things: Mapping[str, str]) -> dict[str, str]:
    """What else the operation names: the agent of a test, say. No candles: there is a choice."""
    return {
        each: things[FIELDS[each]]
        for each in operation.fields
        if each != field and FIELDS[each] in things and FIELDS[each] != "data_set"
    }


@pytest.mark.parametrize(
    "operation", [each for each in ALL if not each.kinds], ids=lambda each: each.name
)
async def test_what_names_nothing_shows_and_changes_the_own_things_only(
    scene: Scene, operation: Operation
) -> None:
    before = scene.rows()

    answer = await scene.send(scene.b, operation)

    assert answer.status_code < 500, answer.text
    assert leaks(scene, answer) == []
    assert scene.rows() == before
    if operation.id not in NEED_A_NAME:
        own = await scene.send(scene.a, operation)
        assert own.is_success, own.text
        if operation.id == "start_export":
            await made(scene.a, own)


def sockets() -> list[str]:
    routes = [route for module in _ROUTES for route in module.router.routes]
    return [each.path for each in routes if isinstance(each, APIWebSocketRoute)]


async def test_no_socket_shows_what_belongs_to_another(scene: Scene) -> None:
    watched = 0
    for path in sockets():
        parameters = re.findall(r"{(\w+)", path)
        if parameters == ["asset"]:
            continue  # prices are everybody's
        for kind in [kind for name in parameters for kind in kinds_of(name, path)]:
            address = f"ws://127.0.0.1:{scene.address.port}"
            url = address + re.sub(r"{\w+}", scene.things[kind], path)
            for query in ("", "&last_seq=0"):
                body = await refusal(f"{url}?token={scene.b.token}{query}", 404)
                assert "SESSION_NOT_FOUND" in body
            await refusal(url, 401)
            if f"/{kind}/" in path:
                async with connect(f"{url}?token={scene.a.token}") as connection:
                    assert json.loads(await connection.recv())["event"] == "session_initialized"
                watched += 1
    assert watched == len(KINDS)


async def test_nothing_is_open_to_one_who_was_deactivated(scene: Scene) -> None:
    async with scene.world.person() as c:
        await user_id(c)
        async with scene.world.services.database.as_system() as session:
            await session.execute(
                text("UPDATE users SET is_active = false WHERE clerk_id = :id"), {"id": c.subject}
            )
        scene.world.services.known_users.pop(c.subject, None)

        for operation in ALL:
            for named in [scene.things[kind] for kind in operation.kinds] or [""]:
                answer = await scene.send(c, operation, named)
                assert answer.status_code == 403, (operation.name, answer.text)
        for kind in KINDS:
            url = scene.address.url(scene.things[kind], f"token={c.token}", kind)
            await refusal(url, 403)


async def test_nothing_is_open_to_one_who_is_not_signed_in(scene: Scene) -> None:
    async with scene.world.http() as http:
        nobody = Person(http, "", "")
        for operation in ALL:
            for named in [scene.things[kind] for kind in operation.kinds] or [""]:
                answer = await scene.send(nobody, operation, named)
                assert answer.status_code == 401, (operation.name, answer.text)


def told(answer: httpx.Response) -> tuple[int, Any, Any]:
    body = answer.json()
    return answer.status_code, body["error_code"], body["detail"]


def is_good(answer: httpx.Response) -> bool:
    """Whether it went well, or would have but for how far A's own things have come."""
    return answer.is_success or answer.json()["error_code"] in GOOD


def leaks(scene: Scene, answer: httpx.Response, *more: str) -> list[str]:
    """What an answer shows of A's."""
    return [each for each in (*scene.ids, scene.a.subject, *more) if each in answer.text]
