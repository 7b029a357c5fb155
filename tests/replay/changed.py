"""Workflows that a careless change made of ours: they wait where no history waits."""

from temporalio import workflow
from typing_extensions import override

with workflow.unsafe.imports_passed_through():
    from activities.certificates import Issued
    from activities.exports import ExportResult
    from workflows.backtest import BacktestWorkflow
    from workflows.certificate import CertificateWorkflow
    from workflows.export import ExportWorkflow
    from workflows.forward_test import ForwardTestWorkflow
    from workflows.messages import (
        CertificateParams,
        ExportParams,
        FeedParams,
        SessionParams,
        SessionResult,
    )
    from workflows.price_feed import PriceFeedWorkflow


@workflow.defn(name="backtest")
class ChangedBacktestWorkflow(BacktestWorkflow):
    @workflow.init
    def __init__(self, params: SessionParams) -> None:
        super().__init__(params)

    @override
    @workflow.run
    async def run(self, params: SessionParams) -> SessionResult:
        await workflow.sleep(1)
        return await super().run(params)


@workflow.defn(name="forward_test")
class ChangedForwardTestWorkflow(ForwardTestWorkflow):
    @workflow.init
    def __init__(self, params: SessionParams) -> None:
        super().__init__(params)

    @override
    @workflow.run
    async def run(self, params: SessionParams) -> SessionResult:
        await workflow.sleep(1)
        return await super().run(params)


@workflow.defn(name="price_feed")
class ChangedPriceFeedWorkflow(PriceFeedWorkflow):
    @workflow.init
    def __init__(self, params: FeedParams) -> None:
        super().__init__(params)

    @override
    @workflow.run
    async def run(self, params: FeedParams) -> None:
        await workflow.sleep(1)
        await super().run(params)


@workflow.defn(name="export")
class ChangedExportWorkflow(ExportWorkflow):
    @workflow.init
    def __init__(self, params: ExportParams) -> None:
        super().__init__(params)

    @override
    @workflow.run
    async def run(self, params: ExportParams) -> ExportResult:
        await workflow.sleep(1)
        return await super().run(params)


@workflow.defn(name="certificate")
class ChangedCertificateWorkflow(CertificateWorkflow):
    @override
    @workflow.run
    async def run(self, params: CertificateParams) -> Issued:
        await workflow.sleep(1)
        return await super().run(params)
