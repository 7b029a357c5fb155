"""What the relay promises: every durable event once and in order, whatever happens in between."""

import asyncio
import io
import random
from collections.abc import AsyncIterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from websockets.asyncio.client import connect

from api.realtime import pulse
from events.channels import session_stream
from settings import ApiSettings
from tests.api.sockets import (
    SET_STATUS,
    Address,
    Client,
    Tape,
    is_welcome,
    recorded,
    refusal,
    serving,
)
from tests.api.world import Person, World, opened_world
from tests.quiet_logging import configure_test_logging

NOBODY = "00000000-0000-7000-8000-000000000000"
COMPLETED = {
    "event": "session_completed",
    "data": {"session_id": "s", "result_id": "r", "final_stats": {}, "reason": "end_of_test"},
}
FAILED = {
    "event": "session_error",
    "data": {"error_code": "X", "message": "m", "candle_index": 0, "recoverable": False},
}
PAUSED = {"event": "session_paused", "data": {"paused_at": "t", "reason": "user"}}
RESUMED = {"event": "session_resumed", "data": {"resumed_at": "t"}}


@pytest.fixture
async def tape(world: World, ada: Person) -> Tape:
    return await recorded(world, ada)


class TestHandshake:
    @pytest.mark.parametrize("query", ["", "token=", "token=x.y.z"])
    async def test_a_bad_token_is_refused_before_accepting(
        self, address: Address, tape: Tape, query: str
    ) -> None:
        body = await refusal(address.url(tape.session_id, query), 401)

        assert '"error_code":"UNAUTHORIZED"' in body

    @pytest.mark.parametrize("session_id", [NOBODY, "not-an-id", "%27OR%201"])
    async def test_an_unknown_session_is_404(
        self, address: Address, ada: Person, session_id: str
    ) -> None:
        await refusal(address.url(session_id, f"token={ada.token}"), 404)

    async def test_another_users_session_is_404(
        self, address: Address, tape: Tape, bob: Person
    ) -> None:
        await refusal(address.url(tape.session_id, f"token={bob.token}"), 404)

    async def test_a_deactivated_user_is_403(
        self, world: World, address: Address, tape: Tape, ada: Person
    ) -> None:
        await deactivate(world, ada)

        await refusal(address.url(tape.session_id, f"token={ada.token}"), 403)

    async def test_a_last_seq_that_is_no_number_is_422(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        for given in ("-1", "x", "1e3", "9" * 30):
            query = f"token={ada.token}&last_seq={given}"
            await refusal(address.url(tape.session_id, query), 422)

    async def test_an_eleventh_connection_is_429(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        url = address.url(tape.session_id, f"token={ada.token}")
        connections = [await connect(url) for _ in range(10)]

        await refusal(url, 429)
        await connections.pop().close()
        async with asyncio.timeout(5):
            while not await is_welcome(url):
                await asyncio.sleep(0.02)
        for connection in connections:
            await connection.close()

    async def test_a_database_that_is_away_is_503(
        self, settings: ApiSettings, world: World, tmp_path: Path
    ) -> None:
        nowhere = SecretStr(f"postgresql://nobody@/none?host={tmp_path}")
        lost = settings.model_copy(update={"database_url": nowhere})
        async with (
            opened_world(lost, world.issuer, world.issuer_url) as stranded,
            serving(stranded) as address,
            stranded.person() as person,
        ):
            body = await refusal(address.url(NOBODY, f"token={person.token}"), 503)

        assert '"error_code":"UPSTREAM_UNAVAILABLE"' in body

    async def test_refusals_come_as_close_codes_to_those_who_ask(
        self, world: World, address: Address, tape: Tape, ada: Person
    ) -> None:
        async def code(session_id: object, token: str, **headers: str) -> int | None:
            query = f"token={token}" + ("" if headers else "&close_codes=spec")
            url = address.url(str(session_id), query)
            async with connect(url, additional_headers=headers) as connection:
                return await Client(connection).until_closed()

        assert await code(tape.session_id, "x.y.z") == 4001
        assert await code(tape.session_id, "x.y.z", close_codes="spec") == 4001
        assert await code(NOBODY, ada.token) == 4004
        await deactivate(world, ada)
        assert await code(tape.session_id, ada.token) == 4003

    async def test_the_token_may_come_as_a_subprotocol(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        protocols: list[Any] = ["alphalab", ada.token]
        async with connect(address.url(tape.session_id), subprotocols=protocols) as connection:
            assert connection.subprotocol == "alphalab"
            await Client(connection).until("replay_complete")

    @pytest.mark.parametrize("level", ["info", "debug"])
    async def test_the_token_is_in_no_log(
        self, address: Address, tape: Tape, ada: Person, level: str
    ) -> None:
        logged = io.StringIO()
        protocols: list[Any] = ["alphalab", ada.token]
        with redirect_stdout(logged):
            configure_test_logging(level)
            async with address.watch(tape.session_id, ada.token) as client:
                await client.until("replay_complete")
            async with connect(address.url(tape.session_id), subprotocols=protocols) as connection:
                await Client(connection).until("replay_complete")
            await refusal(address.url(NOBODY, f"token={ada.token}"), 404)
        configure_test_logging()

        assert str(tape.session_id) in logged.getvalue()
        assert ada.token.rpartition(".")[2] not in logged.getvalue()

    async def test_a_refusal_is_no_error_of_the_server(
        self, address: Address, tape: Tape, caplog: pytest.LogCaptureFixture
    ) -> None:
        await refusal(address.url(tape.session_id), 401)

        assert not [each for each in caplog.records if each.name == "uvicorn.error"]


class TestReplay:
    async def test_counting_from_nothing_gives_everything_once_and_in_order(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(30)
        await tape.note([decision(29)], phase="decision")

        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            done = await client.until("replay_complete")

        assert client.seqs() == list(range(1, 62))
        assert client.names()[0] == "session_initialized"
        assert client.names()[-2:] == ["stats_update", "replay_complete"]
        assert done["data"]["last_seq"] == 61
        assert len({frame["timestamp"] for frame in client.frames if "seq" in frame}) == 61

    async def test_the_repeat_of_the_stats_is_no_second_delivery(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        events = await tape.step(2)

        async with address.watch(tape.session_id, ada.token, last_seq=0) as counting:
            await counting.until("replay_complete")
        async with address.watch(tape.session_id, ada.token, last_seq=4) as returning:
            await returning.until("replay_complete")

        for client in (counting, returning):
            repeat = client.of("stats_update")[-1]
            assert "seq" not in repeat
            assert repeat["timestamp"] == events[-1].timestamp
        assert returning.names() == ["session_initialized", "stats_update", "replay_complete"]

    async def test_redis_and_the_database_replay_the_same_frames(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(40, happenings=[opened(39)])
        await tape.note([PAUSED])

        async def replayed() -> list[dict[str, Any]]:
            async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
                await client.until("replay_complete")
            return client.frames[:-1]

        from_redis = await replayed()
        await tape.redis.delete(session_stream(tape.session_id))
        from_database = await replayed()

        assert from_redis == from_database

    async def test_a_hole_in_the_stream_is_filled_from_the_database(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(5)
        await tape.step(5, is_published=False)
        await tape.step(5)
        await tape.redis.xtrim(session_stream(tape.session_id), maxlen=18, approximate=False)

        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")

        assert client.seqs() == list(range(1, 31))

    async def test_a_last_seq_beyond_the_session_starts_at_its_end(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(3)

        async with address.watch(tape.session_id, ada.token, last_seq=1_000) as client:
            done = await client.until("replay_complete")
            await tape.step()
            await client.until_seq(8)

        assert done["data"]["last_seq"] == 6
        assert client.seqs() == [7, 8]

    async def test_without_last_seq_the_session_comes_coalesced(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(3, happenings=[opened(2, trade=1)])
        await tape.step(3, happenings=[closed(5, trade=1), rejected(5)])
        await tape.note([decision(5)], phase="decision")
        await tape.note([PAUSED, RESUMED])
        position = opened(8, trade=2)
        await tape.step(
            3, happenings=[position], open_position={"opened_at": position["data"]["entry_time"]}
        )

        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")

        assert client.names() == [
            "session_initialized",
            *["candle"] * 6,
            "position_closed",
            "ai_decision",
            *["candle"] * 3,
            "position_opened",
            "stats_update",
            "replay_complete",
        ]
        assert client.of("position_opened")[0]["data"]["trade_number"] == 2
        by_seq = {event.seq: event.timestamp for event in tape.written}
        assert all(by_seq[f["seq"]] == f["timestamp"] for f in client.frames if "seq" in f)

    async def test_a_paused_session_says_so(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(2)
        await tape.note([PAUSED], status="paused")

        async with address.watch(tape.session_id, ada.token) as plain:
            await plain.until("replay_complete")
        async with address.watch(tape.session_id, ada.token, last_seq=0) as counting:
            await counting.until("replay_complete")
        async with address.watch(tape.session_id, ada.token, last_seq=5) as returning:
            await returning.until("replay_complete")

        assert plain.names()[-3:] == ["stats_update", "session_paused", "replay_complete"]
        assert counting.names().count("session_paused") == 1
        assert returning.names() == [
            "session_initialized",
            "stats_update",
            "session_paused",
            "replay_complete",
        ]
        assert "seq" not in returning.of("session_paused")[0]

    @pytest.mark.parametrize("last_seq", [None, 0, 3, 5])
    async def test_a_finished_session_tells_its_end_once_and_closes(
        self, address: Address, tape: Tape, ada: Person, last_seq: int | None
    ) -> None:
        await tape.step(2)
        await tape.note([COMPLETED], status="completed")

        async with address.watch(tape.session_id, ada.token, last_seq=last_seq) as client:
            code = await client.until_closed()

        assert code == 1000
        assert client.names().count("session_completed") == 1
        assert client.names()[-1] == "replay_complete"

    @pytest.mark.parametrize("last_seq", [None, 0, 3, 5])
    async def test_a_failed_session_tells_its_failure_under_both_names(
        self, address: Address, tape: Tape, ada: Person, last_seq: int | None
    ) -> None:
        await tape.step(2)
        await tape.note([FAILED], status="failed")

        async with address.watch(tape.session_id, ada.token, last_seq=last_seq) as client:
            code = await client.until_closed()

        assert code == 1000
        assert client.names().count("session_error") == client.names().count("error") == 1
        assert client.of("error")[0]["data"] == FAILED["data"]

    async def test_a_session_that_failed_silently_says_that_it_failed(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with tape.database.for_user(tape.user_id) as session:
            await session.execute(SET_STATUS, {"id": tape.session_id, "status": "failed"})

        async with address.watch(tape.session_id, ada.token) as client:
            code = await client.until_closed()

        assert code == 1000
        assert client.names() == ["session_initialized", "error", "replay_complete"]
        assert not client.of("error")[0]["data"]["recoverable"]


class TestLive:
    async def test_nothing_is_missing_and_nothing_comes_twice_at_the_seam(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        await tape.step(20)
        running = asyncio.create_task(keep_stepping(tape, candles=200))
        clients = []
        while not running.done():
            last_seq = random.randint(0, 40)
            async with address.watch(tape.session_id, ada.token, last_seq=last_seq) as client:
                await client.until_seq(min(len(tape.written) + 5, 440))
            clients.append((last_seq, client))

        assert len(clients) > 2
        for last_seq, client in clients:
            seqs = client.seqs()
            assert seqs == list(range(last_seq + 1, seqs[-1] + 1))

    async def test_live_events_reach_everybody_in_order(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with (
            address.watch(tape.session_id, ada.token) as first,
            address.watch(tape.session_id, ada.token, last_seq=0) as second,
        ):
            for client in (first, second):
                await client.until("replay_complete")
            await keep_stepping(tape, candles=30)
            await tape.say("ai_thinking", thinking())
            for client in (first, second):
                await client.until("ai_thinking")

        assert first.seqs() == second.seqs() == list(range(1, 61))
        assert "seq" not in first.of("ai_thinking")[0]

    async def test_what_is_published_twice_is_sent_once(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")
            events = await tape.step(3)
            await tape.publish_again(events)
            await tape.publish_again(events[2:])
            await tape.step()
            await client.until_seq(8)

        assert client.seqs() == list(range(1, 9))

    async def test_a_lost_publication_is_noticed_at_the_next_one(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")
            await tape.step(3, is_published=False)
            await tape.step()
            await client.until_seq(8, seconds=1)

        assert client.seqs() == list(range(1, 9))

    async def test_a_lost_publication_followed_by_silence_is_noticed_too(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")
            await tape.step(3, is_published=False)
            await client.until_seq(6, seconds=4)

        assert client.seqs() == list(range(1, 7))

    async def test_the_end_is_sent_and_the_socket_closed(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            await tape.step()
            await tape.note([COMPLETED], status="completed")
            code = await client.until_closed()

        assert code == 1000
        assert client.names()[-1] == "session_completed"

    async def test_an_end_that_was_never_published_closes_too(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")
            await tape.note([COMPLETED], status="completed", is_published=False)
            code = await client.until_closed()

        assert (code, client.names()[-1]) == (1000, "session_completed")

    async def test_a_failure_is_told_under_both_names(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token, last_seq=0) as client:
            await client.until("replay_complete")
            await tape.note([FAILED], status="failed")
            code = await client.until_closed()

        assert code == 1000
        assert client.names()[-2:] == ["session_error", "error"]
        assert client.frames[-1]["data"] == client.frames[-2]["data"]

    async def test_many_candles_at_once_are_thinned_for_those_who_do_not_count(
        self, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with (
            address.watch(tape.session_id, ada.token) as plain,
            address.watch(tape.session_id, ada.token, last_seq=0) as counting,
        ):
            for client in (plain, counting):
                await client.until("replay_complete")
            await tape.step(240)
            for client in (plain, counting):
                await client.until_seq(480)

        assert counting.seqs() == list(range(1, 481))
        shown = [frame["data"]["candle_index"] for frame in plain.of("candle")]
        assert 60 <= len(shown) <= 120
        assert shown[-1] == 239

    async def test_heartbeats_come_by_themselves(
        self,
        address: Address,
        tape: Tape,
        ada: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(pulse, "HEARTBEAT_S", 0.5)
        async with address.watch(tape.session_id, ada.token) as client:
            beat = await client.until("heartbeat", seconds=5)
            await client.send({"action": "pong"})
            await client.until("heartbeat", seconds=5)

        assert beat["data"]["server_time"].endswith("Z")
        assert "command_ack" not in client.names()

    async def test_a_deactivated_user_is_cut_off(
        self, world: World, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            await deactivate(world, ada)
            code = await client.until_closed()

        assert code == 4001

    async def test_a_session_that_was_removed_ends_normally(
        self, world: World, address: Address, tape: Tape, ada: Person
    ) -> None:
        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            async with world.services.database.as_system() as session:
                await session.execute(
                    text("DELETE FROM trading_sessions WHERE id = :id"), {"id": tape.session_id}
                )
            code = await client.until_closed()

        assert code == 1000

    async def test_a_shutdown_says_that_one_may_come_back(
        self, world: World, tape: Tape, ada: Person
    ) -> None:
        async with (
            serving(world) as elsewhere,
            elsewhere.watch(tape.session_id, ada.token) as client,
        ):
            await client.until("replay_complete")
            elsewhere.server.should_exit = True
            code = await client.until_closed()

        assert code == 1012


async def step_all(tape: Tape) -> None:
    for _ in range(8):
        await tape.step(500)


class TestSlowClients:
    @pytest.fixture
    async def impatient(self, world: World) -> AsyncIterator[Address]:
        """A server whose patience with a client that reads nothing is two seconds."""
        config = world.services.config
        object.__setattr__(config, "socket_stall_limit_s", 2.0)
        async with serving(world) as address:
            yield address
        object.__setattr__(config, "socket_stall_limit_s", 30.0)

    async def test_a_client_that_reads_nothing_is_closed_and_delays_nobody(
        self, impatient: Address, world: World, ada: Person
    ) -> None:
        tape = await recorded(world, ada, candles=4_000)
        url = impatient.url(tape.session_id, f"token={ada.token}&last_seq=0")
        async with (
            connect(url, max_queue=1, compression=None) as deaf,
            impatient.watch(tape.session_id, ada.token, last_seq=0) as client,
        ):
            deaf.transport.pause_reading()
            await step_all(tape)
            await client.until_seq(8_000)
            async with asyncio.timeout(20):
                while world.services.relay.count_watchers(tape.session_id) > 1:
                    await asyncio.sleep(0.05)
            deaf.transport.resume_reading()
            code = await Client(deaf).until_closed(seconds=30)

        assert client.seqs() == list(range(1, 8_001))
        assert code == 1013

    async def test_a_client_that_reads_slowly_gets_everything(
        self, impatient: Address, world: World, ada: Person
    ) -> None:
        tape = await recorded(world, ada, candles=4_000)
        async with impatient.watch_through_a_straw(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            async with asyncio.TaskGroup() as meanwhile:
                meanwhile.create_task(step_all(tape))
                for _ in range(300):
                    await client.next()
                    await asyncio.sleep(0.015)
            await client.until_seq(8_000)

        assert client.seqs() == list(range(1, 8_001))


class TestCommands:
    @pytest.fixture
    async def client(self, address: Address, tape: Tape, ada: Person) -> AsyncIterator[Client]:
        async with address.watch(tape.session_id, ada.token) as client:
            await client.until("replay_complete")
            yield client

    async def test_a_ping_is_answered(self, client: Client) -> None:
        await client.send({"action": "ping"})

        assert (await client.until("command_ack"))["data"] == {"action": "ping"}

    @pytest.mark.parametrize(
        "message",
        [
            "not json",
            "[]",
            '"pause"',
            "{}",
            '{"action": 7}',
            '{"action": "explode"}',
            '{"action": "change_speed"}',
            '{"action": "change_speed", "data": {"speed": "warp"}}',
            '{"action": "stop", "data": {"close_position": "maybe"}}',
            '{"action": "ping", "data": "' + "x" * 17_000 + '"}',
            '{"action": "ping", "data": "' + "€" * 6_000 + '"}',
            b"\xff\xfe",
            "[" * 10_000,
        ],
    )
    async def test_nonsense_is_answered_with_an_error_and_the_socket_kept(
        self, client: Client, message: str | bytes
    ) -> None:
        await client.send(message)
        error = await client.until("error")
        await client.send({"action": "ping"})
        await client.until("command_ack")

        assert error["data"]["error_code"] == "INVALID_COMMAND"

    async def test_the_eleventh_message_in_a_second_is_refused(self, client: Client) -> None:
        for _ in range(12):
            await client.send({"action": "ping"})
        error = await client.until("error")

        assert error["data"]["error_code"] == "RATE_LIMITED"
        assert client.names().count("command_ack") == 10

    async def test_a_flood_closes_the_socket(self, client: Client) -> None:
        for _ in range(60):
            await client.send({"action": "ping"})

        assert await client.until_closed() == 4010

    async def test_controls_reach_the_workflow(self, client: Client) -> None:
        for action, answer in (
            ({"action": "pause"}, "paused"),
            ({"action": "resume"}, "running"),
        ):
            await client.send(action)
            assert (await client.until("command_ack"))["data"]["status"] == answer
        await client.send({"action": "change_speed", "data": {"speed": "slow"}})
        assert (await client.until("command_ack"))["data"] == {
            "action": "change_speed",
            "speed": "slow",
        }

    async def test_a_finished_session_takes_no_commands(self, tape: Tape, client: Client) -> None:
        async with tape.database.for_user(tape.user_id) as session:
            await session.execute(
                text("UPDATE trading_sessions SET status = 'failed' WHERE id = :id"),
                {"id": tape.session_id},
            )
        await client.send({"action": "pause"})

        assert (await client.until("error"))["data"]["error_code"] == "SESSION_FINISHED"


async def keep_stepping(tape: Tape, *, candles: int) -> None:
    for _ in range(candles):
        await tape.step()
        await asyncio.sleep(0)


async def deactivate(world: World, person: Person) -> None:
    async with world.services.database.as_system() as session:
        await session.execute(
            text("UPDATE users SET is_active = false WHERE clerk_id = :id"),
            {"id": person.subject},
        )
    world.services.known_users.clear()


def decision(candle: int) -> dict[str, Any]:
    data = {
        "candle_index": candle,
        "action": "hold",
        "reasoning": "wait",
        "confidence": 50.0,
        "order": None,
        "overrides": [],
    }
    return {"event": "ai_decision", "data": data}


def opened(candle: int, *, trade: int = 1) -> dict[str, Any]:
    data = {
        "trade_id": f"t{trade}",
        "trade_number": trade,
        "type": "long",
        "entry_price": 1.0,
        "entry_time": f"2024-01-01T{candle:02}:00:00.000Z",
        "candle_index": candle,
    }
    return {"event": "position_opened", "data": data}


def closed(candle: int, *, trade: int) -> dict[str, Any]:
    data = {
        "trade_id": f"t{trade}",
        "trade_number": trade,
        "type": "long",
        "exit_type": "signal",
        "pnl_amount": 1.0,
        "candle_index": candle,
    }
    return {"event": "position_closed", "data": data}


def rejected(candle: int) -> dict[str, Any]:
    data = {"candle_index": candle, "reason": "too_small", "detail": "d"}
    return {"event": "order_rejected", "data": data}


def thinking() -> dict[str, Any]:
    return {"candle_index": 0, "text": "a", "delta": "a", "is_complete": False, "attempt": 1}
