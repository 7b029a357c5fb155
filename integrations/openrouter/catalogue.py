"""OpenRouter's model catalogue, fetched at most once an hour and never twice at once."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from integrations.errors import IntegrationError, TemporarilyUnavailable
from integrations.openrouter.schemas import ModelInfo, model_info_from
from integrations.openrouter.transport import Transport

_FETCH_TIMEOUT: Final = 10.0
_TIME_TO_LIVE: Final = 3600.0
_RETRY_AFTER_FAILURE: Final = 60.0


class Catalogue:
    """Whoever comes first waits for it; afterwards what is there is served while it is renewed.

    That may be an old copy, or the failure of a first try that came to nothing.
    """

    def __init__(self, transport: Transport, monotonic: Callable[[], float]) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._models: Mapping[str, ModelInfo] = {}
        self._valid_until = float("-inf")
        self._failure: IntegrationError | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def models(self) -> Mapping[str, ModelInfo]:
        """By id; raises an `IntegrationError` when there never was a catalogue."""
        if self._refreshing is None and self._monotonic() >= self._valid_until:
            self._refreshing = asyncio.create_task(self._refresh())
        if self._refreshing is not None and not self._models and self._failure is None:
            # Asked once for all who wait: one of them that gives up leaves it running.
            await asyncio.shield(self._refreshing)
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
            self._models = await self._fetch()
        except IntegrationError as error:
            self._failure = error
            self._valid_until = self._monotonic() + _RETRY_AFTER_FAILURE
        else:
            self._failure = None
            self._valid_until = self._monotonic() + _TIME_TO_LIVE
        finally:
            self._refreshing = None

    async def _fetch(self) -> Mapping[str, ModelInfo]:
        payload = await self._transport.get_json("/models", api_key=None, timeout=_FETCH_TIMEOUT)
        entries = payload.get("data")
        found = map(model_info_from, entries if isinstance(entries, list) else ())
        models = {model.id: model for model in found if model is not None}
        if not models:
            raise TemporarilyUnavailable("OpenRouter listed no models")
        return models
