"""The language models that agents can be made of."""

from fastapi import APIRouter

from api.dependencies import InjectedServices
from api.schemas.models import ModelOut
from integrations.errors import IntegrationError
from integrations.openrouter.well_known import WELL_KNOWN_MODELS

router = APIRouter(prefix="/api/models", tags=["models"])


@router.get("")
async def list_models(services: InjectedServices) -> list[ModelOut]:
    """OpenRouter's catalogue, at most an hour old and a while longer while it is renewed.

    Where it could not be had once since the start of this process, some well-known models without
    their prices.
    """
    try:
        models = await services.openrouter.models()
    except IntegrationError:
        models = list(WELL_KNOWN_MODELS)
    return [ModelOut.of(model) for model in models]
