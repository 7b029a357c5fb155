"""What is known of a certificate that somebody asks for."""

from datetime import UTC, datetime

from api.pages.verification import VerificationProof, VerificationView
from tests.certificates.faces import FACE

PROOF = VerificationProof(
    canonical_sha256=FACE.canonical_sha256,
    signature="c2lnbmVk" * 11,
    public_key="cHVibGlj" * 5,
    trace_sha256="ab" * 32,
)
GENUINE = VerificationView(
    verdict="genuine",
    code=FACE.verification_code,
    face=FACE,
    view_count=1_234,
    image_url="https://alphalab.example/verify/ALX-2025-1127-A3F8K/image",
    pdf_url="/verify/ALX-2025-1127-A3F8K/pdf",
    bundle_url="/verify/ALX-2025-1127-A3F8K/bundle",
    proof=PROOF,
    recomputed_at=datetime(2025, 11, 28, 9, 30, tzinfo=UTC),
)
