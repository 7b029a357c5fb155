"""Certificates: their owners', and those that strangers ask for by code."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.errors import CodeTaken
from db.models import ResultRecord
from db.models.certificates import Certificate, CertificateRecord, NewCertificate

_NAMED = text("""
    SELECT key FROM certificates, unnest(ARRAY[pdf_key, image_key, qr_key, bundle_key]) AS key
    WHERE key = ANY (:keys)
""")
_BY_CODE = text("SELECT * FROM certificate_by_code(:code, :is_view)")

# One that was broken off is a try as well: whoever stops what goes badly keeps the best. Without a
# result it covers what was asked for, or the time in which it ran.
_TRIALS = text("""
    SELECT count(*) FROM trading_sessions s
    LEFT JOIN test_results r ON r.session_id = s.id
    LEFT JOIN agent_versions v ON v.id = s.agent_version_id
    WHERE s.user_id = :user_id AND s.asset = :asset AND s.timeframe = :timeframe
        AND (
            s.agent_id = :agent_id OR v.content_hash =
                (SELECT content_hash FROM agent_versions WHERE id = :agent_version_id)
        )
        AND coalesce(r.start_date, s.start_date, s.started_at, s.created_at) < :end_date
        AND coalesce(r.end_date, s.end_date, s.completed_at, now()) > :start_date
        AND EXISTS (SELECT FROM decisions d WHERE d.session_id = s.id)
""")


class CertificateRepository:
    """Certificates of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, new: NewCertificate) -> bool:
        """Store a certificate; False when its result has one. Raises `CodeTaken`."""
        statement = (
            insert(Certificate)
            .values(**new.model_dump())
            .on_conflict_do_nothing(index_elements=["result_id"])
            .returning(col(Certificate.id))
        )
        try:
            async with self._session.begin_nested():
                return await self._session.scalar(statement) is not None
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                raise CodeTaken(new.verification_code) from None
            raise

    async def get(self, certificate_id: UUID) -> CertificateRecord | None:
        found = await self._session.get(Certificate, certificate_id)
        return None if found is None else _record(found)

    async def of_result(self, result_id: UUID) -> CertificateRecord | None:
        """Return the certificate of a result, which has at most one."""
        query = select(Certificate).where(col(Certificate.result_id) == result_id)
        found = await self._session.scalar(query)
        return None if found is None else _record(found)

    async def trials(self, result: ResultRecord) -> int:
        """How many tests this one may be the best of, itself included.

        Those of its user that took a decision, whatever became of them, on its asset and timeframe
        and overlapping it in time, by its agent or by one that is the same to the letter.
        """
        names = ("user_id", "agent_id", "agent_version_id", "asset", "timeframe")
        values = {name: getattr(result, name) for name in (*names, "start_date", "end_date")}
        return int((await self._session.execute(_TRIALS, values)).scalar_one())


class PublishedCertificates:
    """Certificates as whoever has a code finds them; in any transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, code: str, *, is_view: bool = False) -> CertificateRecord | None:
        """Return the certificate of a code; a view is counted, and included in the count."""
        found = await self._session.execute(_BY_CODE, {"code": code, "is_view": is_view})
        row = found.mappings().one_or_none()
        return None if row is None else CertificateRecord.model_validate(dict(row))


class AllCertificates:
    """Everybody's certificates, for the system alone."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keys_among(self, keys: Sequence[str]) -> set[str]:
        """Those of some keys of files that certificates name."""
        found = await self._session.scalars(_NAMED, {"keys": list(keys)})
        return set(found)

    async def revoke(self, code: str, reason: str, *, at: datetime) -> CertificateRecord | None:
        """Withdraw the certificate of a code, once: the first reason stays."""
        await self._session.execute(
            update(Certificate)
            .where(
                col(Certificate.verification_code) == code, col(Certificate.revoked_at).is_(None)
            )
            .values(revoked_at=at, revoked_reason=reason)
        )
        return await PublishedCertificates(self._session).find(code)


def _record(found: Certificate) -> CertificateRecord:
    return CertificateRecord.model_validate(found, from_attributes=True)
