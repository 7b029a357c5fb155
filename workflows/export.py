"""A file with what an account holds: one activity writes it, this says how it stands."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.exports import ExportActivities, ExportInput, ExportResult, FailExportInput
    from workflows.failures import failure_message, failure_type
    from workflows.messages import ExportParams, ExportProgress
    from workflows.policies import EXPORT, STEP
    from workflows.queues import export_queue

_TOO_LATE = "The file could not be made in time. Ask for it again."


@workflow.defn(name="export")
class ExportWorkflow:
    """Ends with a file, or with a row that says why there is none."""

    @workflow.init
    def __init__(self, params: ExportParams) -> None:
        self._params = params
        self._progress = ExportProgress(status="processing", progress_pct=0.0)

    @workflow.query
    def progress(self) -> ExportProgress:
        return self._progress

    @workflow.signal
    def advanced(self, progress_pct: float) -> None:
        """The activity is that far; one that began anew is back at its beginning."""
        if self._progress.status == "processing":
            self._show(ExportProgress(status="processing", progress_pct=progress_pct))

    @workflow.run
    async def run(self, params: ExportParams) -> ExportResult:
        try:
            written = await workflow.execute_activity_method(
                ExportActivities.write_export,
                ExportInput(export_id=params.export_id, user_id=params.user_id),
                task_queue=export_queue(workflow.info().task_queue),
                summary="write the file",
                **EXPORT,
            )
        except ActivityError as e:
            if is_cancelled_exception(e):
                raise
            written = await self._fail(e)
        self._show(ExportProgress(status=written.status, progress_pct=100.0))
        return written

    async def _fail(self, e: ActivityError) -> ExportResult:
        """Say so where its user and operators see it, unless only the word of the end was lost."""
        message = _TOO_LATE if failure_type(e) is None else failure_message(e)
        failed = FailExportInput(
            export_id=self._params.export_id,
            user_id=self._params.user_id,
            message=message,
        )
        stands = await workflow.execute_activity_method(
            ExportActivities.fail_export,
            failed,
            summary="failure",
            **STEP,
        )
        # Workers once answered nothing here: those exports had failed.
        if stands is not None and stands.status != "failed":
            return stands
        self._show(ExportProgress(status="failed", progress_pct=self._progress.progress_pct))
        raise ApplicationError(message, type=failure_type(e)) from e

    def _show(self, progress: ExportProgress) -> None:
        self._progress = progress
        workflow.set_current_details(f"{progress.status}, {progress.progress_pct:.0f} %")
