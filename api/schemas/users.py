"""Users, as they are shown to themselves."""

from datetime import datetime
from typing import Annotated
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from api.schemas.base import RequestBody, Shape, Text


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("must be an IANA time zone such as Europe/Berlin")
    return name


class UserOut(Shape):
    id: UUID
    clerk_id: str = Field(examples=["user_2aBcDeFgHiJk"])
    email: str | None
    first_name: str | None
    last_name: str | None
    username: str | None
    image_url: str | None
    timezone: str = Field(examples=["UTC"])
    plan: str = Field(examples=["free"])
    created_at: datetime


class UserAnswer(Shape):
    user: UserOut


class SyncAnswer(UserAnswer):
    message: str = Field(examples=["User created", "User updated"])


class UserChanges(RequestBody):
    """Only what is named is changed."""

    timezone: Annotated[str, AfterValidator(_known_zone)] | None = None
    first_name: Annotated[Text, Field(max_length=100)] | None = None
    last_name: Annotated[Text, Field(max_length=100)] | None = None
    username: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
