"""What strangers see of certificates: the page behind the code, and the key to verify with."""

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from api.dependencies import InjectedServices, Services
from api.pages.verification import (
    PAGE_HEADERS,
    VerificationProof,
    VerificationView,
    verification_page,
)
from api.schemas.certificates import CertificateKeys, PublishedKey, duration_display
from api.schemas.errors import documented
from api.verification import Verified
from certificates.face import CertificateFace, EquityPoint
from certificates.presentation import face_of
from certificates.signing import PublicKey

router = APIRouter(tags=["certificates"])

_PAGE = {"description": "The page.", "content": {"text/html": {}}}


@router.get(
    "/verify/{code}",
    response_class=Response,
    responses=documented(422, 503) | {200: _PAGE, 404: _PAGE},
)
async def show_certificate(services: InjectedServices, code: str) -> HTMLResponse:
    """Show whether a certificate is genuine, to whoever has its code; it counts as a view."""
    found = await services.verifier.verify(code)
    if found is None:
        view = VerificationView(verdict="unknown", code=code)
        return HTMLResponse(verification_page(view), status_code=404, headers=PAGE_HEADERS)
    return HTMLResponse(verification_page(_view(services, found)), headers=PAGE_HEADERS)


@router.get("/.well-known/alphalab-certificate-key")
async def get_certificate_keys(services: InjectedServices) -> CertificateKeys:
    """Tell the public keys that certificates of this service verify with."""
    keys = [_published(each) for each in services.verifier.keys]
    return CertificateKeys(**keys[0].model_dump(), keys=keys)


def _published(key: PublicKey) -> PublishedKey:
    return PublishedKey(id=key.id, public_key=key.base64, pem=key.pem)


def _view(services: Services, found: Verified) -> VerificationView:
    record, key = found.record, found.public_key
    links = services.certificates.links_of(record, is_good=found.is_good)
    bundle = f"/api/certificates/verify/{record.verification_code}/bundle"
    is_published = record.includes_reasoning and found.is_good
    return VerificationView(
        verdict=found.verdict,
        code=record.verification_code,
        face=_face(found, services.certificates.share_url(record)),
        reason=found.reason,
        view_count=record.view_count,
        image_url=links.image_url,
        pdf_url=links.pdf_url,
        bundle_url=bundle if is_published else None,
        proof=VerificationProof(
            canonical_sha256=record.canonical_sha256,
            signature=record.signature,
            public_key=record.public_key_id if key is None else key.base64,
            trace_sha256=record.trace_sha256,
        ),
        recomputed_at=found.recomputed_at,
        revoked_at=record.revoked_at,
    )


def _face(found: Verified, share_url: str) -> CertificateFace | None:
    record, document = found.record, found.document
    if document is None or not found.is_signed:
        return None
    return face_of(
        document,
        record.canonical_sha256,
        share_url=share_url,
        duration_display=duration_display(record),
        equity=[EquityPoint(time=time, value=value) for time, value in record.equity],
    )
