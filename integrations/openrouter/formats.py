"""Which response format a model takes: from the catalogue, or learnt from a refusal."""

from collections.abc import Mapping

from cachetools import LRUCache

from integrations.errors import RequestRejected
from integrations.openrouter.schemas import ChatRequest, ModelInfo, ResponseFormat

_WORDS = (
    "response_format",
    "response format",
    "json_schema",
    "json schema",
    "json_object",
    "json mode",
    "structured output",
)
_REFUSALS = frozenset({400, 404, 422})
_WEAKER: Mapping[ResponseFormat, ResponseFormat | None] = {
    "json_schema": "json_object",
    "json_object": None,
}


class ResponseFormats:
    """Remembers, per model, the strictest format that was not refused."""

    def __init__(self) -> None:
        self._learnt: LRUCache[str, ResponseFormat | None] = LRUCache(maxsize=1024)

    def choose(self, request: ChatRequest, model: ModelInfo | None) -> ResponseFormat | None:
        if request.response_format != "auto":
            return request.response_format
        best = self._best(request.model, model)
        return "json_object" if best == "json_schema" and request.schema is None else best

    def _best(self, model_id: str, model: ModelInfo | None) -> ResponseFormat | None:
        if model_id in self._learnt:
            return self._learnt[model_id]
        if model is None or "structured_outputs" in model.supported_parameters:
            return "json_schema"
        return "json_object" if "response_format" in model.supported_parameters else None

    def weaken(self, model_id: str, refused: ResponseFormat) -> ResponseFormat | None:
        """Remember that `refused` does not work with this model and return what to try next."""
        self._learnt[model_id] = _WEAKER[refused]
        return _WEAKER[refused]


def is_about_format(error: RequestRejected) -> bool:
    """Whether a refusal is about the response format rather than the request's content."""
    text = error.message.lower()
    return error.status in _REFUSALS and any(word in text for word in _WORDS)
