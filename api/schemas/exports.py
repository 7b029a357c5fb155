"""Exports of an account: what is wanted, and how it stands."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas.base import Flag, RequestBody, Shape
from db.models import ExportRecord
from db.models.exports import ACCOUNT_PARTS, AccountPart, ExportFormat

_BYTES_PER_MB = 1_000_000

ExportStatus = Literal["processing", "ready", "failed", "expired"]


class Include(RequestBody):
    """The parts of the account; with all five it is the whole of it."""

    agent_configs: Flag = Field(False, description="Agents with all versions, without API keys.")
    test_results: Flag = Field(False, description="Results, and their equity curves.")
    trade_history: Flag = Field(False, description="Trades of all tests, open ones too.")
    reasoning_traces: Flag = Field(False, description="What agents thought at each candle.")
    account_settings: Flag = Field(
        False, description="Profile, settings, notifications, and what happened in the account."
    )

    @property
    def parts(self) -> Sequence[AccountPart]:
        return [part for part in ACCOUNT_PARTS if getattr(self, part)]


def _not_empty(include: Include) -> Include:
    if not include.parts:
        raise ValueError(f"choose at least one of {', '.join(ACCOUNT_PARTS)}")
    return include


class ExportRequest(RequestBody):
    include: Annotated[Include, AfterValidator(_not_empty)] = Field(
        examples=[{"agent_configs": True, "test_results": True}]
    )
    format: ExportFormat = Field(
        "zip", description="CSV and JSON files in an archive, or all of it in one JSON object."
    )


class ExportStarted(Shape):
    """`estimated_size_mb` is of what there is now, at the sizes that its kinds usually have."""

    export_id: UUID
    status: Literal["processing"] = "processing"
    estimated_size_mb: float
    download_url: None = None


class ExportOut(Shape):
    """How an export stands; `download_url` needs no token, and works until `expires_at`."""

    export_id: UUID
    status: ExportStatus
    progress_pct: float = Field(ge=0, le=100)
    download_url: str | None
    expires_at: datetime | None
    size_mb: float | None
    error: str | None

    @classmethod
    def of(cls, export: ExportRecord, *, download_url: str | None) -> Self:
        return cls(
            export_id=export.id,
            status=status_of(export),
            progress_pct=export.progress_pct,
            download_url=download_url,
            expires_at=export.expires_at,
            size_mb=None if export.size_bytes is None else megabytes(export.size_bytes),
            error=export.error,
        )


def status_of(export: ExportRecord) -> ExportStatus:
    """Expired from that moment on, whether or not anybody has cleared it away."""
    is_over = export.expires_at is not None and export.expires_at <= datetime.now(UTC)
    if export.status == "ready" and is_over:
        return "expired"
    status: ExportStatus = export.status  # type: ignore[assignment]  # as the table's check has it
    return status


def megabytes(count: float) -> float:
    """To six digits: the smallest export has some hundred bytes."""
    return round(count / _BYTES_PER_MB, 6)
