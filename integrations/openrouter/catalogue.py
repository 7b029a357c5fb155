"""OpenRouter's model catalogue, fetched at most once an hour."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from integrations.errors import IntegrationError
from integrations.openrouter.schemas import ModelInfo, model_info_from
from integrations.openrouter.transport import Transport

_FETCH_TIMEOUT: Final = 10.0
_TIME_TO_LIVE: Final = 3600.0
_RETRY_AFTER_FAILURE: Final = 60.0


class Catalogue:
    """An old copy serves while OpenRouter is away; without one, the failure is the answer."""

    def __init__(self, transport: Transport, monotonic: Callable[[], float]) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._models: Mapping[str, ModelInfo] = {}
        self._valid_until = float("-inf")
        self._failure: IntegrationError | None = None
        self._lock = asyncio.Lock()

    async def models(self) -> Mapping[str, ModelInfo]:
        """By id; raises an `IntegrationError` when there never was a catalogue."""
        async with self._lock:
            if self._monotonic() >= self._valid_until:
                await self._refresh()
            if self._failure is not None and not self._models:
                raise self._failure
            return self._models

    async def find(self, model_id: str) -> ModelInfo | None:
        """The model, or None when it, or the whole catalogue, is not to be had."""
        try:
            return (await self.models()).get(model_id)
        except IntegrationError:
            return None

    async def _refresh(self) -> None:
        try:
            payload = await self._transport.get_json(
                "/models", api_key=None, timeout=_FETCH_TIMEOUT
            )
        except IntegrationError as error:
            self._failure = error
            self._valid_until = self._monotonic() + _RETRY_AFTER_FAILURE
            return
        entries = payload.get("data")
        found = map(model_info_from, entries if isinstance(entries, list) else ())
        self._models = {model.id: model for model in found if model is not None}
        self._failure = None
        self._valid_until = self._monotonic() + _TIME_TO_LIVE
