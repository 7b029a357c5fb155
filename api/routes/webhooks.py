"""What the identity provider tells of its users."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import InjectedServices, Services, profile_of
from api.errors import Invalid, Unauthorized, Unavailable
from api.schemas.errors import documented
from api.schemas.webhooks import EVENT_BODY, DeliveryAnswer
from db.repositories.sessions import ReconcileRepository, StaleSession
from db.repositories.users import SignInRepository
from db.repositories.webhooks import DeliveryRepository
from integrations.clerk.users import read_id, read_user
from integrations.clerk.webhooks import Delivery, DeliveryRefused
from workflows.runtime import TemporalUnreachable

router = APIRouter(prefix="/api/webhooks", tags=["webhooks"])

_FOLLOWED = {"user.created", "user.updated", "user.deleted"}

_logger = structlog.get_logger(__name__)

SvixHeader = Annotated[str | None, Header(description="Needed; by Svix.")]


@router.post("/clerk", responses=documented(401, 413, 422, 503), openapi_extra=EVENT_BODY)
async def clerk_event(
    services: InjectedServices,
    request: Request,
    svix_id: SvixHeader = None,  # noqa: ARG001 - they are read with the body, and documented here
    svix_timestamp: SvixHeader = None,  # noqa: ARG001
    svix_signature: SvixHeader = None,  # noqa: ARG001
) -> DeliveryAnswer:
    """Take over what Clerk tells of a user; sent twice under one `svix-id`, it counts once.

    Of a user who was deleted the tests are stopped and the sockets closed.
    """
    delivery = await _verified(services, request)
    if delivery.type not in _FOLLOWED:
        return DeliveryAnswer(message="Nothing to do.")
    async with services.database.as_system() as session:
        is_new = await DeliveryRepository(session).take(delivery.id)
        to_stop = await _apply(session, delivery) if is_new else []
    services.known_users.pop(str(delivery.data.get("id")), None)
    await asyncio.gather(*(_stop(services, each) for each in to_stop))
    return DeliveryAnswer(message="Applied." if is_new else "Applied before.")


async def _verified(services: Services, request: Request) -> Delivery:
    if services.webhooks is None:
        raise Unavailable("Webhooks are not taken here: CLERK_WEBHOOK_SECRET is not set.")
    try:
        return services.webhooks.verify(await request.body(), request.headers)
    except DeliveryRefused as e:
        raise Unauthorized(str(e)) from None


async def _apply(session: AsyncSession, delivery: Delivery) -> Sequence[StaleSession]:
    """Store what the delivery says; return the tests that have to be stopped after the commit."""
    users = SignInRepository(session)
    try:
        if delivery.type == "user.deleted":
            user = await users.deactivate(read_id(delivery.data))
            return await ReconcileRepository(session).of_the_deactivated(user.id)
        told = read_user(delivery.data)
    except ValueError as e:
        raise Invalid(f"This is no event of a user: {e}.", ["body", "data"]) from None
    await users.follow(told.clerk_id, profile_of(told), told.updated_at)
    return []


async def _stop(services: Services, session: StaleSession) -> None:
    """Stop a test soon; where Temporal is away, or we die first, reconciliation stops it later."""
    try:
        await services.temporal.stop_for_good(session)
    except TemporalUnreachable:
        _logger.warning("test_not_stopped_yet", session_id=str(session.id))
