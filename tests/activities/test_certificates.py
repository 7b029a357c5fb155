"""Certificates: one row with its files, whatever interrupts their making; or a refusal."""

import io
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from temporalio.exceptions import ApplicationError

from activities import certificates as certifying
from activities.certificates import CertificateActivities, Composed, ComposeInput, Issued
from activities.sweeping import UNNAMED_FOR, Sweeper
from certificates.canonical import canonical_json
from certificates.verification import verify_bundle
from db.models import CertificateRecord
from db.repositories.certificates import CertificateRepository
from events.payloads import result_id
from tests.activities.interruptions import Interruption, interrupted
from tests.activities.processes import Machine
from tests.issuing import ISSUER, KEY
from tests.laboratory import WARM_UP, Laboratory, Plan, rising
from tests.plain_runs import environment

CANDLES = 8
NONE_OF_THE_USERS = "SELECT 1 FROM certificates WHERE user_id = :id"


@pytest.fixture(scope="module")
async def winner(laboratory: Laboratory) -> UUID:
    """The session of a test that won, with a trade or two."""
    data_set_id = await laboratory.add_candles(rising(WARM_UP + CANDLES))
    return await laboratory.plain(
        Plan(
            candles=CANDLES,
            model="simulated/always-long",
            data_set_id=data_set_id,
            asset="WIN/USDT",  # tests of an agent that is the same to the letter would count
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuing:
    """A test that won and has no certificate yet, and who makes one."""

    laboratory: Laboratory
    server: psycopg.AsyncConnection[Any]
    session_id: UUID

    @property
    def activities(self) -> CertificateActivities:
        return self.laboratory.activities().certificates

    def wanted(self, *, words: bool = False) -> ComposeInput:
        return ComposeInput(
            result_id=str(result_id(self.session_id)),
            user_id=str(self.laboratory.user_id),
            includes_reasoning=words,
        )

    async def certify(self, *, words: bool = False) -> Issued:
        """All three activities, one after the other."""
        made = self.activities
        composed = await environment().run(made.compose_certificate, self.wanted(words=words))
        if composed.issued is not None:
            return composed.issued
        await environment().run(made.write_certificate, composed)
        issued: Issued = await environment().run(made.record_certificate, composed)
        return issued

    async def forget(self) -> None:
        """Take the certificate away, as if there had been none yet."""
        given = (result_id(self.session_id),)
        await self.server.execute("DELETE FROM certificates WHERE result_id = %s", given)
        query = "DELETE FROM activity_log WHERE activity_type = 'certificate_generated'"
        await self.server.execute(f"{query} AND result_id = %s", given)

    async def row(self) -> CertificateRecord:
        async with self.laboratory.database.for_user(self.laboratory.user_id) as session:
            found = await CertificateRepository(session).of_result(result_id(self.session_id))
        assert found is not None
        return found

    async def content(self, key: str) -> bytes:
        stream = await self.laboratory.storage.stream(key)
        return b"".join([piece async for piece in stream.content])

    async def checked(self) -> CertificateRecord:
        """The one row, whose files are all there, and whose bundle verifies."""
        row = await self.row()
        assert (await self.content(row.pdf_key)).startswith(b"%PDF")
        assert (await self.content(row.image_key)).startswith(b"\x89PNG")
        assert (await self.content(row.qr_key)).startswith(b"\x89PNG")
        bundle = io.BytesIO(await self.content(row.bundle_key))
        found = verify_bundle(bundle, [KEY.public_key])
        assert found.problems == ()
        assert found.document is not None
        assert found.document.to_bytes() == canonical_json(row.canonical)
        told = await self.laboratory.rows(
            "SELECT 1 FROM activity_log WHERE session_id = :id"
            " AND activity_type = 'certificate_generated'",
            self.session_id,
        )
        assert len(told) == 1
        return row


@pytest.fixture
async def issuing(
    laboratory: Laboratory, server: psycopg.AsyncConnection[Any], winner: UUID
) -> Issuing:
    issuing = Issuing(laboratory=laboratory, server=server, session_id=winner)
    await issuing.forget()
    return issuing


async def test_a_certificate_says_what_the_result_says(
    issuing: Issuing,
):
    issued = await issuing.certify()

    row, result = await issuing.checked(), await issuing.laboratory.result(issuing.session_id)
    assert issued == Issued(certificate_id=str(row.id), verification_code=row.verification_code)
    assert row.verification_code.startswith(f"ALX-{row.issued_at:%Y-%m%d}-")
    assert set(row.verification_code[-5:]) <= set(certifying.CODE_LETTERS)
    assert row.pnl_pct == pytest.approx(float(result["total_pnl_pct"]), abs=1e-6)
    assert row.total_trades == result["total_trades"] >= 2
    assert row.share_url == f"{ISSUER.public_url}/verify/{row.verification_code}"
    assert (row.seal, row.canonical["model"]["source"]) == ("simulated", "simulated")
    assert result["model_source"] == "simulated"
    assert "Follow the trend" not in str(row.canonical)


async def test_asked_again_it_is_the_same_certificate(
    issuing: Issuing,
):
    first = await issuing.certify()
    again = await issuing.certify(words=True)

    assert again == first
    await issuing.checked()


async def test_two_that_are_made_at_once_leave_one(
    issuing: Issuing,
):
    wanted = issuing.wanted()
    both = [
        await environment().run(issuing.activities.compose_certificate, wanted) for _ in range(2)
    ]
    for composed in both:
        await environment().run(issuing.activities.write_certificate, composed)
    issued = [await environment().run(issuing.activities.record_certificate, each) for each in both]

    assert issued[0] == issued[1]
    await issuing.checked()


# A cancelled attempt leaves the rows and files of a killed one.
STEPS = pytest.mark.parametrize(("how", "step"), [("kill", 1), ("cancel", 3)])


@STEPS
async def test_a_composition_interrupted_at_any_await_is_made_anew(
    machine: Machine, issuing: Issuing, how: Interruption, step: int
):
    """It leaves nothing behind, so that what comes of the second attempt is all there is."""
    wanted = issuing.wanted()
    expected = stated(await environment().run(issuing.activities.compose_certificate, wanted))

    async def composed_again(activities: CertificateActivities, where: str) -> None:
        again = await environment(attempt=2).run(activities.compose_certificate, wanted)
        assert stated(again) == expected, where

    awaits = await interrupt_everywhere(
        machine, lambda process: process.compose_certificate, wanted, how, composed_again, step=step
    )
    assert awaits >= 20
    assert await issuing.laboratory.rows(NONE_OF_THE_USERS, issuing.laboratory.user_id) == []


def stated(composed: Composed) -> dict[str, Any]:
    """What a composition states, but for what is drawn and when."""
    document: dict[str, Any] = json.loads(composed.document)
    return {key: value for key, value in document.items() if key not in {"code", "issued_at"}}


@STEPS
@pytest.mark.parametrize("name", ["write_certificate", "record_certificate"])
async def test_interrupted_at_any_await_it_leaves_one_row_with_its_files(
    machine: Machine,
    issuing: Issuing,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    how: Interruption,
    step: int,
):
    await draw_once(issuing, monkeypatch)
    await issuing.forget()
    activities = issuing.activities
    composed = await environment().run(activities.compose_certificate, issuing.wanted())
    if name == "record_certificate":
        await environment().run(activities.write_certificate, composed)

    async def go_on(again: CertificateActivities, where: str) -> None:
        """What Temporal does after an attempt that was interrupted."""
        await environment(attempt=2).run(getattr(again, name), composed)
        await environment().run(again.record_certificate, composed)
        row = await issuing.checked()
        assert row.verification_code == json.loads(composed.document)["code"], where
        await issuing.forget()

    awaits = await interrupt_everywhere(
        machine, lambda process: getattr(process, name), composed, how, go_on, step=step
    )
    assert awaits >= 5


async def interrupt_everywhere(
    machine: Machine,
    choose: Callable[[CertificateActivities], Callable[[Any], Awaitable[Any]]],
    input: Any,
    how: Interruption,
    go_on: Callable[[CertificateActivities, str], Awaitable[None]],
    *,
    step: int,
) -> int:
    """Interrupt an activity at every `step`-th of its awaits and go on; return how many it has."""
    process = machine.process()
    await process.warm_up()
    for at in count(random.randint(1, step), step):
        activity = choose(process.activities.certificates)
        first = await interrupted(activity, input, at=at, how=how, run_id="run-1")
        where = f"interrupted at await {at} of {first.suspensions}"
        if first.was_killed:
            await process.kill()
            process = machine.process()
            await process.warm_up()
        else:
            assert machine.busy_connections == 0, where
        await go_on(process.activities.certificates, where)
        if first.suspensions < at:
            await machine.end()
            return first.suspensions
    raise AssertionError("the activity never ends")


async def draw_once(issuing: Issuing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes long and waits for nobody: what was drawn once is taken for every attempt."""
    await issuing.certify()
    row = await issuing.row()
    for name, key in (("draw_pdf", row.pdf_key), ("draw_image", row.image_key)):
        drawn = await issuing.content(key)
        monkeypatch.setattr(certifying, name, lambda _face, drawn=drawn: drawn)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE trades SET exit_price = exit_price * 1.0001", "NOT_REPRODUCED"),
        ("UPDATE test_results SET ending_capital = ending_capital + 1", "NOT_REPRODUCED"),
        ("UPDATE test_results SET sharpe_ratio = 17", "NOT_REPRODUCED"),
        (
            "UPDATE test_results SET equity_curve = jsonb_set(equity_curve, '{1,value}', '17')",
            "NOT_REPRODUCED",
        ),
        ("UPDATE test_results SET win_rate = 17", "NOT_REPRODUCED"),
        ("UPDATE test_results SET total_pnl_pct = -1", "NOT_PROFITABLE"),
        ("UPDATE trading_sessions SET data_set_id = NULL", "CANDLES_DELETED"),
        ("UPDATE test_results SET agent_version_id = NULL", "AGENT_DELETED"),
    ],
)
async def test_what_does_not_come_about_again_gets_no_certificate(
    issuing: Issuing,
    change: str,
    code: str,
):
    table = change.split()[1]
    column = "id" if table == "trading_sessions" else "session_id"
    before = await everything(issuing.server, table, column, issuing.session_id)
    await issuing.server.execute(f"{change} WHERE {column} = %s", (issuing.session_id,))
    try:
        with pytest.raises(ApplicationError) as refused:
            await issuing.certify()
    finally:
        await put_back(issuing.server, table, column, issuing.session_id, before)

    assert (refused.value.type, refused.value.non_retryable) == (code, True)
    assert await issuing.laboratory.rows(NONE_OF_THE_USERS, issuing.laboratory.user_id) == []
    await issuing.certify()


async def everything(
    server: psycopg.AsyncConnection[Any], table: str, column: str, session_id: UUID
) -> Any:
    query = f"SELECT jsonb_agg(to_jsonb(t))::text FROM {table} t WHERE {column} = %s"
    row = await (await server.execute(query, (session_id,))).fetchone()
    assert row is not None
    return row[0]


async def put_back(
    server: psycopg.AsyncConnection[Any], table: str, column: str, session_id: UUID, rows: str
) -> None:
    changed = {
        "trades": ("exit_price",),
        "test_results": (
            "ending_capital",
            "sharpe_ratio",
            "win_rate",
            "equity_curve",
            "total_pnl_pct",
            "agent_version_id",
        ),
        "trading_sessions": ("data_set_id",),
    }[table]
    values = ", ".join(f"{name} = old.{name}" for name in changed)
    await server.execute(
        f"UPDATE {table} SET {values} FROM jsonb_populate_recordset(null::{table}, %s) old"
        f" WHERE {table}.id = old.id",
        (rows,),
    )


async def test_files_that_were_swept_are_written_again_before_a_row_names_them(
    issuing: Issuing,
):
    made, laboratory = issuing.activities, issuing.laboratory
    composed = await environment().run(made.compose_certificate, issuing.wanted())
    await environment().run(made.write_certificate, composed)
    days_later = datetime.now(UTC) + 2 * UNNAMED_FOR
    swept = await Sweeper(laboratory.database, laboratory.storage).run_once(now=days_later)
    assert swept.unnamed >= 4
    with pytest.raises(ApplicationError) as refused:
        await environment().run(made.record_certificate, composed)
    assert (refused.value.type, refused.value.non_retryable) == ("FILES_GONE", True)
    assert await laboratory.rows(NONE_OF_THE_USERS, laboratory.user_id) == []

    await environment().run(made.write_certificate, composed)
    await environment().run(made.record_certificate, composed)
    await issuing.checked()


async def test_words_are_in_the_bundle_where_they_are_to_be_published(
    issuing: Issuing,
):
    await issuing.certify(words=True)
    row = await issuing.checked()
    assert row.includes_reasoning
    content = await issuing.content(row.bundle_key)
    found = verify_bundle(io.BytesIO(content), [KEY.public_key])
    assert "reasoning" in found.looked_at


async def test_how_many_tests_it_is_the_best_of_is_counted(
    issuing: Issuing,
):
    """Another test of the same agent that overlaps it in time counts, one before it does not."""
    others = [
        await issuing.laboratory.plain(Plan(candles=3, model="simulated/hold")) for _ in range(2)
    ]
    for other, shift in zip(others, ("0", "30 days"), strict=True):
        await issuing.server.execute(
            "UPDATE trading_sessions SET agent_id = w.agent_id, asset = w.asset"
            " FROM trading_sessions w WHERE w.id = %s AND trading_sessions.id = %s",
            (issuing.session_id, other),
        )
        await issuing.server.execute(
            "UPDATE test_results SET"
            f" start_date = w.start_date - interval '{shift}',"
            f" end_date = w.end_date - interval '{shift}'"
            " FROM test_results w WHERE w.session_id = %s AND test_results.session_id = %s",
            (issuing.session_id, other),
        )

    await issuing.certify()
    assert (await issuing.row()).canonical["trials"] == 2
    elsewhere = "UPDATE trading_sessions SET asset = 'ETH/USDT' WHERE id = ANY (%s)"
    await issuing.server.execute(elsewhere, (others,))
