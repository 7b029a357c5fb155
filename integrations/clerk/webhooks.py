"""Verifies what Clerk delivers: events of its users, signed by Svix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_SIGNED_HEADERS = ("svix-id", "svix-timestamp", "svix-signature")


class DeliveryRefused(Exception):
    """The delivery does not prove that Clerk sent it just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event of Clerk's, such as `user.updated`; `id` stays the same when it is sent again."""

    id: str
    type: str
    data: Mapping[str, Any]


class WebhookVerifier:
    """Holds deliveries to the secret that Clerk's dashboard shows for the endpoint."""

    def __init__(self, secret: str) -> None:
        # Its package loads all of Svix's API: a third of a second where nobody delivers anything.
        from svix.webhooks import Webhook, WebhookVerificationError  # noqa: PLC0415

        self._webhook = Webhook(secret)
        self._refused = WebhookVerificationError

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Delivery:
        """Return the delivery; raises DeliveryRefused, also when it is older than five minutes."""
        # The library also takes other names of these headers, whose id would not be ours.
        signed = {name: headers.get(name, "") for name in _SIGNED_HEADERS}
        if not all(signed.values()):
            raise DeliveryRefused(f"A delivery has the headers {', '.join(_SIGNED_HEADERS)}.")
        try:
            self._webhook.verify(body, signed)
            event: Any = orjson.loads(body)
        except (self._refused, ValueError):
            raise DeliveryRefused("The signature does not fit, or is not of now.") from None
        event = event if isinstance(event, dict) else {}
        data = event.get("data")
        return Delivery(
            id=signed["svix-id"],
            type=str(event.get("type", "")),
            data=data if isinstance(data, dict) else {},
        )
