"""What Clerk delivers counts once, in Clerk's order, and only when Clerk signed it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from local.issuer import Issuer
from settings import ApiSettings
from tests.api.clerk import WEBHOOK_SECRET, clerk_user, event, post, signed, tell
from tests.api.sockets import Address, Tape, recorded
from tests.api.world import Person, World, created, error_of, opened_world, upload
from workflows.runtime import workflow_id


def a_subject() -> str:
    return f"user_{uuid4().hex}"


async def stored(world: World, clerk_id: str) -> dict[str, Any] | None:
    query = text("SELECT * FROM users WHERE clerk_id = :id")
    async with world.services.database.as_system() as session:
        row = (await session.execute(query, {"id": clerk_id})).mappings().one_or_none()
    return None if row is None else dict(row)


async def names(world: World, clerk_id: str) -> tuple[Any, ...]:
    user = await stored(world, clerk_id)
    assert user is not None
    return user["email"], user["first_name"], user["is_active"]


class TestUsers:
    async def test_one_who_signed_up_is_there_before_the_first_request(self, world: World) -> None:
        subject = a_subject()

        answer = await tell(world, "user.created", clerk_user(subject))

        assert (answer.status_code, answer.json()) == (200, {"message": "Applied."})
        assert await names(world, subject) == (f"{subject}@example.com", "Ada", True)

    async def test_news_reach_one_who_is_signed_in(self, world: World, bob: Person) -> None:
        assert (await bob.get("/api/users/me")).json()["user"]["email"] is None
        email = f"{bob.subject}@example.com"

        await tell(world, "user.updated", clerk_user(bob.subject, email=email))

        user = (await bob.get("/api/users/me")).json()["user"]
        assert (user["email"], user["first_name"]) == (email, "Ada")
        assert user["image_url"] == "https://img.clerk.test/ada"

    async def test_an_address_that_was_removed_is_forgotten_and_names_are_kept(
        self, world: World
    ) -> None:
        subject = a_subject()
        await tell(world, "user.created", clerk_user(subject))

        await tell(world, "user.updated", clerk_user(subject, email=None, first_name=None))

        assert await names(world, subject) == (None, "Ada", True)

    async def test_an_address_that_somebody_else_has_stays_unknown(self, world: World) -> None:
        one, other = a_subject(), a_subject()
        await tell(world, "user.created", clerk_user(one))

        answer = await tell(world, "user.created", clerk_user(other, email=f"{one}@example.com"))

        assert answer.status_code == 200
        assert await names(world, other) == (None, "Ada", True)

    async def test_what_arrives_late_does_not_undo_what_is_newer(self, world: World) -> None:
        subject = a_subject()
        await tell(world, "user.updated", clerk_user(subject, first_name="New", updated_at=2_000))

        for updated_at in (1_999, None, "soon", 10**30):
            late = clerk_user(subject, first_name="Old", updated_at=updated_at)
            await tell(world, "user.created", late)
            assert (await names(world, subject))[1] == "New"
        await tell(world, "user.updated", clerk_user(subject, first_name="Newer", updated_at=2_001))
        assert (await names(world, subject))[1] == "Newer"

    async def test_one_who_was_deleted_does_not_come_back(self, world: World) -> None:
        known, never_seen = a_subject(), a_subject()
        await tell(world, "user.created", clerk_user(known))

        for subject in (known, never_seen):
            deleted = await tell(world, "user.deleted", {"id": subject, "deleted": True})
            late = clerk_user(subject, first_name="Late", updated_at=9_999_999_999_999)
            await tell(world, "user.created", late)
            await tell(world, "user.updated", late)

            assert deleted.status_code == 200
            user = await stored(world, subject)
            assert user is not None
            assert (user["is_active"], user["first_name"] == "Late") == (False, False)
            async with world.http({"Authorization": f"Bearer {world.token(subject)}"}) as http:
                error_of(await http.get("/api/users/me"), 403, "FORBIDDEN")
                error_of(await http.post("/api/users/sync"), 403, "FORBIDDEN")

    async def test_other_events_change_nothing(self, world: World) -> None:
        subject = a_subject()

        for kind in ("session.created", "organization.created", "", "user.deleted.not"):
            answer = await tell(world, kind, clerk_user(subject))
            assert (answer.status_code, answer.json()) == (200, {"message": "Nothing to do."})
        assert await stored(world, subject) is None

    @pytest.mark.parametrize("data", [{}, {"id": None}, {"id": 7}, {"id": ""}, {"id": "a\x00b"}])
    async def test_an_event_of_nobody_is_refused_and_may_come_again(
        self, world: World, data: dict[str, Any]
    ) -> None:
        subject, same = a_subject(), f"msg_{uuid4().hex}"

        for kind in ("user.created", "user.updated", "user.deleted"):
            error_of(await tell(world, kind, data, id=same), 422, "VALIDATION_ERROR")

        answer = await tell(world, "user.created", clerk_user(subject), id=same)
        assert answer.json() == {"message": "Applied."}
        assert await stored(world, subject) is not None


class TestOnce:
    async def test_the_same_delivery_counts_once(self, world: World) -> None:
        subject, same = a_subject(), f"msg_{uuid4().hex}"
        await tell(world, "user.created", clerk_user(subject, first_name="First"), id=same)

        again = await tell(world, "user.updated", clerk_user(subject, first_name="Second"), id=same)

        assert (again.status_code, again.json()) == (200, {"message": "Applied before."})
        assert (await names(world, subject))[1] == "First"

    async def test_deliveries_that_race_count_once(self, world: World) -> None:
        subject, same = a_subject(), f"msg_{uuid4().hex}"

        answers = await asyncio.gather(
            *(
                tell(world, "user.created", clerk_user(subject, first_name=f"{n}"), id=same)
                for n in range(12)
            )
        )

        assert [answer.status_code for answer in answers] == [200] * 12
        applied = [n for n, each in enumerate(answers) if each.json()["message"] == "Applied."]
        assert [(await names(world, subject))[1]] == [f"{n}" for n in applied]

    async def test_a_delivery_whose_effect_failed_was_not_taken(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process may die there: the row of the delivery goes with its effect."""
        subject, same = a_subject(), f"msg_{uuid4().hex}"

        async def die(*_: object) -> None:
            raise RuntimeError("a test")

        with monkeypatch.context() as patched:
            patched.setattr("db.repositories.users.SignInRepository.follow", die)
            failed = await tell(world, "user.created", clerk_user(subject), id=same)
        answer = await tell(world, "user.created", clerk_user(subject), id=same)

        error_of(failed, 500, "INTERNAL_ERROR")
        assert answer.json() == {"message": "Applied."}
        assert await stored(world, subject) is not None

    async def test_deliveries_are_forgotten_after_a_month(self, world: World) -> None:
        ids = {age: f"msg_{uuid4().hex}" for age in (29, 31)}
        async with world.services.database.as_system() as session:
            for age, each in ids.items():
                await session.execute(
                    text(
                        "INSERT INTO webhook_deliveries (svix_id, received_at)"
                        " VALUES (:id, now() - make_interval(days => :age))"
                    ),
                    {"id": each, "age": age},
                )

        await tell(world, "user.created", clerk_user(a_subject()))

        async with world.services.database.as_system() as session:
            query = text("SELECT svix_id FROM webhook_deliveries WHERE svix_id = ANY(:ids)")
            left = await session.scalars(query, {"ids": list(ids.values())})
        assert left.all() == [ids[29]]


class TestSignatures:
    @pytest.mark.parametrize("age_s", [-295, 0, 295])
    async def test_five_minutes_either_way_are_forgiven(self, world: World, age_s: float) -> None:
        subject = a_subject()
        body = event("user.created", clerk_user(subject))

        assert (await post(world, body, signed(body, age_s=age_s))).status_code == 200
        assert await stored(world, subject) is not None

    @pytest.mark.parametrize(
        "changes",
        [
            {"svix-id": ""},
            {"svix-timestamp": ""},
            {"svix-signature": ""},
            {"svix-id": "msg_another"},
            {"svix-timestamp": "1"},
            {"svix-timestamp": "nan"},
            {"svix-timestamp": "soon"},
            {"svix-signature": "v1"},
            {"svix-signature": "v1,"},
            {"svix-signature": "v1,no base64!"},
            {"svix-signature": "v1,é".encode()},
            {"svix-signature": "v2," + base64.b64encode(b"x" * 32).decode()},
            {"svix-signature": "v1," + base64.b64encode(b"x" * 32).decode()},
        ],
    )
    async def test_headers_that_prove_nothing_are_refused(
        self, world: World, changes: dict[str, Any]
    ) -> None:
        subject = a_subject()
        body = event("user.created", clerk_user(subject))

        answer = await post(world, body, signed(body) | changes)

        error_of(answer, 401, "UNAUTHORIZED")
        assert await stored(world, subject) is None

    async def test_what_is_old_new_changed_or_signed_by_another_is_refused(
        self, world: World
    ) -> None:
        subject = a_subject()
        body = event("user.created", clerk_user(subject))
        foreign = "whsec_" + base64.b64encode(b"another's twenty-four b.").decode()

        for headers in (
            {},
            signed(body, age_s=305),
            signed(body, age_s=-305),
            signed(body, secret=foreign),
            signed(body + b" "),
            {name.replace("svix", "webhook"): each for name, each in signed(body).items()},
            # The names that the library takes as well must not carry a delivery under a new id.
            {name.replace("svix", "webhook"): each for name, each in signed(body).items()}
            | {"svix-id": "msg_another"},
        ):
            error_of(await post(world, body, headers), 401, "UNAUTHORIZED")
        assert await stored(world, subject) is None

    async def test_one_good_signature_of_several_will_do(self, world: World) -> None:
        """While the secret is changed, Svix signs with both."""
        body = event("user.created", clerk_user(a_subject()))
        headers = signed(body)
        foreign = "v1," + base64.b64encode(b"x" * 32).decode()
        headers["svix-signature"] = f"{foreign} {headers['svix-signature']}"

        assert (await post(world, body, headers)).status_code == 200

    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"", 401), (b"\xff\xfe", 401), (b"{", 401), (b"[]", 200), (b"null", 200)],
    )
    async def test_a_signed_body_that_is_no_event_changes_nothing(
        self, world: World, body: bytes, status: int
    ) -> None:
        assert (await post(world, body, signed(body))).status_code == status

    async def test_a_large_body_is_refused(self, world: World) -> None:
        body = event("user.created", {"id": a_subject(), "padding": "x" * (1 << 20)})

        error_of(await post(world, body, signed(body)), 413, "REQUEST_TOO_LARGE")

    async def test_without_the_secret_nothing_is_taken(
        self, settings: ApiSettings, issuer: Issuer, simulators_url: str
    ) -> None:
        bare = settings.model_copy(update={"clerk_webhook_secret": None})
        async with opened_world(bare, issuer, simulators_url) as world:
            subject = a_subject()
            for secret in (WEBHOOK_SECRET, ""):
                body = event("user.created", clerk_user(subject))
                answer = await post(world, body, signed(body, secret=secret))

                problem = error_of(answer, 503, "UPSTREAM_UNAVAILABLE")
                assert "CLERK_WEBHOOK_SECRET" in problem["detail"]
            assert await stored(world, subject) is None


class TestDeletion:
    async def test_every_door_is_shut_at_once(
        self, world: World, address: Address, ada: Person
    ) -> None:
        tape = await recorded(world, ada)
        async with (
            address.watch(tape.session_id, ada.token) as one,
            address.watch(tape.session_id, ada.token, last_seq=0) as other,
        ):
            await one.until("replay_complete")
            await other.until("replay_complete")
            await tell(world, "user.deleted", {"id": ada.subject, "deleted": True})

            error_of(await ada.get("/api/users/me"), 403, "FORBIDDEN")
            codes = await asyncio.gather(one.until_closed(seconds=5), other.until_closed(seconds=5))

        assert set(codes) == {4001}

    async def test_the_sockets_of_a_session_that_never_falls_silent_are_closed_too(
        self, world: World, address: Address, ada: Person
    ) -> None:
        tape = await recorded(world, ada)
        async with (
            address.watch(tape.session_id, ada.token, last_seq=0) as client,
            talking(tape),
        ):
            await client.until("replay_complete")
            await tell(world, "user.deleted", {"id": ada.subject, "deleted": True})

            assert await client.until_closed(seconds=6) == 4001
        assert len(client.frames) > 3, "it never fell silent"

    async def test_the_end_of_a_stopped_test_is_no_normal_end_to_one_who_was_deleted(
        self, world: World, address: Address, ada: Person
    ) -> None:
        tape = await recorded(world, ada)
        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            await tell(world, "user.deleted", {"id": ada.subject, "deleted": True})
            end = {"event": "session_completed", "data": {"session_id": str(tape.session_id)}}
            await tape.note([end], status="stopped")

            assert await client.until_closed(seconds=5) == 4001

    async def test_running_tests_are_told_to_stop_and_nobody_elses(
        self, world: World, temporal_client: Client, ada: Person, bob: Person
    ) -> None:
        sessions = [await started(person) for person in (ada, ada, bob)]

        await tell(world, "user.deleted", {"id": ada.subject, "deleted": True})

        stops = [await stop_signals(temporal_client, each) for each in sessions]
        assert stops == [1, 1, 0]

    async def test_a_temporal_that_is_away_keeps_nobody_in(
        self, settings: ApiSettings, issuer: Issuer, simulators_url: str, world: World, ada: Person
    ) -> None:
        await started(ada)
        lost = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
        async with opened_world(lost, issuer, simulators_url) as stranded:
            async with asyncio.timeout(12):
                answer = await tell(stranded, "user.deleted", {"id": ada.subject})

            assert answer.status_code == 200
            person = stranded.again(ada)
            error_of(await person.get("/api/users/me"), 403, "FORBIDDEN")
            await person.http.aclose()


async def started(person: Person) -> UUID:
    """A backtest that no worker serves."""
    if not (await person.get("/api/api-keys")).json()["api_keys"]:
        await person.add_key()
        await upload(person)
    agent = await person.add_agent(name=f"Agent {uuid4().hex[:8]}")
    return UUID(created(await person.start(agent["id"]))["session"]["id"])


async def stop_signals(client: Client, session_id: UUID) -> int:
    history = await client.get_workflow_handle(workflow_id(session_id)).fetch_history()
    signals = [
        each.workflow_execution_signaled_event_attributes.signal_name
        for each in history.events
        if each.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]
    return signals.count("stop")


@asynccontextmanager
async def talking(tape: Tape) -> AsyncIterator[None]:
    """Publish a candle every tenth of a second, as a session at some speed does."""

    async def talk() -> None:
        while True:
            await tape.step()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(talk())
    yield
    task.cancel()
    await asyncio.wait([task])
