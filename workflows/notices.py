"""What a test tells its user while it runs on: a mail server that is down delays nothing."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.notices import Category, NoticeFacts
    from activities.notifications import NotificationActivities, NotifyInput, NotifyResult
    from trading.simulation import SimulationState
    from workflows.policies import NOTICE
    from workflows.queues import background_queue


class Notices:
    """Notices of one test that are under way; each is told once by its key."""

    def __init__(self, session_id: str, user_id: str) -> None:
        self._session_id = session_id
        self._user_id = user_id
        self._under_way: list[workflow.ActivityHandle[NotifyResult]] = []

    @property
    def are_told(self) -> bool:
        self._under_way = [each for each in self._under_way if not each.done()]
        return not self._under_way

    def tell(
        self,
        category: Category,
        key: str,
        *,
        trade_number: int | None = None,
        facts: NoticeFacts | None = None,
    ) -> None:
        """Begin to tell; `key` names the notice within its category."""
        told = workflow.start_activity_method(
            NotificationActivities.notify,
            NotifyInput(
                session_id=self._session_id,
                user_id=self._user_id,
                category=category,
                dedup_key=key,
                facts=facts or NoticeFacts(),
                trade_number=trade_number,
            ),
            task_queue=background_queue(workflow.info().task_queue),
            summary=f"notice: {category}",
            **NOTICE,
        )
        self._under_way.append(told)

    def tell_trades(self, before: SimulationState, after: SimulationState) -> None:
        """Tell of every trade that was closed or opened between two states."""
        self.tell_closed(before, after.trades_total)
        position = after.position
        known = before.position.trade_number if before.position else 0
        if position is not None and position.trade_number != known:
            self.tell(
                "trade_executed",
                f"opened-{position.trade_number}",
                trade_number=position.trade_number,
                facts=NoticeFacts(action="opened"),
            )

    def tell_closed(self, before: SimulationState, trades_total: int) -> None:
        """Tell of every trade that was closed since a state, up to the last one."""
        for number in range(before.trades_total + 1, trades_total + 1):
            self.tell(
                "trade_executed",
                f"closed-{number}",
                trade_number=number,
                facts=NoticeFacts(action="closed"),
            )

    async def told(self) -> None:
        """Wait for what is under way; a notice that cannot be told is nobody's end."""
        results = await asyncio.gather(*self._under_way, return_exceptions=True)
        for each in results:
            if isinstance(each, BaseException) and not isinstance(each, ActivityError):
                raise each
