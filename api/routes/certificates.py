"""Certificates of profitable results: asked for, shown, and their files."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from api.certificates import FileKind, key_of
from api.dependencies import CurrentUser, FileReader, InjectedServices, Services
from api.errors import NotFound, UnknownCertificate
from api.idempotency import IdempotencyKey
from api.schemas.certificates import (
    CertificateAnswer,
    CertificatePending,
    CertificateProof,
    CertificateRequest,
    PublicCertificate,
    UnknownCertificateBody,
    VerifiedCertificate,
)
from api.schemas.errors import documented
from api.verification import Verified
from db.models import CertificateRecord, UserRecord
from integrations.errors import ObjectNotFound

router = APIRouter(prefix="/api/certificates", tags=["certificates"])

_SIGNED_IN = documented(401, 403, 503)
_MEDIA_TYPES: dict[FileKind, str] = {
    "pdf": "application/pdf",
    "image": "image/png",
    "qr": "image/png",
    "bundle": "application/zip",
}
_ENDINGS: dict[FileKind, str] = {"pdf": ".pdf", "image": ".png", "qr": "-qr.png", "bundle": ".zip"}


_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": UnknownCertificateBody}}


def _file(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "The file.", "content": {media_type: {}}}}


@router.post(
    "",
    status_code=201,
    responses=_SIGNED_IN
    | documented(404, 409, 422)
    | {200: {"model": CertificateAnswer}, 202: {"model": CertificatePending}},
)
async def issue_certificate(
    services: InjectedServices,
    user: CurrentUser,
    wanted: CertificateRequest,
    response: Response,
    key: IdempotencyKey = None,
) -> CertificateAnswer | CertificatePending:
    """Certify a result that traded and did not lose; it is computed once more before.

    201 for a new certificate, 200 for one that the result has already, whatever is asked for then.
    202 where it takes longer than ten seconds, or nobody works on it now: it is made all the same.
    """
    found, is_new = await services.certificates.issue(user.id, wanted, key=key)
    if found is None:
        response.status_code = 202
        return CertificatePending(result_id=wanted.result_id)
    response.status_code = 201 if is_new else 200
    return CertificateAnswer.both(services.certificates.shown(found))


@router.get("/verify/{code}", responses=documented(422, 503) | _UNKNOWN)
async def verify_certificate(services: InjectedServices, code: str) -> VerifiedCertificate:
    """Verify a certificate: signature, what is stored, and the outcome, computed once more.

    Anybody may; it counts as a view.
    """
    found = await services.verifier.verify(code)
    if found is None:
        raise UnknownCertificate
    return _verified(services, found)


@router.get(
    "/verify/{code}/bundle",
    response_class=StreamingResponse,
    responses=_file("application/zip") | _UNKNOWN | documented(422, 503),
)
async def download_published_bundle(services: InjectedServices, code: str) -> StreamingResponse:
    """Download the bundle that was published with the agent's own words, unless withdrawn since."""
    found = await services.verifier.find(code)
    if found is None or not found.includes_reasoning or found.revoked_at is not None:
        raise UnknownCertificate
    return await _streamed(services, found, "bundle")


@router.get("/{certificate_id}", responses=_SIGNED_IN | documented(404, 422))
async def get_certificate(
    services: InjectedServices, user: CurrentUser, certificate_id: UUID
) -> CertificateAnswer:
    found = await services.certificates.get(user.id, certificate_id)
    return CertificateAnswer.both(services.certificates.shown(found))


@router.get(
    "/{certificate_id}/pdf",
    response_class=StreamingResponse,
    responses=_SIGNED_IN | documented(404, 422) | _file("application/pdf"),
)
async def download_certificate_pdf(
    services: InjectedServices, reader: FileReader, certificate_id: UUID
) -> StreamingResponse:
    """Download the certificate to print: with a token, or by the link that `pdf_url` is."""
    return await _own_file(services, reader, certificate_id, "pdf")


@router.get(
    "/{certificate_id}/image",
    response_class=StreamingResponse,
    responses=_SIGNED_IN | documented(404, 422) | _file("image/png"),
)
async def download_certificate_image(
    services: InjectedServices, reader: FileReader, certificate_id: UUID
) -> StreamingResponse:
    """Download the picture to share: with a token, or by the link that `image_url` is."""
    return await _own_file(services, reader, certificate_id, "image")


@router.get(
    "/{certificate_id}/qr",
    response_class=StreamingResponse,
    responses=_SIGNED_IN | documented(404, 422) | _file("image/png"),
)
async def download_certificate_qr(
    services: InjectedServices, reader: FileReader, certificate_id: UUID
) -> StreamingResponse:
    """Download the code that leads to the public page, as `qr_code_url` does."""
    return await _own_file(services, reader, certificate_id, "qr")


@router.get(
    "/{certificate_id}/bundle",
    response_class=StreamingResponse,
    responses=_SIGNED_IN | documented(404, 422) | _file("application/zip"),
)
async def download_certificate_bundle(
    services: InjectedServices, reader: FileReader, certificate_id: UUID
) -> StreamingResponse:
    """Download all that the certificate was made of, for `alphalab verify` or any other program."""
    return await _own_file(services, reader, certificate_id, "bundle")


async def _own_file(
    services: Services, reader: UserRecord | None, certificate_id: UUID, kind: FileKind
) -> StreamingResponse:
    if reader is None:
        return await _streamed(services, await services.certificates.linked(certificate_id), kind)
    found = await services.certificates.get(reader.id, certificate_id)
    return await _streamed(services, found, kind)


async def _streamed(
    services: Services, record: CertificateRecord, kind: FileKind
) -> StreamingResponse:
    try:
        stream = await services.storage.stream(key_of(record, kind))
    except ObjectNotFound:
        raise NotFound("file") from None
    shows = "attachment" if kind == "bundle" else "inline"
    name = f"{record.verification_code}{_ENDINGS[kind]}"
    return StreamingResponse(
        stream.content,
        media_type=_MEDIA_TYPES[kind],
        headers={
            "Content-Disposition": f'{shows}; filename="{name}"',
            "Content-Length": str(stream.size_bytes),
            "Cache-Control": "private, no-store",
        },
    )


def _verified(services: Services, found: Verified) -> VerifiedCertificate:
    record, is_shown = found.record, found.is_signed
    links = services.certificates.links_of(record, is_good=found.is_good)
    share_url = services.certificates.share_url(record)
    return VerifiedCertificate(
        verified=found.is_good,
        verdict=found.verdict,
        reason=found.reason,
        certificate=PublicCertificate.of(record, links, share_url=share_url) if is_shown else None,
        proof=CertificateProof(
            canonical=record.canonical if is_shown else None,
            canonical_sha256=record.canonical_sha256,
            signature=record.signature,
            public_key=None if found.public_key is None else found.public_key.base64,
            public_key_id=record.public_key_id,
            trace_sha256=record.trace_sha256,
            recomputed=found.verdict == "genuine",
            recomputed_at=found.recomputed_at,
        ),
    )
