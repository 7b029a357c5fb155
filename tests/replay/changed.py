"""A workflow that a careless change made of the backtest: it waits where no history waits."""

from temporalio import workflow
from typing_extensions import override

with workflow.unsafe.imports_passed_through():
    from workflows.backtest import BacktestWorkflow
    from workflows.session_run import SessionParams, SessionResult


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
