"""The users' own keys to OpenRouter."""

from datetime import UTC, datetime
from uuid import UUID

from cryptography.fernet import InvalidToken
from fastapi import APIRouter

from api.dependencies import CurrentUser, InjectedServices, Services
from api.errors import Conflict, NotFound
from api.schemas.api_keys import (
    ApiKeyAnswer,
    ApiKeyChanges,
    ApiKeyDeleted,
    ApiKeyOut,
    ApiKeysAnswer,
    ApiKeyValidation,
    NewApiKey,
)
from api.schemas.errors import documented
from db.models.api_keys import ApiKeyRecord
from db.repositories.api_keys import ApiKeyRepository
from integrations.errors import AuthenticationFailed, IntegrationError

router = APIRouter(prefix="/api/api-keys", tags=["api keys"], responses=documented(401, 403, 503))

_LONG_PREFIX, _SHORT_PREFIX = "sk-or-v1-", "sk-or-"
_HIDDEN = "••••••••"


@router.get("")
async def list_keys(services: InjectedServices, user: CurrentUser) -> ApiKeysAnswer:
    async with services.database.for_user(user.id) as session:
        keys = await ApiKeyRepository(session).all()
    return ApiKeysAnswer(api_keys=[ApiKeyOut.model_validate(key) for key in keys])


@router.post("", status_code=201, responses=documented(422))
async def add_key(services: InjectedServices, user: CurrentUser, new: NewApiKey) -> ApiKeyAnswer:
    """Store a key, encrypted; the first one becomes the default."""
    secret = new.api_key.get_secret_value()
    async with services.database.for_user(user.id) as session:
        key = await ApiKeyRepository(session).add(
            user_id=user.id,
            provider=new.provider,
            label=new.label,
            key_prefix=masked(secret),
            encrypted_key=services.cipher.encrypt(secret.encode()).decode(),
            set_as_default=new.set_as_default,
        )
    return _answer(key)


@router.get("/{key_id}", responses=documented(404, 422))
async def get_key(services: InjectedServices, user: CurrentUser, key_id: UUID) -> ApiKeyAnswer:
    async with services.database.for_user(user.id) as session:
        key = await ApiKeyRepository(session).get(key_id)
    return _answer(key)


@router.put("/{key_id}", responses=documented(404, 409, 422))
async def change_key(
    services: InjectedServices, user: CurrentUser, key_id: UUID, changes: ApiKeyChanges
) -> ApiKeyAnswer:
    """Relabel a key, or make it the default; another key becomes the default by its own call."""
    async with services.database.for_user(user.id) as session:
        keys = ApiKeyRepository(session)
        key = await keys.get(key_id)
        if key is not None and key.is_default and changes.is_default is False:
            raise Conflict("Make another key the default instead.")
        if "label" in changes.model_fields_set:
            key = await keys.relabel(key_id, changes.label)
        if changes.is_default:
            key = await keys.set_default(key_id)
    return _answer(key)


@router.post("/{key_id}/set-default", responses=documented(404, 422))
async def set_default(services: InjectedServices, user: CurrentUser, key_id: UUID) -> ApiKeyAnswer:
    async with services.database.for_user(user.id) as session:
        key = await ApiKeyRepository(session).set_default(key_id)
    return _answer(key)


@router.post("/{key_id}/validate", responses=documented(404, 422))
async def validate_key(
    services: InjectedServices, user: CurrentUser, key_id: UUID
) -> ApiKeyValidation:
    """Ask OpenRouter about the key; when it cannot be reached, the key's status stays."""
    async with services.database.for_user(user.id) as session:
        encrypted = await ApiKeyRepository(session).encrypted(key_id)
    if encrypted is None:
        raise NotFound("api key")
    outcome = await _ask_openrouter(services, encrypted)
    async with services.database.for_user(user.id) as session:
        await ApiKeyRepository(session).set_status(
            key_id, outcome.status, validated_at=datetime.now(tz=UTC)
        )
    return outcome


@router.delete("/{key_id}", responses=documented(404, 422))
async def delete_key(services: InjectedServices, user: CurrentUser, key_id: UUID) -> ApiKeyDeleted:
    """Delete a key; a running test of an agent that used it pauses at its next decision."""
    async with services.database.for_user(user.id) as session:
        affected = await ApiKeyRepository(session).delete(key_id)
    if affected is None:
        raise NotFound("api key")
    return ApiKeyDeleted(message="API key deleted", affected_agents=list(affected))


async def _ask_openrouter(services: Services, encrypted: str) -> ApiKeyValidation:
    try:
        secret = services.cipher.decrypt(encrypted.encode()).decode()
    except InvalidToken:
        return _invalid("The stored key cannot be read any more. Enter it again.")
    try:
        status = await services.openrouter.key_status(secret)
    except AuthenticationFailed:
        return _invalid("OpenRouter does not know this key.")
    return ApiKeyValidation(
        valid=True,
        status="valid",
        models_available=await _model_ids(services),
        credits_remaining=status.limit_remaining,
    )


async def _model_ids(services: Services) -> list[str] | None:
    try:
        return [model.id for model in await services.openrouter.models()]
    except IntegrationError:
        return None


def _invalid(sentence: str) -> ApiKeyValidation:
    return ApiKeyValidation(valid=False, status="invalid", error=sentence)


def _answer(key: ApiKeyRecord | None) -> ApiKeyAnswer:
    if key is None:
        raise NotFound("api key")
    return ApiKeyAnswer(api_key=ApiKeyOut.model_validate(key))


def masked(secret: str) -> str:
    """Return how the key is shown: its public beginning and nothing of the rest."""
    return (_LONG_PREFIX if secret.startswith(_LONG_PREFIX) else _SHORT_PREFIX) + _HIDDEN
