"""Deliveries of webhooks that were taken."""

from sqlalchemy import Index
from sqlmodel import Field

from db.models.columns import Base, StampedByDatabase


class WebhookDelivery(Base, table=True):
    """A delivery by the id that it keeps when it is sent again."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index("ix_webhook_deliveries_received_at", "received_at"),)

    svix_id: str = Field(primary_key=True)
    received_at: StampedByDatabase = None
