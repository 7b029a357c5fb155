"""Starts exports: a row, then the workflow that makes the file; and finds them again."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from types import MappingProxyType
from uuid import UUID

from api.config import ApiConfig
from api.errors import ApiError, Conflict, NotFound, Unavailable
from api.idempotency import check_same, claim_of
from api.schemas.exports import ExportOut, ExportRequest, ExportStarted, megabytes, status_of
from api.signed_links import SignedLinks
from db.engine import Database
from db.identifiers import new_id
from db.models import ExportRecord, NewExport
from db.models.exports import AccountPart, ExportFormat
from db.repositories.account_data import AccountCounts, AccountDataRepository
from db.repositories.exports import AllExportsRepository, ExportRepository
from db.repositories.idempotency import IdempotencyClaim, IdempotencyRepository
from workflows.runtime import Temporal, TemporalUnreachable, export_workflow_id

# Bytes of a record, as JSON and in an archive: measured over 1,800 decisions of simulated models.
_BYTES: Mapping[ExportFormat, Mapping[str, int]] = MappingProxyType(
    {
        "json": {
            "agent": 300,
            "version": 400,
            "result": 81_000,
            "trade": 900,
            "decision": 1_200,
            "notice": 400,
        },
        "zip": {
            "agent": 130,
            "version": 170,
            "result": 16_000,
            "trade": 180,
            "decision": 240,
            "notice": 120,
        },
    }
)
_PROFILE_BYTES = 1_500


class Exports:
    """Exports of accounts."""

    def __init__(
        self, *, config: ApiConfig, database: Database, temporal: Temporal, links: SignedLinks
    ) -> None:
        self._config = config
        self._database = database
        self._temporal = temporal
        self._links = links

    async def start(
        self, user_id: UUID, wanted: ExportRequest, *, key: str | None = None
    ) -> ExportStarted:
        """Commit the export's row, then start its workflow.

        The `key` of an earlier request gets that one's answer. Raises Conflict while another export
        of the user's is under way, and Unavailable when Temporal is away, in which case the row
        stays and the export starts later.
        """
        claim = None if key is None else claim_of(user_id, key, wanted)
        while True:  # a request that is overtaken by its twin finds the twin's answer
            if claim is not None and (earlier := await self._earlier(claim)):
                return earlier
            if stored := await self._stored(user_id, wanted, claim):
                export, answer = stored
                await self._start_workflow(export)
                return answer

    async def get(self, user_id: UUID, export_id: UUID) -> ExportOut:
        """How an export of the user's stands. Raises NotFound."""
        async with self._database.for_user(user_id) as session:
            export = await ExportRepository(session).get(export_id)
        if export is None:
            raise NotFound("export")
        return ExportOut.of(export, download_url=self._download_url(export))

    async def downloadable(self, export_id: UUID) -> ExportRecord:
        """The export of a link that was verified. Raises NotFound, or 410 when it has expired."""
        async with self._database.as_system() as session:
            export = await AllExportsRepository(session).get(export_id)
        if export is None:
            raise NotFound("export")
        if status_of(export) != "ready" or export.object_key is None:
            raise expired()
        return export

    def _download_url(self, export: ExportRecord) -> str | None:
        if status_of(export) != "ready" or export.expires_at is None:
            return None
        path = download_path(export.id)
        query = self._links.sign(path, expires_at=export.expires_at)
        return f"{self._config.public_url}{path}?{query}"

    async def _earlier(self, claim: IdempotencyClaim) -> ExportStarted | None:
        async with self._database.for_user(claim.user_id) as session:
            record = await IdempotencyRepository(session).find(claim)
        if record is None:
            return None
        check_same(claim, record)
        return ExportStarted.model_validate(record.response)

    async def _stored(
        self, user_id: UUID, wanted: ExportRequest, claim: IdempotencyClaim | None
    ) -> tuple[ExportRecord, ExportStarted] | None:
        async with self._database.for_user(user_id) as session:
            keys = IdempotencyRepository(session)
            if claim is not None and await keys.claim(claim) is not None:
                return None
            export = await ExportRepository(session).add(_new_export(user_id, wanted))
            if export is None:
                raise Conflict(
                    "An export of yours is being made: wait for it, then ask for another one.",
                    code="EXPORT_RUNNING",
                )
            counts = await AccountDataRepository(session).counts()
            estimate = estimated_bytes(counts, wanted.include.parts, wanted.format)
            answer = ExportStarted(export_id=export.id, estimated_size_mb=megabytes(estimate))
            if claim is not None:
                await keys.answer(
                    user_id, claim.key, status_code=202, response=answer.model_dump(mode="json")
                )
        return export, answer

    async def _start_workflow(self, export: ExportRecord) -> None:
        try:
            await self._temporal.start_export(export)
        except TemporalUnreachable:
            raise Unavailable(
                f"The export {export.id} was stored, but the engine that makes it does not answer. "
                "It starts by itself as soon as the engine is back."
            ) from None


def estimated_bytes(
    counts: AccountCounts, parts: Sequence[AccountPart], format: ExportFormat
) -> int:
    """What a file would have of so many records of usual size."""
    sizes = _BYTES[format]
    notices = counts.notifications + counts.activities
    by_part: Mapping[AccountPart, int] = {
        "agent_configs": counts.agents * sizes["agent"] + counts.versions * sizes["version"],
        "test_results": counts.results * sizes["result"],
        "trade_history": counts.trades * sizes["trade"],
        "reasoning_traces": counts.decisions * sizes["decision"],
        "account_settings": notices * sizes["notice"] + _PROFILE_BYTES,
    }
    return sum(by_part[part] for part in parts)


def download_path(export_id: UUID) -> str:
    return f"/api/export/{export_id}/download"


def file_name(export: ExportRecord) -> str:
    """Such as `alphalab-export-2026-01-31-0f3c….zip`."""
    day = export.created_at.astimezone(UTC).date()
    return f"alphalab-export-{day}-{export.id.hex[-8:]}.{export.format}"


def expired() -> ApiError:
    """What is said of a file that was there."""
    return ApiError(410, "EXPORT_EXPIRED", "This export is no longer kept: ask for a new one.")


def _new_export(user_id: UUID, wanted: ExportRequest) -> NewExport:
    export_id = new_id()
    return NewExport(
        id=export_id,
        user_id=user_id,
        workflow_id=export_workflow_id(export_id),
        include=wanted.include.model_dump(),
        format=wanted.format,
    )
