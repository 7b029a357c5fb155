"""Whether a certificate is what was signed, and whether it comes about once more today."""

import asyncio
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from cachetools import TTLCache

from api.schemas.certificates import Verdict
from certificates.bundle import SignedDocument, material_of, trace_of
from certificates.canonical import Document, NotCanonical, canonical_json
from certificates.comparison import compare_recording, compare_trace
from certificates.composition import counted_of
from certificates.presentation import differs_from
from certificates.problems import Findings, Problem
from certificates.signing import PublicKey
from certificates.verification import check_signed
from db.engine import Database
from db.models import CertificateRecord
from db.recordings import load_recording, told_decisions
from db.repositories.certificates import PublishedCertificates
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from trading.parity import Recording

# A page that many look at is recomputed for all of them.
KEPT_S = 60.0
KEPT = 1_000
_CODE = re.compile(r"ALX-\d{4}-\d{4}-[A-Z0-9]{5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What is known of a certificate; `document` is None where it cannot be read."""

    record: CertificateRecord
    document: Document | None
    verdict: Verdict
    reason: str | None = None
    recomputed_at: datetime | None = None
    public_key: PublicKey | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against it."""
        return self.verdict in {"genuine", "not_recomputable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recomputed:
    """What came of it; `problems` is None where there is nothing left to compute it from."""

    problems: tuple[Problem, ...] | None
    at: datetime


class CertificateVerifier:
    """Verifies certificates by code, one recomputation at a time."""

    def __init__(self, database: Database, keys: Sequence[PublicKey]) -> None:
        self._database = database
        self._keys = keys
        self._one_at_a_time = asyncio.Lock()
        self._recomputed: MutableMapping[str, _Recomputed] = TTLCache(KEPT, KEPT_S)

    @property
    def keys(self) -> Sequence[PublicKey]:
        """The key that signs now, and those of before."""
        return self._keys

    async def find(self, code: str, *, is_view: bool = False) -> CertificateRecord | None:
        """The certificate of a code, in whatever case it was typed."""
        written = code.strip().upper()
        if _CODE.fullmatch(written) is None:
            return None
        async with self._database.for_nobody() as session:
            return await PublishedCertificates(session).find(written, is_view=is_view)

    async def verify(self, code: str) -> Verified | None:
        """Verify the certificate of a code and count that somebody looked; None without one."""
        record = await self.find(code, is_view=True)
        if record is None:
            return None
        found = self._sealed(record)
        if found.document is None or found.verdict == "tampered":
            return found
        if record.revoked_at is not None:
            return replace(found, verdict="revoked", reason=record.revoked_reason)
        return _judged(found, await self._again(record, found.document))

    def _sealed(self, record: CertificateRecord) -> Verified:
        """Whether it is what was signed, and whether the row says the same."""
        key = next((each for each in self._keys if each.id == record.public_key_id), None)
        found = Verified(record=record, document=None, verdict="genuine", public_key=key)
        try:
            text = canonical_json(record.canonical)
        except NotCanonical as e:
            return replace(found, verdict="tampered", reason=str(e))
        signed = SignedDocument(
            text=text,
            canonical_sha256=record.canonical_sha256,
            public_key_id=record.public_key_id,
            signature=record.signature,
        )
        findings = Findings()
        document = check_signed(signed, self._keys, findings)
        if findings.problems or document is None:
            return replace(found, verdict="tampered", reason=findings.problems[0].message)
        other = differs_from(document, record.model_dump())
        if other is not None:
            reason = f"What is stored as {other} is not what was signed."
            return replace(found, document=document, verdict="tampered", reason=reason)
        return replace(found, document=document)

    async def _again(self, record: CertificateRecord, document: Document) -> _Recomputed:
        async with self._one_at_a_time:
            known = self._recomputed.get(record.canonical_sha256)
            if known is None:
                problems = await self._recompute(record, document)
                known = _Recomputed(problems=problems, at=datetime.now(UTC))
                self._recomputed[record.canonical_sha256] = known
            return known

    async def _recompute(
        self, record: CertificateRecord, document: Document
    ) -> tuple[Problem, ...] | None:
        """Fold what is stored today beside the event loop, with the rights of the owner."""
        recorded = await self._recorded(record)
        if recorded is None:
            return None
        session_id, recording = recorded
        material = material_of(
            recording, lambda: told_decisions(self._database, record.user_id, session_id)
        )
        traced = await trace_of(material)
        counted = await asyncio.to_thread(counted_of, recording, traced)
        told = await asyncio.to_thread(
            compare_recording, document, recording, counted, record.equity
        )
        return (*compare_trace(document, traced.facts), *told)

    async def _recorded(self, record: CertificateRecord) -> tuple[UUID, Recording] | None:
        async with self._database.for_user(record.user_id) as session:
            result = await ResultRepository(session).get(record.result_id)
            if result is None:
                return None
            test = await SessionRepository(session).get(result.session_id)
            if test is None or test.data_set_id is None:
                return None
            return test.id, await load_recording(session, test)


def _judged(found: Verified, again: _Recomputed) -> Verified:
    if again.problems is None:
        return replace(
            found,
            verdict="not_recomputable",
            reason="The candles that it was computed from have been deleted.",
        )
    if again.problems:
        first = again.problems[0]
        return replace(
            found,
            verdict="not_reproduced",
            reason=f"{first.place}: {first.message}".removeprefix(": "),
            recomputed_at=again.at,
        )
    return replace(found, recomputed_at=again.at)
