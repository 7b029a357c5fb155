"""Certificates: composed from what a test recorded, written as files, and recorded once.

Nothing is certified that does not come about again from its candles and decisions, and no row
stands for a certificate whose files are not all there. What is left of an attempt that did not get
that far lies under `certificates/{result_id}/{code}/` with a code that no row has.
"""

import asyncio
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.failures import activity_failures, storage_failures
from activities.heartbeats import heartbeating
from activities.sweeping import UNNAMED_FOR
from certificates.bundle import (
    Material,
    SignedDocument,
    TraceChanged,
    Traced,
    bundle,
    material_of,
    trace_of,
)
from certificates.canonical import AgentFacts, Document, RunFacts
from certificates.comparison import compare_recording
from certificates.composition import Circumstances, compose, counted_of, instant
from certificates.face import CertificateFace, EquityPoint
from certificates.files import NAMES, folder_of
from certificates.image import draw_image
from certificates.pdf import draw_pdf
from certificates.presentation import face_of, moment, repeated
from certificates.qr_code import draw_qr_code
from certificates.signing import SigningKey
from db.engine import Database
from db.errors import CodeTaken
from db.models import (
    AgentVersionRecord,
    CertificateRecord,
    NewActivity,
    NewCertificate,
    ResultRecord,
    SessionRecord,
)
from db.recordings import load_recording, told_decisions
from db.repositories.agents import AgentRepository
from db.repositories.certificates import CertificateRepository, PublishedCertificates
from db.repositories.inbox import InboxRepository
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from events.durations import display_duration
from integrations.storage.objects import ObjectStore
from trading.parity import Recording
from trading.rules import Mode

# Without what looks like something else: 0 and O, 1, I and L, 5 and S, 8 and B, 2 and Z.
CODE_LETTERS = "ACDEFGHJKMNPQRTUVWXY34679"
_CODE_LENGTH = 5
# A long test takes a core for a quarter of a minute, and all its candles and decisions in memory.
AT_ONCE = 2
# For the workflow, which writes them again.
FILES_GONE = "FILES_GONE"
# A result's columns hold six decimals of a percentage.
_ROUNDING = 2e-6

Refusal = Literal["NOT_PROFITABLE", "NOT_REPRODUCED", "CANDLES_DELETED", "AGENT_DELETED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeInput:
    """A result to certify."""

    result_id: str
    user_id: str
    includes_reasoning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What is signed of a result; or, where it has one, its certificate."""

    result_id: str
    user_id: str
    issued: "Issued | None" = None
    document: str = ""
    signature: str = ""
    canonical_sha256: str = ""
    public_key_id: str = ""

    @property
    def signed(self) -> SignedDocument:
        return SignedDocument(
            text=self.document.encode(),
            canonical_sha256=self.canonical_sha256,
            public_key_id=self.public_key_id,
            signature=self.signature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The certificate of a result."""

    certificate_id: str
    verification_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """Where the files of a certificate are."""

    folder: str

    @property
    def columns(self) -> dict[str, str]:
        return {column: f"{self.folder}/{name}" for column, name in NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Test:
    """A finished test with all that a certificate says of it."""

    result: ResultRecord
    session: SessionRecord
    version: AgentVersionRecord
    recording: Recording
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssuer:
    """In whose name certificates are issued; `public_url` is where strangers verify them."""

    key: SigningKey
    public_url: str
    engine_version: str


class CertificateActivities:
    """Issues certificates."""

    def __init__(self, database: Database, storage: ObjectStore, issuer: CertificateIssuer) -> None:
        self._database = database
        self._storage = storage
        self._issuer = issuer
        self._turns = asyncio.Semaphore(AT_ONCE)

    @activity.defn
    async def compose_certificate(self, input: ComposeInput) -> Composed:
        """Recompute the test and sign what came of it; the code is drawn here."""
        with activity_failures(), heartbeating():
            async with self._turns:
                return await self._compose(input)

    @activity.defn
    async def write_certificate(self, input: Composed) -> None:
        """Store the files; a second attempt stores the same once more."""
        with activity_failures(), storage_failures(), heartbeating():
            async with self._turns:
                await self._write(input)

    @activity.defn
    async def record_certificate(self, input: Composed) -> Issued:
        """Store the row whose files are there, and tell the user's history; once.

        Fails with `FILES_GONE` where they may have been swept since they were written.
        """
        with activity_failures(), storage_failures():
            document = Document.from_bytes(input.document.encode())
            await self._check_files(_keys_of(input.result_id, document))
            async with self._database.for_user(UUID(input.user_id)) as session:
                result = await _existing(session, UUID(input.result_id))
                new = self._row(input, document, result)
                try:
                    is_new = await CertificateRepository(session).add(new)
                except CodeTaken:
                    raise _refused("CodeTaken", "The code was drawn twice: try again.") from None
                if is_new:
                    await InboxRepository(session).record(_told(new, result))
                stored = await CertificateRepository(session).of_result(result.id)
            assert stored is not None  # noqa: S101 - it is there, or was there before
            return _issued(stored)

    async def _check_files(self, keys: _Keys) -> None:
        fresh = datetime.now(UTC) - UNNAMED_FOR / 2
        found = {
            each.key
            async for each in self._storage.list(f"{keys.folder}/")
            if each.modified_at > fresh
        }
        if not found.issuperset(keys.columns.values()):
            raise _refused(FILES_GONE, "The files have to be written again.")

    async def _compose(self, input: ComposeInput) -> Composed:
        user_id, result_id = UUID(input.user_id), UUID(input.result_id)
        async with self._database.for_user(user_id) as session:
            found = await CertificateRepository(session).of_result(result_id)
        if found is not None:
            return Composed(result_id=input.result_id, user_id=input.user_id, issued=_issued(found))
        test = await self._test(user_id, result_id)
        document = await self._document(test, includes_reasoning=input.includes_reasoning)
        signed = SignedDocument.sign(document, self._issuer.key)
        return Composed(
            result_id=input.result_id,
            user_id=input.user_id,
            document=signed.text.decode(),
            signature=signed.signature,
            canonical_sha256=signed.canonical_sha256,
            public_key_id=signed.public_key_id,
        )

    async def _write(self, input: Composed) -> None:
        test = await self._test(UUID(input.user_id), UUID(input.result_id))
        document = Document.from_bytes(input.document.encode())
        keys = _keys_of(input.result_id, document)
        face = self._face(document, input.canonical_sha256, test.result)
        await self._draw(face, keys)
        await self._bundle(input.signed, self._material(test), keys)

    async def _test(self, user_id: UUID, result_id: UUID) -> _Test:
        async def loaded() -> _Test:
            async with self._database.for_user(user_id) as session:
                return await _load(session, result_id)

        # A cancellation leaves it running, so that no connection is torn out of a COPY's middle.
        return await asyncio.shield(loaded())

    async def _document(self, test: _Test, *, includes_reasoning: bool) -> Document:
        issued_at = datetime.now(UTC)
        circumstances = Circumstances(
            code=await self._new_code(issued_at),
            issued_at=issued_at,
            engine_version=self._issuer.engine_version,
            agent=_agent_facts(test),
            test=_run_facts(test),
            data_source=test.result.data_source or "unknown",
            missed_candles=test.result.missed_candles,
            paused_candles=test.result.paused_candles,
            model_source=test.result.model_source or "unknown",
            trials=test.trials,
            includes_reasoning=includes_reasoning,
        )
        traced = await trace_of(self._material(test))
        document = await asyncio.to_thread(compose, circumstances, test.recording, traced)
        await asyncio.to_thread(_check_reproduced, document, test, traced)
        return document

    async def _new_code(self, issued_at: datetime) -> str:
        """A code that nobody has."""
        while True:
            drawn = "".join(secrets.choice(CODE_LETTERS) for _ in range(_CODE_LENGTH))
            code = f"ALX-{issued_at:%Y-%m%d}-{drawn}"
            async with self._database.for_nobody() as session:
                if await PublishedCertificates(session).find(code) is None:
                    return code

    def _material(self, test: _Test) -> Material:
        session = test.session
        return material_of(
            test.recording, lambda: told_decisions(self._database, session.user_id, session.id)
        )

    def _face(self, document: Document, sha256: str, result: ResultRecord) -> CertificateFace:
        return face_of(
            document,
            sha256,
            share_url=self._share_url(document),
            duration_display=duration_of(document),
            equity=[
                EquityPoint(time=point["time"], value=point["value"])
                for point in result.equity_curve
            ],
        )

    def _share_url(self, document: Document) -> str:
        return f"{self._issuer.public_url}/verify/{document.code}"

    async def _draw(self, face: CertificateFace, keys: _Keys) -> None:
        """The files that people look at; drawn beside the event loop."""
        columns = keys.columns
        await self._storage.put(columns["pdf_key"], await asyncio.to_thread(draw_pdf, face))
        await self._storage.put(columns["image_key"], await asyncio.to_thread(draw_image, face))
        picture = await asyncio.to_thread(draw_qr_code, face.share_url)
        await self._storage.put(columns["qr_key"], picture)

    async def _bundle(self, signed: SignedDocument, material: Material, keys: _Keys) -> None:
        try:
            async with self._storage.writer(keys.columns["bundle_key"]) as writer:
                async for piece in bundle(signed, material):
                    await writer.write(piece)
        except TraceChanged as e:
            raise _not_reproduced(str(e)) from None

    def _row(self, input: Composed, document: Document, result: ResultRecord) -> NewCertificate:
        return NewCertificate(
            id=certificate_id(result.id),
            result_id=result.id,
            user_id=result.user_id,
            share_url=self._share_url(document),
            equity=[[point["time"], point["value"]] for point in result.equity_curve],
            canonical=document.to_json(),
            canonical_sha256=input.canonical_sha256,
            signature=input.signature,
            public_key_id=input.public_key_id,
            **(repeated(document) | _keys_of(input.result_id, document).columns),
        )


def certificate_id(result_id: UUID) -> UUID:
    """The id of a result's certificate, known before it exists."""
    return uuid5(result_id, "certificate")


def duration_of(document: Document) -> str:
    """How long the certified period is, as people read it."""
    period = moment(document.test.period_end) - moment(document.test.period_start)
    return display_duration(period.total_seconds())


async def _load(session: AsyncSession, result_id: UUID) -> _Test:
    result = await _existing(session, result_id)
    if not result.is_profitable:
        raise _refused(
            "NOT_PROFITABLE", "Only a test that traded, and did not lose, gets a certificate."
        )
    record = await SessionRepository(session).get(result.session_id)
    if record is None or record.data_set_id is None:
        raise _refused("CANDLES_DELETED", "The candles of this test have been deleted.")
    version = None
    if result.agent_version_id is not None:
        version = await AgentRepository(session).version(result.agent_version_id)
    if version is None:
        raise _refused(
            "AGENT_DELETED",
            "The agent of this test has been deleted, and with it the version to be certified.",
        )
    return _Test(
        result=result,
        session=record,
        version=version,
        recording=await load_recording(session, record),
        trials=await CertificateRepository(session).trials(result),
    )


async def _existing(session: AsyncSession, result_id: UUID) -> ResultRecord:
    result = await ResultRepository(session).get(result_id)
    if result is None:
        raise _refused("ResultNotFound", f"The result {result_id} does not exist.")
    return result


def _agent_facts(test: _Test) -> AgentFacts:
    return AgentFacts(
        name=test.result.agent_name,
        version=test.version.version,
        content_hash=test.version.content_hash,
        model=test.version.model,
        mode=Mode(test.result.mode),
    )


def _run_facts(test: _Test) -> RunFacts:
    result, session = test.result, test.session
    return RunFacts(
        type=session.type,
        asset=result.asset,
        timeframe=result.timeframe,
        period_start=instant(result.start_date),
        period_end=instant(result.end_date),
        blind=result.blind,
        decision_mode=session.decision_mode,
        decision_interval_candles=session.decision_interval_candles,
        first_decision_candle=session.first_decision_candle,
        end_reason=result.end_reason or "unknown",
        ending=test.recording.ending,
    )


def _check_reproduced(document: Document, test: _Test, traced: Traced) -> None:
    """As whoever verifies it will: whatever is stored comes about again, the curve included."""
    recording = test.recording
    drawn = [(point["time"], point["value"]) for point in test.result.equity_curve]
    counted = counted_of(recording, traced)
    for problem in compare_recording(document, recording, counted, drawn):
        raise _not_reproduced(f"{problem.place}, {problem.message}.")
    for name in _other_figures(document, test.result):
        raise _not_reproduced(f"{name} of the result is another one today.")


def _other_figures(document: Document, result: ResultRecord) -> Iterator[str]:
    """The columns of a result that do not say what comes out today."""
    row, told = repeated(document), document.result
    pairs = {
        "ending_capital": told.ending_capital,
        "total_trades": told.trades,
        "winning_trades": told.winning_trades,
        "losing_trades": told.losing_trades,
        "gross_pnl": told.gross_pnl,
        "fees": told.fees,
        "slippage_cost": told.slippage,
        "total_pnl_pct": row["pnl_pct"],
        "win_rate": row["win_rate"],
        "max_drawdown_pct": row["max_drawdown_pct"],
        "sharpe_ratio": row["sharpe_ratio"],
        "profit_factor": document.metrics.profit_factor,
    }
    for name, value in pairs.items():
        stored = getattr(result, name)
        is_same = (
            math.isclose(stored, value, rel_tol=1e-9, abs_tol=_ROUNDING)
            if stored is not None and value is not None
            else stored is value
        )
        if not is_same:
            yield name


def _keys_of(result_id: str, document: Document) -> _Keys:
    return _Keys(folder=folder_of(result_id, document.code))


def _told(new: NewCertificate, result: ResultRecord) -> NewActivity:
    return NewActivity(
        user_id=new.user_id,
        activity_type="certificate_generated",
        agent_id=result.agent_id,
        agent_name=new.agent_name,
        session_id=result.session_id,
        result_id=result.id,
        description=f"Certificate {new.verification_code} on {new.asset} {new.timeframe}",
        pnl=new.pnl_pct,
        dedup_key="certificate",
    )


def _issued(record: CertificateRecord) -> Issued:
    return Issued(certificate_id=str(record.id), verification_code=record.verification_code)


def _not_reproduced(what: str) -> ApplicationError:
    return _refused(
        "NOT_REPRODUCED", f"The result does not come about again from what was recorded: {what}"
    )


def _refused(type: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=type, non_retryable=True)
