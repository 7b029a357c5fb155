"""Deliveries of webhooks that were taken."""

from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.models import WebhookDelivery

# Nobody sends a delivery again after that long.
KEPT = timedelta(days=30)


class DeliveryRepository:
    """Which deliveries were taken; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def take(self, svix_id: str) -> bool:
        """Take a delivery in the transaction of its effect; False when it was taken before.

        Waits for a transaction under way that takes the same one.
        """
        await self._session.execute(
            delete(WebhookDelivery).where(
                col(WebhookDelivery.received_at) < func.clock_timestamp() - KEPT
            )
        )
        taken = await self._session.scalar(
            insert(WebhookDelivery)
            .values(svix_id=svix_id)
            .on_conflict_do_nothing()
            .returning(col(WebhookDelivery.svix_id))
        )
        return taken is not None
