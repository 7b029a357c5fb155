"""Certificates, as their owners and as strangers see them."""

from datetime import datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.base import Flag, RequestBody, Shape
from api.schemas.errors import ErrorBody
from db.models import CertificateRecord
from events.durations import display_duration

Verdict = Literal[
    "genuine", "tampered", "unknown_key", "not_reproduced", "not_recomputable", "revoked"
]


class CertificateRequest(RequestBody):
    result_id: UUID
    include_reasoning_trace: Flag = Field(
        default=False,
        description="Publish the bundle: the agent's own words, all candles, decisions and orders. "
        "Ignored where a certificate is there or being made.",
    )


class CertificateLinks(Shape):
    """Addresses that open a file without a token, for a day; null unless it is good."""

    pdf_url: str | None
    image_url: str | None
    qr_code_url: str | None


class OwnCertificateLinks(CertificateLinks):
    bundle_url: str | None = Field(
        description="All that the certificate was made of, to verify offline."
    )


class PublicCertificate(CertificateLinks):
    """What anybody with the code sees; `max_drawdown_pct` is a magnitude."""

    verification_code: str = Field(examples=["ALX-2026-1127-A3F9K"])
    share_url: str
    agent_name: str
    agent_version: int
    model: str
    mode: str
    test_type: str
    asset: str
    timeframe: str
    pnl_pct: float
    win_rate: float | None
    total_trades: int
    max_drawdown_pct: float
    sharpe_ratio: float | None
    duration_display: str = Field(examples=["31d 0h"])
    test_period: str = Field(examples=["Oct 1 - Nov 1, 2025"])
    seal: Literal["full", "own_data", "simulated"] = Field(
        description="Full for an exchange's candles and a real model; else what is not."
    )
    includes_reasoning: bool
    view_count: int
    issued_at: datetime
    created_at: datetime
    revoked_at: datetime | None
    revoked_reason: str | None

    @classmethod
    def of(cls, record: CertificateRecord, links: CertificateLinks, *, share_url: str) -> Self:
        shown = _shown(record) | links.model_dump() | {"share_url": share_url}
        return cls.model_validate(shown)


class CertificateOut(PublicCertificate, OwnCertificateLinks):
    id: UUID
    result_id: UUID


class CertificateAnswer(CertificateOut):
    """The certificate at top level, and once more under `certificate`."""

    certificate: CertificateOut

    @classmethod
    def both(cls, certificate: CertificateOut) -> Self:
        return cls(**certificate.model_dump(), certificate=certificate)


class CertificatePending(Shape):
    """Not there yet: the same request, sent again, answers with the certificate once it is."""

    status: Literal["processing"] = "processing"
    result_id: UUID
    id: None = None
    certificate: None = None


class CertificateProof(Shape):
    """What a stranger needs to check it; `canonical` is what was signed, in canonical JSON.

    It is null where what is stored is not what a known key has signed.
    """

    canonical: dict[str, Any] | None
    canonical_sha256: str
    signature: str = Field(description="Base64 of an Ed25519 signature over the canonical bytes.")
    public_key: str | None = Field(description="Base64; null where the key is not known any more.")
    public_key_id: str
    trace_sha256: str
    recomputed: bool = Field(description="Whether the same came of it once more.")
    recomputed_at: datetime | None


class VerifiedCertificate(Shape):
    """`verified` means that the signature is good and that nothing speaks against it.

    A certificate whose candles are gone is verified and not recomputed. Of one that is
    not what a known key has signed, nothing is shown.
    """

    verified: bool
    verdict: Verdict
    reason: str | None = Field(description="Why the verdict is not `genuine`.")
    certificate: PublicCertificate | None
    proof: CertificateProof


class UnknownCertificateBody(ErrorBody):
    verified: Literal[False] = False


class PublishedKey(Shape):
    id: str = Field(description="The first 16 hexadecimal digits of the SHA-256 of its 32 bytes.")
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(description="Base64 of its 32 bytes.")
    pem: str


class CertificateKeys(PublishedKey):
    """The key that signs now at top level; `keys` has those of before a rotation as well."""

    keys: list[PublishedKey]


def duration_display(record: CertificateRecord) -> str:
    """How long the certified period is."""
    return display_duration((record.period_end - record.period_start).total_seconds())


def _shown(record: CertificateRecord) -> dict[str, Any]:
    return record.model_dump() | {
        "duration_display": duration_display(record),
        "test_period": test_period(record.period_start, record.period_end),
    }


def test_period(start: datetime, end: datetime) -> str:
    """Such as `Oct 1 - Nov 1, 2025`, with both years where they differ; the end is not in it."""
    last = max(start, end - timedelta(microseconds=1))
    first = f"{start:%b} {start.day}"
    if start.year != last.year:
        first += f", {start.year}"
    return f"{first} - {last:%b} {last.day}, {last.year}"
