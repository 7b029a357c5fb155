"""What all request and answer shapes share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class RequestBody(BaseModel):
    """Unknown fields are ignored: front ends are older or newer than the server."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class Filters(RequestBody):
    """A query; an empty value is no value."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value != ""}


class Shape(BaseModel):
    """Part of an answer; made from records by attribute."""

    model_config = ConfigDict(from_attributes=True, ser_json_inf_nan="null")


class Pagination(Shape):
    page: int
    limit: int
    total: int
    total_pages: int

    @classmethod
    def of(cls, page: int, limit: int, total: int) -> "Pagination":
        return cls(page=page, limit=limit, total=total, total_pages=-(-total // limit))


def split_words(value: object) -> object:
    """Accept `rsi_14,macd` and repeated values alike."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return value
    return [part.strip() for each in value for part in each.split(",") if part.strip()]


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain a null character")
    return text


# PostgreSQL stores any text but the null character.
Text = Annotated[str, AfterValidator(_storable)]
# A number or a flag, and nothing that may be read as one: `false` is no limit of 0.
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Search = Annotated[Text, Field(max_length=200)]
Page = Annotated[int, Field(ge=1, le=1_000_000)]
