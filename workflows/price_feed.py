"""The price of an asset, for as long as anybody watches it or holds a position in it."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.price_feeds import FeedInput, PriceFeedActivities
    from workflows.messages import FeedParams
    from workflows.policies import FEED
    from workflows.queues import background_queue


@workflow.defn(name="price_feed")
class PriceFeedWorkflow:
    """One activity follows the price; this keeps it going and ends when it is not wanted."""

    @workflow.init
    def __init__(self, params: FeedParams) -> None:
        self._params = params
        self._is_wanted = False

    @workflow.signal
    def want(self) -> None:
        self._is_wanted = True

    @workflow.run
    async def run(self, params: FeedParams) -> None:
        is_needed = True
        # A wish that comes while the feed ends is seen here, or Temporal runs this task again.
        while is_needed or self._is_wanted:
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(params)
            self._is_wanted = False
            is_needed = await workflow.execute_activity_method(
                PriceFeedActivities.follow_prices,
                FeedInput(asset=params.asset),
                task_queue=background_queue(workflow.info().task_queue),
                summary=f"follow {params.asset}",
                **FEED,
            )
