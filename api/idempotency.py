"""Requests with an `Idempotency-Key`: sent again they are answered again, and not done again."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Header
from pydantic import BaseModel

from api.errors import Invalid
from db.models import IdempotencyRecord
from db.repositories.idempotency import IdempotencyClaim

LIFETIME = timedelta(hours=24)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key within 24 hours gets the first answer and starts nothing more.",
    ),
]


def claim_of(user_id: UUID, key: str, request: BaseModel) -> IdempotencyClaim:
    """The claim of a request to its key, kept for a day."""
    return IdempotencyClaim(
        user_id=user_id,
        key=key,
        request_hash=hashlib.sha256(request.model_dump_json().encode()).hexdigest(),
        expires_at=datetime.now(UTC) + LIFETIME,
    )


def check_same(claim: IdempotencyClaim, earlier: IdempotencyRecord) -> None:
    """Raise `Invalid` when the key was given to another request before."""
    if earlier.request_hash != claim.request_hash:
        raise Invalid(
            "This Idempotency-Key was sent with another request before: use a new one.",
            ["header", "Idempotency-Key"],
            code="IDEMPOTENCY_KEY_REUSED",
        )
