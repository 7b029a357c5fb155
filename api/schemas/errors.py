"""The one shape of every error answer."""

from typing import Any

from pydantic import BaseModel, Field


class ErrorLocation(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    msg: str


class ErrorBody(BaseModel):
    """`detail` is a sentence a person can act on; `errors` is there for 422 only."""

    detail: str = Field(examples=["No such agent."])
    error_code: str = Field(examples=["AGENT_NOT_FOUND"])
    status_code: int = Field(examples=[404])
    request_id: str = Field(examples=["0b62cd9f7e0b4a5f8f4c9ac2f2d8a1a4"])
    errors: list[ErrorLocation] | None = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the errors that an operation can answer with."""
    return {status: {"model": ErrorBody} for status in statuses}


def _whole_number(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "integer"}}


# What an operation answers to somebody who asks too often.
LIMITED: dict[int | str, dict[str, Any]] = {
    429: {
        "model": ErrorBody,
        "description": "Too many requests. Every answer of a limited address has the last three "
        "headers.",
        "headers": {
            "Retry-After": _whole_number("Seconds until a request passes again."),
            "X-RateLimit-Limit": _whole_number("Requests that pass at once."),
            "X-RateLimit-Remaining": _whole_number("Requests that pass now."),
            "X-RateLimit-Reset": _whole_number("Seconds until as many pass as ever."),
        },
    }
}
