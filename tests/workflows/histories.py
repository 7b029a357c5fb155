"""What lies in a workflow's history."""

import base64
import json
from collections.abc import Iterator
from typing import Any


def payloads_of(history: str) -> list[bytes]:
    """The content of every payload in a history that is given as JSON."""
    return list(_payloads(json.loads(history)))


def _payloads(value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        for item in value:
            yield from _payloads(item)
    elif isinstance(value, dict):
        if {"metadata", "data"} <= value.keys():
            yield base64.b64decode(value["data"])
        for item in value.values():
            yield from _payloads(item)
