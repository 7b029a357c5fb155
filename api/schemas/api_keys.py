"""Keys to a model provider, of which only the beginning is ever shown."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, SecretStr, field_validator

from api.schemas.base import RequestBody, Shape, Text

Label = Annotated[Text, Field(max_length=100)]
KeyState = Literal["valid", "invalid", "untested"]

KEY_BEGINNING = "sk-or-"
MAX_KEY_LENGTH = 500


class ApiKeyOut(Shape):
    id: UUID
    provider: str = Field(examples=["openrouter"])
    label: str | None
    key_prefix: str = Field(examples=["sk-or-v1-••••••••"])
    is_default: bool
    status: KeyState
    last_used_at: datetime | None
    last_validated_at: datetime | None
    used_by: list[str] = Field(description="Names of the agents that use the key.")
    created_at: datetime


class ApiKeyAnswer(Shape):
    api_key: ApiKeyOut


class ApiKeysAnswer(Shape):
    api_keys: list[ApiKeyOut]


class NewApiKey(RequestBody):
    provider: Literal["openrouter"] = "openrouter"
    api_key: SecretStr = Field(examples=["sk-or-v1-…"])
    label: Label | None = None
    set_as_default: bool = False

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value().strip()
        if not text.startswith(KEY_BEGINNING) or len(text) <= len(KEY_BEGINNING):
            raise ValueError(f"must start with {KEY_BEGINNING}")
        if len(text) > MAX_KEY_LENGTH or not text.isascii() or not text.isprintable():
            raise ValueError("is not an OpenRouter key")
        return SecretStr(text)


class ApiKeyChanges(RequestBody):
    label: Label | None = None
    is_default: bool | None = None


class ApiKeyValidation(Shape):
    valid: bool
    status: KeyState
    models_available: list[str] | None = None
    credits_remaining: float | None = None
    error: str | None = None


class ApiKeyDeleted(Shape):
    message: str
    affected_agents: list[UUID]
