"""Certificates in the database: their owner's, or one at a time for whoever has its code."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db.engine import Database
from db.errors import CodeTaken
from db.models import Decision, NewCertificate, ResultRecord
from db.repositories.agents import AgentRepository
from db.repositories.certificates import (
    AllCertificates,
    CertificateRepository,
    PublishedCertificates,
)
from db.repositories.results import ResultFilter, ResultRepository
from tests.db.accounts import CONTENT, Account, a_certificate, a_decision, a_result, store

AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
async def result(account: Account) -> ResultRecord:
    running = await account.add_session(await account.add_agent())
    new = a_result(running)
    async with account.database.for_user(account.id) as session:
        await ResultRepository(session).add(new)
        found = await ResultRepository(session).get(new.id)
    assert found is not None
    return found


async def stored(account: Account, new: NewCertificate) -> bool:
    async with account.database.for_user(account.id) as session:
        return await CertificateRepository(session).add(new)


async def test_a_result_has_one_certificate_and_lists_say_so(
    account: Account, result: ResultRecord
):
    first, second = a_certificate(result), a_certificate(result, id=uuid4())
    async with account.database.for_user(account.id) as session:
        (before,), _ = await ResultRepository(session).page(ResultFilter())
    assert [await stored(account, first), await stored(account, second)] == [True, False]

    async with account.database.for_user(account.id) as session:
        certificates, results = CertificateRepository(session), ResultRepository(session)
        found = await certificates.of_result(result.id)
        assert found == await certificates.get(first.id)
        (listed,), _ = await results.page(ResultFilter())
        whole = await results.get(result.id)

    assert found is not None
    assert found.canonical == first.canonical
    assert (before.has_certificate, listed.has_certificate) == (False, True)
    assert whole is not None
    assert (result.certificate_id, whole.certificate_id) == (None, first.id)


async def test_a_code_is_given_once_and_the_transaction_goes_on(
    account: Account, result: ResultRecord
):
    other = await account.add_session(await account.add_agent("Beta"))
    async with account.database.for_user(account.id) as session:
        await ResultRepository(session).add(a_result(other))
        second = await ResultRepository(session).get(a_result(other).id)
    assert second is not None
    first = a_certificate(result)
    await stored(account, first)

    twin = a_certificate(second, verification_code=first.verification_code)
    async with account.database.for_user(account.id) as session:
        certificates = CertificateRepository(session)
        with pytest.raises(CodeTaken):
            await certificates.add(twin)
        assert await certificates.of_result(second.id) is None


async def test_whoever_has_the_code_sees_that_certificate_and_no_other(
    account: Account, result: ResultRecord, database: Database
):
    new = a_certificate(result)
    await stored(account, new)
    async with database.for_nobody() as session:
        published = PublishedCertificates(session)
        found = await published.find(new.verification_code)
        viewed = [await published.find(new.verification_code, is_view=True) for _ in range(2)]
        none = [await published.find(code) for code in ("ALX-nobodys", "", "%", "' OR true --")]
        left = (await session.execute(text("SELECT id FROM certificates"))).all()
        setting = "SELECT current_setting('app.verification_code')"
        assert await session.scalar(text(setting)) == ""

    assert found is not None
    assert (found.id, found.view_count) == (new.id, 0)
    assert [each and each.view_count for each in viewed] == [1, 2]
    assert none == [None] * 4
    assert left == []


FORBIDDEN = (
    "UPDATE certificates SET view_count = 1000000",
    "UPDATE certificates SET revoked_at = NULL",
    "DELETE FROM certificates",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_not_even_its_owner_changes_a_certificate(
    account: Account, result: ResultRecord, statement: str
):
    await stored(account, a_certificate(result))
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with account.database.for_user(account.id) as session:
            await session.execute(text(statement))


async def test_the_function_is_for_the_roles_of_the_service_alone(postgres_url: str):
    query = """
        SELECT coalesce(grantee::regrole::text, 'PUBLIC') FROM pg_proc,
            aclexplode(proacl) WHERE proname = 'certificate_by_code' AND grantee <> proowner
    """
    with psycopg.connect(postgres_url) as connection:
        grantees = {name for (name,) in connection.execute(query)}
    assert grantees == {"alphalab_app", "alphalab_system"}


async def test_the_owner_of_the_table_sees_what_it_names_and_nothing_else(
    account: Account, result: ResultRecord, postgres_url: str
):
    new = a_certificate(result)
    await stored(account, new)
    with psycopg.connect(postgres_url, options="-c role=alphalab_owner") as connection:
        assert connection.execute("SELECT id FROM certificates").fetchall() == []
        connection.execute(
            "SELECT set_config('app.verification_code', %s, true)", (new.verification_code,)
        )
        assert connection.execute("SELECT id FROM certificates").fetchall() == [(new.id,)]


async def test_a_revocation_keeps_its_first_reason(account: Account, result: ResultRecord):
    new = a_certificate(result)
    await stored(account, new)
    async with account.database.as_system() as session:
        everybodys = AllCertificates(session)
        first = await everybodys.revoke(new.verification_code, "A mistake.", at=AT)
        again = await everybodys.revoke(new.verification_code, "Another.", at=datetime.now(UTC))
        assert await everybodys.revoke("ALX-nobodys", "None.", at=AT) is None

    assert first is not None
    assert (first.revoked_at, first.revoked_reason) == (AT, "A mistake.")
    assert again == first


async def test_the_keys_of_its_files_are_named(account: Account, result: ResultRecord):
    new = a_certificate(result)
    await stored(account, new)
    mine = {new.pdf_key, new.image_key, new.qr_key, new.bundle_key}
    async with account.database.as_system() as session:
        found = await AllCertificates(session).keys_among([*mine, "certificates/nobodys.pdf"])
    assert found == mine


async def test_whoever_stops_what_goes_badly_has_tried_it_all_the_same(
    account: Account, result: ResultRecord
):
    """Tests count that took a decision, of the same agent or of its twin, however they ended."""
    asked = {"start_date": result.start_date, "end_date": result.end_date}
    elsewhere = {name: at - timedelta(days=60) for name, at in asked.items()}
    assert result.agent_id is not None
    async with account.database.for_user(account.id) as session:
        agent = await AgentRepository(session).get(result.agent_id)
    assert agent is not None
    twin, other = (
        await account.add_agent("Twin"),
        await account.add_agent("Other", content=replace(CONTENT, model="simulated/hold")),
    )
    tried = [
        await account.add_session(agent, status="failed", **asked),
        await account.add_session(twin, status="stopped", **asked),
    ]
    untold = [
        await account.add_session(agent, **elsewhere),
        await account.add_session(agent, asset="ETH/USDT", **asked),
        await account.add_session(agent, timeframe="4h", **asked),
        await account.add_session(other, **asked),
    ]
    await account.add_session(agent, status="failed", **asked)  # before it decided anything
    itself = result.session_id
    decided = [itself, *(each.id for each in [*tried, *untold])]
    await store(account, Decision, *(a_decision(each, 0) for each in decided))

    async with account.database.for_user(account.id) as session:
        assert await CertificateRepository(session).trials(result) == 1 + len(tried)
