"""A certificate: what is signed, then its files, then the row that says that it exists."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.certificates import (
        FILES_GONE,
        CertificateActivities,
        Composed,
        ComposeInput,
        Issued,
    )
    from workflows.messages import CertificateParams
    from workflows.policies import CERTIFICATE, STEP, WRITTEN_AGAIN
    from workflows.queues import background_queue


@workflow.defn(name="certificate")
class CertificateWorkflow:
    """Ends with a certificate, or with the reason why there is none."""

    @workflow.run
    async def run(self, params: CertificateParams) -> Issued:
        queue = background_queue(workflow.info().task_queue)
        composed = await workflow.execute_activity_method(
            CertificateActivities.compose_certificate,
            ComposeInput(
                result_id=params.result_id,
                user_id=params.user_id,
                includes_reasoning=params.includes_reasoning,
            ),
            task_queue=queue,
            summary="recompute and sign",
            **CERTIFICATE,
        )
        if composed.issued is not None:
            return composed.issued
        for _ in range(WRITTEN_AGAIN):
            try:
                return await self._write_and_record(composed, queue)
            except ActivityError as e:
                if not _files_are_gone(e):
                    raise
        return await self._write_and_record(composed, queue)

    async def _write_and_record(self, composed: Composed, queue: str) -> Issued:
        await workflow.execute_activity_method(
            CertificateActivities.write_certificate,
            composed,
            task_queue=queue,
            summary="write the files",
            **CERTIFICATE,
        )
        return await workflow.execute_activity_method(
            CertificateActivities.record_certificate,
            composed,
            task_queue=queue,
            summary="record",
            **STEP,
        )


def _files_are_gone(error: ActivityError) -> bool:
    """Whether they lay there for so long that they may have been swept."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == FILES_GONE
