"""Issues certificates, and links to their files."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal
from uuid import UUID

from api.config import ApiConfig
from api.errors import ApiError, Conflict, NotFound, Unavailable, internal_error
from api.idempotency import check_same, claim_of
from api.schemas.certificates import (
    CertificateLinks,
    CertificateOut,
    CertificateRequest,
    OwnCertificateLinks,
)
from api.signed_links import SignedLinks
from certificates.files import NAMES, folder_of
from db.engine import Database
from db.models import CertificateRecord, IdempotencyRecord
from db.repositories.certificates import CertificateRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from db.repositories.results import ResultRepository
from workflows.runtime import CertificateRefused, Temporal, TemporalUnreachable

# Most are there within a second or two; whoever waited longer asks again.
PATIENCE = timedelta(seconds=10)
LINK_LIFETIME = timedelta(hours=24)

FileKind = Literal["pdf", "image", "qr", "bundle"]

_NOT_PROFITABLE = "Only a test that traded, and did not lose, gets a certificate."
# What a user can do something about, or at least understand.
_CONFLICTS = frozenset({"NOT_PROFITABLE", "NOT_REPRODUCED", "CANDLES_DELETED", "AGENT_DELETED"})
_UNAVAILABLE = frozenset(
    {"StorageUnavailable", "StorageRefused", "INTERRUPTED", "CodeTaken", "FILES_GONE"}
)
_KEY_COLUMNS: Mapping[FileKind, str] = MappingProxyType(
    {"pdf": "pdf_key", "image": "image_key", "qr": "qr_key", "bundle": "bundle_key"}
)


class Certificates:
    """Certificates of users."""

    def __init__(
        self, *, config: ApiConfig, database: Database, temporal: Temporal, links: SignedLinks
    ) -> None:
        self._config = config
        self._database = database
        self._temporal = temporal
        self._links = links

    async def issue(
        self, user_id: UUID, wanted: CertificateRequest, *, key: str | None = None
    ) -> tuple[CertificateRecord | None, bool]:
        """The certificate of a result, and whether it is new; None where it takes longer.

        Raises NotFound, Conflict where the result gets none, and Unavailable.
        """
        claim = None if key is None else claim_of(user_id, key, wanted)
        earlier = None if claim is None else await self._claimed(claim)
        found = await self._existing(user_id, wanted.result_id)
        if found is not None:
            return found, earlier is not None and earlier.response is not None
        issued_id = await self._issued(user_id, wanted)
        if issued_id is None:
            return None, False
        if claim is not None:
            await self._answered(claim, issued_id)
        return await self.get(user_id, issued_id), True

    async def get(self, user_id: UUID, certificate_id: UUID) -> CertificateRecord:
        """A certificate of the user's. Raises NotFound."""
        async with self._database.for_user(user_id) as session:
            found = await CertificateRepository(session).get(certificate_id)
        return _there(found)

    async def linked(self, certificate_id: UUID) -> CertificateRecord:
        """The certificate of a link that was verified, whoever follows it.

        Raises NotFound, also of one that was withdrawn.
        """
        async with self._database.as_system() as session:
            found = await CertificateRepository(session).get(certificate_id)
        return _there(None if found is None or found.revoked_at else found)

    def shown(self, record: CertificateRecord) -> CertificateOut:
        """A certificate as its owner sees it; links to one that was withdrawn open nothing."""
        bundle_url = None if record.revoked_at else self._url(record, "bundle")
        links = OwnCertificateLinks(**self.links_of(record).model_dump(), bundle_url=bundle_url)
        return CertificateOut.of(record, links, share_url=self.share_url(record))

    def share_url(self, record: CertificateRecord) -> str:
        """The page of its code, whatever the row says of it."""
        return f"{self._config.public_url}/verify/{record.verification_code}"

    def links_of(self, record: CertificateRecord, *, is_good: bool = True) -> CertificateLinks:
        """Links to what anybody with the code may see, where nothing speaks against it."""
        if record.revoked_at or not is_good:
            return CertificateLinks(pdf_url=None, image_url=None, qr_code_url=None)
        return CertificateLinks(
            pdf_url=self._url(record, "pdf"),
            image_url=self._url(record, "image"),
            qr_code_url=self._url(record, "qr"),
        )

    async def _existing(self, user_id: UUID, result_id: UUID) -> CertificateRecord | None:
        async with self._database.for_user(user_id) as session:
            result = await ResultRepository(session).get(result_id)
            if result is None:
                raise NotFound("result")
            found = await CertificateRepository(session).of_result(result_id)
        if found is None and not result.is_profitable:
            raise Conflict(_NOT_PROFITABLE, code="NOT_PROFITABLE")
        return found

    async def _issued(self, user_id: UUID, wanted: CertificateRequest) -> UUID | None:
        try:
            issued = await self._temporal.certify(
                wanted.result_id,
                user_id,
                PATIENCE,
                includes_reasoning=wanted.include_reasoning_trace,
            )
        except CertificateRefused as refused:
            raise _explained(refused) from None
        except TemporalUnreachable:
            raise Unavailable(
                "The engine that makes certificates does not answer: try again soon."
            ) from None
        return None if issued is None else UUID(issued.certificate_id)

    async def _claimed(self, claim: IdempotencyClaim) -> IdempotencyRecord | None:
        async with self._database.for_user(claim.user_id) as session:
            earlier = await IdempotencyRepository(session).claim(claim)
        if earlier is not None:
            check_same(claim, earlier)
        return earlier

    async def _answered(self, claim: IdempotencyClaim, certificate_id: UUID) -> None:
        async with self._database.for_user(claim.user_id) as session:
            await IdempotencyRepository(session).answer(
                claim.user_id,
                claim.key,
                status_code=201,
                response={"certificate_id": str(certificate_id)},
            )

    def _url(self, record: CertificateRecord, kind: FileKind) -> str:
        path = f"/api/certificates/{record.id}/{kind}"
        query = self._links.sign(path, expires_at=datetime.now(UTC) + LINK_LIFETIME)
        return f"{self._config.public_url}{path}?{query}"


def key_of(record: CertificateRecord, kind: FileKind) -> str:
    """Where the file is in the object storage, whatever the row says of it."""
    folder = folder_of(str(record.result_id), record.verification_code)
    return f"{folder}/{NAMES[_KEY_COLUMNS[kind]]}"


def _there(found: CertificateRecord | None) -> CertificateRecord:
    if found is None:
        raise NotFound("certificate")
    return found


def _explained(refused: CertificateRefused) -> ApiError:
    if refused.code in _CONFLICTS:
        return Conflict(str(refused), code=refused.code)
    if refused.code == "ResultNotFound":
        return NotFound("result")
    if refused.code in _UNAVAILABLE:
        return Unavailable(str(refused))
    return internal_error()
