"""Certificates over REST: asked for by their owners, and verified by anybody with a code."""

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from temporalio.client import Client as TemporalClient

from api import certificates as issuing
from api import verification
from api.verification import CertificateVerifier
from certificates.canonical import canonical_json
from certificates.verification import verify_bundle
from events.payloads import result_id
from local.certificates import revoke
from local.issuer import Issuer
from settings import ApiSettings
from tests.api.world import Person, World, error_of, staffed_world
from tests.issuing import KEY
from tests.laboratory import WARM_UP, Laboratory, Plan, rising

NOBODY = "00000000-0000-7000-8000-000000000000"
CANDLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Ada, whose test has won; a world with workers; and a superuser of its database."""

    world: World
    ada: Person
    laboratory: Laboratory
    postgres_url: str

    async def won(self, **changes: Any) -> str:
        """Another test of hers that won: its result's id."""
        data_set_id = await self.laboratory.add_candles(rising(WARM_UP + CANDLES))
        plan = Plan(candles=CANDLES, model="simulated/always-long", data_set_id=data_set_id)
        session_id = await self.laboratory.plain(replace(plan, **changes))
        return str(result_id(session_id))

    async def certified(self, **changes: Any) -> dict[str, Any]:
        """The certificate of another test that won."""
        body = {"result_id": await self.won()} | changes
        answer = await self.ada.post("/api/certificates", body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["certificate"]
        return found

    async def verified(self, code: str) -> dict[str, Any]:
        """What anybody is told of a code, computed anew."""
        self.world.services.verifier._recomputed.clear()
        async with self.world.http() as stranger:
            answer = await stranger.get(f"/api/certificates/verify/{code}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def change(self, statement: str, certificate: dict[str, Any]) -> None:
        """What somebody with a superuser's password could do."""
        async with await psycopg.AsyncConnection.connect(self.postgres_url) as connection:
            changed = await connection.execute(
                statement,
                {"code": certificate["verification_code"], "result": certificate["result_id"]},
            )
            assert changed.rowcount > 0

    async def kept(self, certificate: dict[str, Any]) -> str:
        """The row of a certificate, to be put back."""
        query = "SELECT to_jsonb(c)::text FROM certificates c WHERE verification_code = %s"
        async with await psycopg.AsyncConnection.connect(self.postgres_url) as connection:
            row = await (
                await connection.execute(query, (certificate["verification_code"],))
            ).fetchone()
        assert row is not None
        return str(row[0])

    async def put_back(self, kept: str) -> None:
        columns = ("signature", "canonical", "canonical_sha256", "public_key_id")
        changed = (*columns, "pnl_pct", "agent_name", "seal", "equity")
        values = ", ".join(f"{name} = old.{name}" for name in changed)
        async with await psycopg.AsyncConnection.connect(self.postgres_url) as connection:
            await connection.execute(
                f"UPDATE certificates c SET {values}"
                " FROM jsonb_populate_record(null::certificates, %s) old WHERE c.id = old.id",
                (kept,),
            )


@pytest.fixture(scope="module")
async def staffed(
    settings: ApiSettings, issuer: Issuer, simulators_url: str, temporal_client: TemporalClient
) -> AsyncIterator[World]:
    async with staffed_world(settings, issuer, simulators_url, temporal_client) as world:
        yield world


@pytest.fixture(scope="module")
async def scene(
    staffed: World, settings: ApiSettings, temporal_client: TemporalClient, postgres_url: str
) -> AsyncIterator[Scene]:
    async with staffed.person() as ada, httpx.AsyncClient() as http:
        user = (await ada.get("/api/users/me")).json()["user"]
        laboratory = Laboratory(
            database=staffed.services.database,
            redis=staffed.services.redis,
            client=temporal_client,
            task_queue=f"nobody-{uuid4().hex}",
            openrouter_url=settings.openrouter_base_url,
            http=http,
            user_id=UUID(user["id"]),
        )
        yield Scene(world=staffed, ada=ada, laboratory=laboratory, postgres_url=postgres_url)


@pytest.fixture(scope="module")
async def certificate(scene: Scene) -> dict[str, Any]:
    """A certificate that no test changes."""
    return await scene.certified()


async def test_a_certificate_says_what_its_result_says(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    result = (await scene.ada.get(f"/api/results/{certificate['result_id']}")).json()["result"]
    assert certificate["pnl_pct"] == pytest.approx(result["total_pnl_pct"], abs=1e-6)
    assert certificate["total_trades"] == result["total_trades"]
    assert (result["certificate_id"], result["has_certificate"]) == (certificate["id"], True)
    assert certificate["test_period"] == "Jan 3 - Jan 3, 2024"
    assert certificate["duration_display"] == "8h 0m"
    assert certificate["share_url"].endswith(f"/verify/{certificate['verification_code']}")
    shown = (await scene.ada.get(f"/api/certificates/{certificate['id']}")).json()
    assert shown["verification_code"] == certificate["verification_code"]
    listed = (await scene.ada.get("/api/results", params={"result": "profitable"})).json()
    flags = {each["id"]: each["has_certificate"] for each in listed["results"]}
    assert flags[certificate["result_id"]] is True
    steps = (await scene.ada.get("/api/dashboard/quick-start")).json()["steps"]
    assert {"get_certificate"} <= {each["id"] for each in steps if each["is_complete"]}
    activity = (await scene.ada.get("/api/dashboard/activity?limit=100")).json()["activity"]
    assert "certificate_generated" in {each["type"] for each in activity}


async def test_a_result_has_one_certificate_however_often_it_is_asked_for(scene: Scene) -> None:
    body = {"result_id": await scene.won()}
    key = {"Idempotency-Key": uuid4().hex}
    first = await scene.ada.post("/api/certificates", body, headers=key)
    again = await scene.ada.post("/api/certificates", body)
    by_key = await scene.ada.post("/api/certificates", body, headers=key)
    other = body | {"include_reasoning_trace": True}
    reused = await scene.ada.post("/api/certificates", other, headers=key)

    assert [first.status_code, again.status_code, by_key.status_code] == [201, 200, 201]
    codes = {each.json()["verification_code"] for each in (first, again, by_key)}
    assert len(codes) == 1
    error_of(reused, 422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_test_that_lost_or_never_traded_gets_none(scene: Scene) -> None:
    flat = await scene.won(model="simulated/hold")
    answer = await scene.ada.post("/api/certificates", {"result_id": flat})
    error_of(answer, 409, "NOT_PROFITABLE")


async def test_a_result_that_does_not_come_about_again_gets_none(scene: Scene) -> None:
    result = await scene.won()
    await scene.change(
        "UPDATE test_results SET ending_capital = ending_capital * 2 WHERE id = %(result)s",
        {"verification_code": "", "result_id": result},
    )
    answer = await scene.ada.post("/api/certificates", {"result_id": result})
    body = error_of(answer, 409, "NOT_REPRODUCED")
    assert "equity of candle 7" in body["detail"]


@pytest.mark.parametrize("body", [{}, {"result_id": "x"}, {"result_id": NOBODY, "x": 1}])
async def test_what_is_not_there_is_not_certified(scene: Scene, body: dict[str, Any]) -> None:
    answer = await scene.ada.post("/api/certificates", body)
    assert answer.status_code == (404 if "x" in body else 422)


async def test_without_workers_it_is_said_to_be_under_way(
    world: World, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is: whoever works on that queue next makes it."""
    monkeypatch.setattr(issuing, "PATIENCE", issuing.PATIENCE / 50)
    body = {"result_id": await scene.won()}
    answer = await world.again(scene.ada).post("/api/certificates", body)
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "processing",
        "result_id": body["result_id"],
        "id": None,
        "certificate": None,
    }


LINKS = ("pdf_url", "image_url", "qr_code_url")
FILES = {"pdf": b"%PDF", "image": b"\x89PNG", "qr": b"\x89PNG", "bundle": b"PK"}


@pytest.mark.parametrize("kind", FILES)
async def test_a_file_is_for_its_owner_and_for_whoever_has_the_link(
    scene: Scene, certificate: dict[str, Any], bob: Person, kind: str
) -> None:
    path = f"/api/certificates/{certificate['id']}/{kind}"
    url = urlsplit(certificate["qr_code_url" if kind == "qr" else f"{kind}_url"])
    link = f"{url.path}?{url.query}"
    async with scene.world.http() as stranger:
        own, linked = await scene.ada.get(path), await stranger.get(link)
        bare, forged = await stranger.get(path), await stranger.get(link[:-1] + "0")
    foreign = await bob.get(path)

    assert url.path == path
    assert own.content == linked.content
    assert own.content.startswith(FILES[kind])
    assert certificate["verification_code"] in own.headers["content-disposition"]
    error_of(bare, 401, "UNAUTHORIZED")
    error_of(foreign, 404, "CERTIFICATE_NOT_FOUND")
    if link[-1] != "0":
        error_of(forged, 403, "FORBIDDEN")


async def test_the_link_of_one_file_opens_no_other(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    query = urlsplit(certificate["image_url"]).query
    async with scene.world.http() as stranger:
        answer = await stranger.get(f"/api/certificates/{certificate['id']}/bundle?{query}")
    error_of(answer, 403, "FORBIDDEN")


async def test_its_bundle_verifies_offline_and_holds_no_prompt(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    answer = await scene.ada.get(f"/api/certificates/{certificate['id']}/bundle")
    found = verify_bundle(io.BytesIO(answer.content), [KEY.public_key])
    assert found.problems == ()
    assert found.document is not None
    assert found.document.code == certificate["verification_code"]
    assert b"Follow the trend" not in answer.content


async def test_anybody_verifies_a_code_and_checks_the_proof_by_hand(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    found = await scene.verified(certificate["verification_code"].lower())
    assert (found["verified"], found["verdict"], found["reason"]) == (True, "genuine", None)
    proof = found["proof"]
    assert proof["recomputed"] is True
    content = canonical_json(proof["canonical"])
    assert hashlib.sha256(content).hexdigest() == proof["canonical_sha256"]
    async with scene.world.http() as stranger:
        keys = (await stranger.get("/.well-known/alphalab-certificate-key")).json()
    assert proof["public_key"] == keys["public_key"] == KEY.public_key.base64
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(keys["public_key"]))
    key.verify(base64.b64decode(proof["signature"]), content)
    assert not {"id", "result_id", "user_id", "bundle_url"} & found["certificate"].keys()


async def test_views_are_counted(scene: Scene, certificate: dict[str, Any]) -> None:
    code = certificate["verification_code"]
    before = (await scene.verified(code))["certificate"]["view_count"]
    async with scene.world.http() as stranger:
        await stranger.get(f"/verify/{code}")
    assert (await scene.verified(code))["certificate"]["view_count"] == before + 2


@pytest.mark.parametrize("code", ["ALX-2026-1127-AAAAA", "x", "ALX-2026-1127-%27%3B--", "%00"])
async def test_a_code_that_nobody_was_given_is_not_verified(scene: Scene, code: str) -> None:
    async with scene.world.http() as stranger:
        answer = await stranger.get(f"/api/certificates/verify/{code}")
        page = await stranger.get(f"/verify/{code}")
        bundle = await stranger.get(f"/api/certificates/verify/{code}/bundle")
    body = error_of(answer, 404, "CERTIFICATE_NOT_FOUND")
    assert body["verified"] is False
    error_of(bundle, 404, "CERTIFICATE_NOT_FOUND")
    assert page.status_code == 404
    assert "Unknown" in page.text


async def test_whoever_looks_meanwhile_is_answered_by_the_signature_and_it_is_computed_once(
    scene: Scene, certificate: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, calls = asyncio.Event(), 0
    recompute = CertificateVerifier._recompute

    async def slow(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        await goes_on.wait()
        return await recompute(*arguments)

    monkeypatch.setattr(CertificateVerifier, "_recompute", slow)
    monkeypatch.setattr(verification, "PATIENCE_S", 0.05)
    code, verifier = certificate["verification_code"], scene.world.services.verifier
    verifier._recomputed.clear()
    both = await asyncio.gather(verifier.verify(code), verifier.verify(code))
    for found in both:
        assert found is not None
        assert (found.verdict, found.reason) == ("not_recomputable", verification.BEING_RECOMPUTED)
        assert found.recomputed_at is None
    monkeypatch.setattr(verification, "PATIENCE_S", 30)
    goes_on.set()
    found = await verifier.verify(code)
    assert found is not None
    assert (found.verdict, calls) == ("genuine", 1)
    assert verifier._running == {}


async def test_what_is_known_is_told_while_another_is_computed(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    await scene.verified(certificate["verification_code"])
    verifier = scene.world.services.verifier
    async with verifier._one_at_a_time, asyncio.timeout(3):
        found = await verifier.verify(certificate["verification_code"])
    assert found is not None
    assert found.verdict == "genuine"


async def test_for_a_while_nothing_is_computed_again(
    scene: Scene, certificate: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = certificate["verification_code"]
    first = await scene.verified(code)

    async def fail(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(CertificateVerifier, "_recompute", fail)
    async with scene.world.http() as stranger:
        again = (await stranger.get(f"/api/certificates/verify/{code}")).json()
    assert again["proof"]["recomputed_at"] == first["proof"]["recomputed_at"]


TAMPERED = {
    "the signature": "SET signature = overlay(signature placing 'AA' from 1)",
    "the document": "SET canonical = jsonb_set(canonical, '{trials}', '0')",
    "a figure": "SET pnl_pct = pnl_pct + 1",
    "the agent": "SET agent_name = 'Somebody else'",
    "the seal": "SET seal = 'full'",
    "a document that is none": "SET canonical = '[[]]'",
    "a document of nothing": "SET canonical = 'null'",
    "a curve that is none": "SET equity = '[[1]]'",
    "a curve of words": "SET equity = '{\"a\": []}'",
    "the end of the curve": "SET equity = jsonb_set(equity, '{-1,1}', '1')",
    "the hash": "SET canonical_sha256 = repeat('a', 64)",
    "a number beyond numbers": "SET canonical = jsonb_set(canonical, '{trials}', '\"many\"')",
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_what_is_not_what_was_signed_is_said_to_be_tampered_with(
    scene: Scene, certificate: dict[str, Any], what: str
) -> None:
    code = certificate["verification_code"]
    kept = await scene.kept(certificate)
    try:
        await scene.change(
            f"UPDATE certificates {TAMPERED[what]} WHERE verification_code = %(code)s", certificate
        )
        found = await scene.verified(code)
        async with scene.world.http() as stranger:
            page = await stranger.get(f"/verify/{code}")
    finally:
        await scene.put_back(kept)

    assert (found["verified"], found["verdict"]) == (False, "tampered")
    assert found["certificate"] is found["proof"]["canonical"] is None
    assert found["reason"]
    assert "Tampered" in page.text


async def test_a_key_that_is_not_known_is_not_called_a_change(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    code, kept = certificate["verification_code"], await scene.kept(certificate)
    change = "UPDATE certificates SET public_key_id = 'ffffffffffffffff'"
    try:
        await scene.change(f"{change} WHERE verification_code = %(code)s", certificate)
        found = await scene.verified(code)
    finally:
        await scene.put_back(kept)
    assert (found["verified"], found["verdict"]) == (False, "unknown_key")
    assert found["certificate"] is found["proof"]["canonical"] is None


async def test_addresses_and_files_are_not_what_a_row_says(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    elsewhere = "share_url = 'https://evil.test', bundle_key = 'certificates/others.zip'"
    own = await scene.certified()
    await scene.change(
        f"UPDATE certificates SET {elsewhere} WHERE verification_code = %(code)s", own
    )
    found = await scene.verified(own["verification_code"])
    assert found["certificate"]["share_url"] == own["share_url"]
    bundle = await scene.ada.get(f"/api/certificates/{own['id']}/bundle")
    assert verify_bundle(io.BytesIO(bundle.content), [KEY.public_key]).is_genuine


NOT_REPRODUCED = {
    "the curve": "UPDATE certificates SET equity = jsonb_set(equity, '{1,1}', '99')",
    "a curve without a fall": "UPDATE certificates SET equity = equity - 1",
    "a trade": "UPDATE trades SET exit_price = exit_price * 1.001",
    "a decision": "UPDATE decisions SET decision = 'hold', order_data = NULL",
    "its words": "UPDATE decisions SET reasoning = reasoning || '!'",
}


@pytest.mark.parametrize("what", NOT_REPRODUCED)
async def test_what_comes_out_differently_today_is_not_verified(scene: Scene, what: str) -> None:
    certificate = await scene.certified()
    where = "WHERE session_id = (SELECT session_id FROM test_results WHERE id = %(result)s)"
    if "curve" in what:
        where = "WHERE verification_code = %(code)s"
    await scene.change(f"{NOT_REPRODUCED[what]} {where}", certificate)

    found = await scene.verified(certificate["verification_code"])

    assert (found["verified"], found["verdict"]) == (False, "not_reproduced")
    assert found["proof"]["recomputed"] is False
    assert found["reason"]


async def test_without_its_candles_the_signature_is_still_good(scene: Scene) -> None:
    certificate = await scene.certified()
    await scene.change(
        "DELETE FROM data_sets USING trading_sessions s JOIN test_results r ON r.session_id = s.id"
        " WHERE r.id = %(result)s AND data_sets.id = s.data_set_id",
        certificate,
    )
    found = await scene.verified(certificate["verification_code"])
    assert (found["verified"], found["verdict"]) == (True, "not_recomputable")
    assert found["proof"]["recomputed"] is False


async def test_a_certificate_that_was_revoked_says_so_and_why(scene: Scene) -> None:
    certificate = await scene.certified(include_reasoning_trace=True)
    code = certificate["verification_code"]
    link = urlsplit(certificate["bundle_url"])
    database = scene.world.services.database
    assert (await revoke(database, code, "Issued by mistake.")).revoked_reason
    again = await revoke(database, code.lower(), "Another reason.")
    assert again.revoked_reason == "Issued by mistake."

    found = await scene.verified(code)
    async with scene.world.http() as stranger:
        page = await stranger.get(f"/verify/{code}")
        public = await stranger.get(f"/api/certificates/verify/{code}/bundle")
        linked = await stranger.get(f"{link.path}?{link.query}")
    error_of(public, 404, "CERTIFICATE_NOT_FOUND")
    error_of(linked, 404, "CERTIFICATE_NOT_FOUND")
    assert (await scene.ada.get(link.path)).content.startswith(b"PK")
    assert {found["certificate"][name] for name in LINKS} == {None}
    assert "/bundle" not in page.text
    own = (await scene.ada.get(f"/api/certificates/{certificate['id']}")).json()

    assert (found["verified"], found["verdict"]) == (False, "revoked")
    assert found["reason"] == own["revoked_reason"] == "Issued by mistake."
    assert "Revoked" in page.text
    assert "Issued by mistake." in page.text


async def test_the_words_are_public_only_where_their_owner_publishes_them(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    told = await scene.certified(include_reasoning_trace=True)
    async with scene.world.http() as stranger:
        public, silent = [
            await stranger.get(f"/api/certificates/verify/{each['verification_code']}/bundle")
            for each in (told, certificate)
        ]
        page = await stranger.get(f"/verify/{told['verification_code']}")
    found = verify_bundle(io.BytesIO(public.content), [KEY.public_key])
    assert found.problems == ()
    assert "reasoning" in found.looked_at
    error_of(silent, 404, "CERTIFICATE_NOT_FOUND")
    assert f"/api/certificates/verify/{told['verification_code']}/bundle" in page.text


async def test_the_page_runs_nothing_and_is_genuine(
    scene: Scene, certificate: dict[str, Any]
) -> None:
    async with scene.world.http() as stranger:
        page = await stranger.get(f"/verify/{certificate['verification_code']}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "<script" not in page.text
    assert "Genuine" in page.text
    assert certificate["result_id"] not in page.text.replace(certificate["id"], "")


async def test_the_signing_key_is_nowhere(scene: Scene, certificate: dict[str, Any]) -> None:
    seed = base64.b64encode(KEY._key.private_bytes_raw()).decode()
    handle = scene.laboratory.client.get_workflow_handle(f"certificate-{certificate['result_id']}")
    stored = await handle.fetch_history()
    history = b"".join([event.SerializeToString() for event in stored.events]).decode("latin-1")
    answers = json.dumps([certificate, await scene.verified(certificate["verification_code"])])
    for text in (history, answers):
        assert seed not in text
        assert KEY._key.private_bytes_raw().hex() not in text
    # The payloads are in it as they were written: what is known to be in them is found.
    assert certificate["verification_code"] in history
    assert KEY.public_key.id in history
    assert "Follow the trend" not in history
    sizes = [len(json.dumps(event)) for event in json.loads(stored.to_json())["events"]]
    assert max(sizes) < 16_000
