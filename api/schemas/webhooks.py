"""What those who deliver events are answered."""

from typing import Any

from pydantic import Field

from api.schemas.base import Shape

_EXAMPLE = {
    "type": "user.updated",
    "object": "event",
    "data": {
        "id": "user_2aBcDeFgHiJk",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "username": "ada",
        "image_url": "https://img.clerk.com/ada",
        "primary_email_address_id": "idn_1",
        "email_addresses": [{"id": "idn_1", "email_address": "ada@example.com"}],
        "updated_at": 1764238521000,
    },
}

# The body is read as bytes, which are what is signed, so that it is described by hand.
EVENT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}


class DeliveryAnswer(Shape):
    message: str = Field(examples=["Applied.", "Applied before.", "Nothing to do."])
