"""Whether a certificate is what was signed, and whether it comes about once more today."""

import asyncio
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import structlog
from cachetools import TTLCache
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from api.schemas.certificates import Verdict
from certificates.bundle import SignedDocument, material_of, trace_of
from certificates.canonical import Document, NotCanonical, canonical_json, sha256_hex
from certificates.comparison import compare_recording, compare_trace
from certificates.composition import counted_of
from certificates.presentation import differs_from
from certificates.problems import Findings, Problem, outcome_of
from certificates.signing import PublicKey
from certificates.verification import check_signed
from db.engine import Database
from db.models import CertificateRecord
from db.recordings import load_recording, told_decisions
from db.repositories.certificates import PublishedCertificates
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from trading.parity import Recording

# A page that many look at is recomputed for all of them, and none of them waits for long.
KEPT_S = 600.0
KEPT = 1_000
PATIENCE_S = 5.0
# Recomputations that wait for their turn; each holds a test in memory only once it has it.
MOST_WAITING = 100
BEING_RECOMPUTED = "It is being recomputed: look again in a minute."
_logger = structlog.get_logger(__name__)
_EQUITY = TypeAdapter(list[tuple[int, FiniteFloat]])
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

    @property
    def is_signed(self) -> bool:
        """Whether what is stored is what a known key has signed, so that it may be shown."""
        return self.document is not None and self.verdict not in {"tampered", "unknown_key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recomputed:
    """What came of it: the first problem, if any; or that there is nothing to compute it from."""

    problem: Problem | None
    at: datetime
    is_gone: bool = False


class CertificateVerifier:
    """Verifies certificates by code, one recomputation at a time."""

    def __init__(self, database: Database, keys: Sequence[PublicKey]) -> None:
        self._database = database
        self._keys = keys
        self._running: dict[str, asyncio.Task[_Recomputed]] = {}
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
        if found.document is None or not found.is_signed:
            return found
        if record.revoked_at is not None:
            return replace(found, verdict="revoked", reason=record.revoked_reason)
        again = await self._again(record, found.document)
        if again is None:
            return replace(found, verdict="not_recomputable", reason=BEING_RECOMPUTED)
        return _judged(found, again)

    def _sealed(self, record: CertificateRecord) -> Verified:
        """Whether it is what was signed, and whether the row says the same."""
        key = next((each for each in self._keys if each.id == record.public_key_id), None)
        found = Verified(record=record, document=None, verdict="genuine", public_key=key)
        try:
            text = canonical_json(record.canonical)
            _EQUITY.validate_python(record.equity)
        except NotCanonical as e:
            return replace(found, verdict="tampered", reason=str(e))
        except ValidationError:
            reason = "What is stored as equity is no curve."
            return replace(found, verdict="tampered", reason=reason)
        signed = SignedDocument(
            text=text,
            canonical_sha256=record.canonical_sha256,
            public_key_id=record.public_key_id,
            signature=record.signature,
        )
        findings = Findings()
        document = check_signed(signed, self._keys, findings)
        if findings.problems or document is None:
            is_unknown = outcome_of(findings.problems) == "unknown_key"
            return replace(
                found,
                verdict="unknown_key" if is_unknown else "tampered",
                reason=findings.problems[0].message,
            )
        other = differs_from(document, record.model_dump())
        if other is not None:
            reason = f"What is stored as {other} is not what was signed."
            return replace(found, document=document, verdict="tampered", reason=reason)
        return replace(found, document=document)

    async def _again(self, record: CertificateRecord, document: Document) -> _Recomputed | None:
        """What came of it lately; None while that is being computed, which goes on by itself."""
        key = _key_of(record)
        known = self._recomputed.get(key)
        if known is not None:
            return known
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= MOST_WAITING:
                return None
            task = asyncio.create_task(self._in_turn(record, document))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
        return task.result() if done else None

    async def _in_turn(self, record: CertificateRecord, document: Document) -> _Recomputed:
        async with self._one_at_a_time:
            problems = await self._recompute(record, document)
        found = _Recomputed(
            problem=problems[0] if problems else None,
            at=datetime.now(UTC),
            is_gone=problems is None,
        )
        self._recomputed[_key_of(record)] = found
        return found

    def _ended(self, key: str, task: asyncio.Task[_Recomputed]) -> None:
        """Whoever waits is told of a failure; where nobody does, the next one tries again."""
        del self._running[key]
        if not task.cancelled() and task.exception() is not None:
            _logger.warning("certificate_not_recomputed", error=type(task.exception()).__name__)

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


def _key_of(record: CertificateRecord) -> str:
    """What a verdict is about: the document, and the curve that is drawn beside it."""
    return sha256_hex(f"{record.canonical_sha256} {record.equity}".encode())


def _judged(found: Verified, again: _Recomputed) -> Verified:
    if again.is_gone:
        return replace(
            found,
            verdict="not_recomputable",
            reason="The candles that it was computed from have been deleted.",
        )
    if again.problem is not None:
        first = again.problem
        return replace(
            found,
            verdict="not_reproduced",
            reason=f"{first.place}: {first.message}".removeprefix(": "),
            recomputed_at=again.at,
        )
    return replace(found, recomputed_at=again.at)
